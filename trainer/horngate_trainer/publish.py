"""Atomic publication of a version: written beside its final name, synced, renamed into place.

A reader of ``<root>/<name>/`` sees a version whole or not at all, whenever the writer is killed. The writer works in a
hidden folder ``.partial-*`` that servers ignore, under a shared lock on the model's folder. The kernel drops the lock
when the writer dies, so whoever can take the lock alone knows that every ``.partial-*`` there is a dead writer's
and removes it.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MANIFEST = Path("assets.extra") / "horngate.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""A model's name: a plain folder name."""
MOST = 2**63 - 1
"""Numbers beyond are no versions: no protocol can name them."""


@dataclass(frozen=True, slots=True)
class Staging:
    """A version in the making.

    Attributes:
        folder: the model's folder, which gets the version.
        path: where its files are written until they are published.
    """

    folder: Path
    path: Path

    def publish(self, manifest: Mapping[str, Any]) -> Path:
        """Add the manifest, sync all, and rename to the next free version.

        Args:
            manifest: the manifest but for ``version`` and ``files``, which are filled in here.

        Returns:
            The published version's folder.

        Raises:
            OSError: the disk is full or cannot be written; nothing was published.
        """
        files = {path.relative_to(self.path).as_posix(): _sync(path) for path in _files(self.path)}
        (self.path / MANIFEST).parent.mkdir(exist_ok=True)
        while True:
            version = _next_version(self.folder)
            _write(self.path / MANIFEST, {**manifest, "version": version, "files": files})
            for path in (*_folders(self.path), self.path):
                sync_folder(path)
            final = self.folder / str(version)
            try:
                self.path.rename(final)
            except OSError:
                if not final.exists():
                    raise
                continue  # another exporter took that version meanwhile
            sync_folder(self.folder)
            return final

    def replace(self, version: Path, file: Path, manifest: Mapping[str, Any]) -> None:
        """Put a file of this folder in the place of a published version's own, and seal the version anew.

        Between one file and the other, the version is not whole, and servers refuse it.

        Args:
            version: the version's folder.
            file: its path in both.
            manifest: the version's, which says of the file what it was.

        Raises:
            OSError: the disk is full or cannot be written.
        """
        digest = _sync(self.path / file)
        _write(self.path / MANIFEST, {**manifest, "files": {**manifest["files"], file.as_posix(): digest}})
        for each in (file, MANIFEST):
            (self.path / each).replace(version / each)
            sync_folder((version / each).parent)


@contextmanager
def staging(folder: Path) -> Iterator[Staging]:
    """Open a hidden folder inside the model's ``folder`` for a version in the making; it is gone afterwards.

    Raises:
        OSError: the folder cannot be made or written.
    """
    make_folder(folder)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _clean(folder, descriptor)
        # Nobody else can enter the outer folder; the inner one, which is published, is as open as the umask says.
        private = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder))
        path = private / "version"
        try:
            path.mkdir()
            yield Staging(folder, path)
        finally:
            shutil.rmtree(private, ignore_errors=True)
    finally:
        os.close(descriptor)


def tidy(folder: Path) -> None:
    """Remove what dead writers left in a model's folder, if no writer lives."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _clean(folder, descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make a folder and its parents, and sync the entries that name them."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync_folder(folder.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def versions(folder: Path) -> list[int]:
    """Return the numbers of a model's versions, in no order."""
    named = [int(path.name) for path in folder.iterdir() if path.name.isascii() and path.name.isdigit()]
    return [number for number in named if number <= MOST]


def manifest(version: Path) -> dict[str, Any]:
    """Return what a published version's manifest says."""
    content: dict[str, Any] = json.loads((version / MANIFEST).read_bytes())
    return content


def find(folder: Path, fits: Callable[[Mapping[str, Any]], bool]) -> Path | None:
    """Return the newest version of a model whose manifest fits; None where there is none."""
    numbers = versions(folder) if folder.is_dir() else []
    for number in sorted(numbers, reverse=True):
        try:
            manifest = json.loads((folder / str(number) / MANIFEST).read_bytes())
        except (OSError, ValueError):
            continue  # not one of ours
        if isinstance(manifest, dict) and fits(manifest):
            return folder / str(number)
    return None


# --- private ---------------------------------------------------------------------------------------------------------


def _clean(folder: Path, descriptor: int) -> None:
    """Remove what dead writers left, if no writer lives, and hold the shared lock until the descriptor closes."""
    with suppress(OSError):  # some network file systems cannot lock a folder: nothing is cleaned there
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        else:
            for left in folder.glob(".partial-*"):
                shutil.rmtree(left, ignore_errors=True)
        fcntl.flock(descriptor, fcntl.LOCK_SH)


def _next_version(folder: Path) -> int:
    number = max(versions(folder), default=0) + 1
    if number > MOST:
        raise OSError(f"version {MOST} is there, and there can be none above it")
    return number


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file())


def _folders(path: Path) -> list[Path]:
    return sorted((folder for folder in path.rglob("*") if folder.is_dir()), reverse=True)


def _sync(path: Path) -> str:
    """Sync a file and return its SHA-256."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, content: Mapping[str, Any]) -> None:
    with path.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=2, ensure_ascii=False, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
