"""The local folder that versions of an object store are fetched into: a model root like any other, bounded in bytes.

A version appears and is replaced by a rename, with a note (`NOTE`) of what the store listed when it was fetched.
Processes may share a cache, as the workers of one server do: one of them, its owner, fetches.
"""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from horngate_server.core.errors import SettingsError, StoreError
from horngate_server.lifecycle import repository
from horngate_server.lifecycle.remote_listing import Key

NOTE = ".horngate-fetched"
PARTIAL = ".partial-"


class Cached(NamedTuple):
    """A version in the cache: its folder, `RemoteVersion.tag` of what was fetched, and its bytes."""

    path: Path
    tag: str
    bytes: int


class ModelCache:
    """A bounded model root on disk.

    Args:
        root: made where it is not there.
        capacity_bytes: what all versions may take.
    """

    def __init__(self, root: Path, capacity_bytes: int) -> None:
        self.root = root
        self._capacity_bytes = capacity_bytes
        self._lock = -1
        self._owned = False

    def open(self) -> None:
        """Make the folder.

        Raises:
            SettingsError: it cannot be made, or written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.root).close()
            self._lock = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise SettingsError(f"--model-cache: {self.root} cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Let another process own it."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    @contextmanager
    def owned(self) -> Iterator[bool]:
        """Say whether this process is the one that fetches; where it is not, the owner's first look is over.

        The owner locks the folder alone for its first look, and together with those who wait for that afterwards. The
        kernel unlocks for a process that ends.
        """
        if not self._owned:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                fcntl.flock(self._lock, fcntl.LOCK_SH)
                fcntl.flock(self._lock, fcntl.LOCK_UN)
                yield False
                return
            except OSError:  # some network file systems cannot lock a folder
                pass
            self._owned = True
            for left in self.root.glob(f"{PARTIAL}*"):
                shutil.rmtree(left, ignore_errors=True)
        try:
            yield True
        finally:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:  # another one took it while it was changed over
                self._owned = False
            except OSError:
                pass

    def versions(self) -> dict[Key, Cached]:
        """Return what is there.

        Raises:
            ModelError: the folder cannot be read.
        """
        found = {}
        for name, folders in repository.look(self.root).models.items():
            for number, path in folders.items():
                try:
                    note = json.loads((path / NOTE).read_bytes())
                    found[name, number] = Cached(path, str(note["tag"]), int(note["bytes"]))
                except (OSError, ValueError, TypeError, KeyError):  # not ours, or damaged: it is fetched anew
                    found[name, number] = Cached(path, "", 0)
        return found

    def make_room(self, needed: int, keep: Collection[Key]) -> list[Key]:
        """Remove the oldest versions but some, until so many bytes more may be there; return those removed.

        Raises:
            StoreError: there is not enough room for it.
        """
        there = self.versions()
        room = self._capacity_bytes - sum(each.bytes for each in there.values())
        may_go = sorted((key for key in there if key not in keep), key=lambda key: key[1])
        if room + sum(there[key].bytes for key in may_go) < needed:
            raise StoreError(
                f"it has {_shown(needed)}, and beside what serves there is no room for it in --model-cache-bytes "
                f"{_shown(self._capacity_bytes)}"
            )
        removed = []
        while room < needed:
            key = may_go.pop(0)
            self.remove(there[key].path)
            room += there[key].bytes
            removed.append(key)
        free = shutil.disk_usage(self.root).free
        if free < needed:
            raise StoreError(f"it has {_shown(needed)}, and the disk of {self.root} has {_shown(free)} left")
        return removed

    @contextmanager
    def staging(self, name: str, number: int) -> Iterator[Path]:
        """Make a hidden folder for a version in the making, called as the version is; it is gone afterwards."""
        private = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=self.root))
        try:
            path = private / name / str(number)
            path.mkdir(parents=True)
            yield path
        finally:
            shutil.rmtree(private, ignore_errors=True)

    def write(self, path: Path, pieces: Iterable[memoryview]) -> None:
        """Write a file of a version in the making, and sync it.

        Raises:
            OSError: it cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())

    def adopt(self, staged: Path, tag: str, size: int) -> None:
        """Sync a version that is whole, and put it where the server looks, in the place of an older copy.

        Raises:
            OSError: it cannot be written.
        """
        self.write(staged / NOTE, [memoryview(json.dumps({"tag": tag, "bytes": size}).encode())])
        for folder, _, _ in os.walk(staged):
            _sync(Path(folder))
        final = self.root / staged.parent.name / staged.name
        final.parent.mkdir(exist_ok=True)
        self.remove(final)
        staged.rename(final)
        _sync(final.parent)
        _sync(self.root)

    def remove(self, path: Path) -> None:
        """Take a version away at once, whole."""
        hidden = tempfile.TemporaryDirectory(prefix=PARTIAL, dir=self.root, ignore_cleanup_errors=True)
        with hidden as private, suppress(FileNotFoundError):
            path.rename(Path(private) / "version")


# --- private ------------------------------------------------------------------------------------------


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _shown(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
