"""Which versions a store's listing holds: pure, as `repository.look` is for a local root."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from horngate_server.lifecycle import repository
from horngate_server.lifecycle.remote_store import RemoteFile

Key = tuple[str, int]
"""A version: its model's name, and its number."""


@dataclass(frozen=True, slots=True)
class RemoteVersion:
    """A version as a store lists it.

    Attributes:
        name: its model's.
        number: its own.
        files: by path below the version.
    """

    name: str
    number: int
    files: Mapping[str, RemoteFile]

    @property
    def bytes(self) -> int:
        """What all files have."""
        return sum(file.size for file in self.files.values())

    @property
    def tag(self) -> str:
        """What changes when any file does."""
        listed = sorted((path, file.size, file.tag) for path, file in self.files.items())
        return hashlib.sha256(repr(listed).encode()).hexdigest()


def versions(listed: Iterable[RemoteFile]) -> dict[Key, RemoteVersion]:
    """Find every version in a listing; what is no ``<name>/<integer version>/<file>`` is none."""
    folders: dict[tuple[str, str], dict[str, RemoteFile]] = {}
    for file in listed:
        name, _, rest = file.path.partition("/")
        folder, _, path = rest.partition("/")
        if path and not name.startswith(".") and repository.is_plain(path):
            folders.setdefault((name, folder), {})[path] = file
    found: dict[Key, RemoteVersion] = {}
    for (name, folder), files in sorted(folders.items(), key=lambda each: len(each[0][1])):  # "7" before "007"
        number = repository.number_of(folder)
        if number is not None:
            found.setdefault((name, number), RemoteVersion(name, number, _without_markers(files)))
    return found


# --- private ------------------------------------------------------------------------------------------


def _without_markers(files: Mapping[str, RemoteFile]) -> Mapping[str, RemoteFile]:
    """Leave out the empty objects that stand for folders: consoles make them."""
    folders = {str(parent) for path in files for parent in PurePosixPath(path).parents}
    return {path: file for path, file in files.items() if file.size or path not in folders}
