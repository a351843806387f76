"""The files that requests are recorded in: DIR/<model>/<version>/<when>-<process>.tfrecord, bounded in bytes and age.

Several processes may write below one folder, each to files of its own; each of them deletes the oldest ones of all.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

PARTS = 8
"""A file has this part of all bytes at most; as much is written between two looks at what there is."""
AGES = 16
"""A file is closed after this part of the age, so that the others need not leave with its first record."""
OPEN_FILES = 64
"""More models and versions than this are written to in turn."""
_FORMAT = "%Y%m%dT%H%M%S.%fZ"
_NAME = re.compile(r"(\d{8}T\d{6}\.\d{6}Z)-\d+\.tfrecord")


class TooLarge(Exception):
    """A record has no room in any file."""


@dataclass(slots=True, eq=False)
class _File:
    """One that is being written.

    Attributes:
        path: where it is.
        descriptor: opened for appending.
        began: the wall clock's seconds when it was made.
        size: in bytes; whole records.
    """

    path: Path
    descriptor: int
    began: float
    size: int = 0


class _Found(NamedTuple):
    """A file that is there, of any process; the oldest is the least."""

    began: float
    path: Path
    size: int


class RecordFiles:
    """This process's files, and the bounds of all. Used by one thread.

    Args:
        folder: where to; made when it is needed, for this user alone.
        most_bytes: of all files together.
        age_s: no record is kept for longer.
        wall_clock: seconds since 1970.
        writers: processes that write to the folder.
    """

    def __init__(
        self, folder: Path, most_bytes: int, age_s: float, wall_clock: Callable[[], float], *, writers: int = 1
    ) -> None:
        self._folder = folder
        self._age_s = age_s
        self._wall_clock = wall_clock
        self._step = most_bytes // (PARTS * writers)
        self._most_found = most_bytes - self._step * writers
        self._written = self._step  # what there is from before is looked at first
        self._open: dict[tuple[str, str], _File] = {}

    def append(self, model: str, version: str, record: bytes) -> None:
        """Add a record to a version's file.

        Raises:
            TooLarge: it is larger than a file may be.
            OSError: the disk is full, or fails; no part of the record is left in a file that goes on.
        """
        if len(record) > self._step:
            raise TooLarge
        if self._written + len(record) > self._step:
            self.sweep()
        key = model, version
        file = self._open.get(key)
        if file is not None and file.size + len(record) > self._step:
            self._close(key)
            file = None
        if file is None:
            if len(self._open) >= OPEN_FILES:
                self.close()
            file = self._open[key] = self._create(model, version)
        try:
            _write(file.descriptor, record)
        except OSError:
            with suppress(OSError):
                os.ftruncate(file.descriptor, file.size)
            self._close(key)
            raise
        file.size += len(record)
        self._written += len(record)

    def sweep(self) -> None:
        """Delete what is too old, and the oldest of what is too much.

        Raises:
            OSError: what there is cannot be looked at, or not be deleted.
        """
        now = self._wall_clock()
        found = sorted(_found(self._folder))
        total = sum(each.size for each in found)
        left = set()
        for each in found:
            if each.began < now - self._age_s or total > self._most_found:
                each.path.unlink(missing_ok=True)
                total -= each.size
            else:
                left.add(each.path)
        for key, file in list(self._open.items()):
            if file.path not in left or file.began < now - self._age_s / AGES:
                self._close(key)
        self._written = 0

    def close(self) -> None:
        """Close the files that are being written."""
        for key in list(self._open):
            self._close(key)

    # --- private --------------------------------------------------------------------------------------

    def _create(self, model: str, version: str) -> _File:
        folder = self._folder / _undotted(model) / _undotted(version)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        began = self._wall_clock()
        path = folder / f"{datetime.fromtimestamp(began, UTC).strftime(_FORMAT)}-{os.getpid()}.tfrecord"
        return _File(path, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_EXCL, 0o600), began)

    def _close(self, key: tuple[str, str]) -> None:
        file = self._open.pop(key)
        with suppress(OSError):
            os.close(file.descriptor)
        if not file.size:
            with suppress(OSError):
                file.path.unlink()


# --- private ------------------------------------------------------------------------------------------


def _undotted(name: str) -> str:
    """Return a name as a folder's that is seen, and lies below the one that it is made in."""
    return name.replace(".", "%2E", 1) if name.startswith(".") else name


def _write(descriptor: int, record: bytes) -> None:
    """Write all of it; a disk that is filling up takes a part."""
    rest = memoryview(record)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _found(folder: Path) -> Iterator[_Found]:
    """Yield the recorded files of all processes; nothing else that may lie there."""
    for path in folder.glob("*/*/*.tfrecord"):
        if match := _NAME.fullmatch(path.name):
            began = datetime.strptime(match[1], _FORMAT).replace(tzinfo=UTC).timestamp()
            with suppress(FileNotFoundError):  # another process deletes, too
                yield _Found(began, path, path.stat().st_size)
