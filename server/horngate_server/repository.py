"""The model root on disk: which versions there are, which of them are whole, and whether one has changed.

The layout is TensorFlow Serving's, ``<root>/<name>/<integer version>/``; other folders are not versions. A version
with a manifest (``assets.extra/horngate.json``) is whole when every file in it has the SHA-256 that the manifest,
which is written last, says; one without is taken as it is, and called unverified.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from horngate_server.errors import ModelError

MANIFEST = "assets.extra/horngate.json"
GRAPH = "saved_model.pb"


@dataclass(frozen=True, slots=True)
class Version:
    """A whole version on disk.

    Attributes:
        name: the model's.
        number: the version's.
        path: its folder.
        manifest: what the manifest says; None where there is none.
        digest: SHA-256 of the manifest, or of the graph where there is none, in hex.
    """

    name: str
    number: int
    path: Path
    manifest: Mapping[str, Any] | None
    digest: str


def models(root: Path) -> Mapping[str, Mapping[int, Path]]:
    """Return every model under the root that has a version, with its versions' folders.

    Raises:
        ModelError: the root is not a folder that can be read.
    """
    try:
        folders = sorted(each for each in root.iterdir() if each.is_dir() and not each.name.startswith("."))
    except OSError as error:
        raise ModelError(f"--models {root}: {error.strerror}") from error
    found = {folder.name: versions(folder) for folder in folders}
    return {name: each for name, each in found.items() if each}


def versions(folder: Path) -> Mapping[int, Path]:
    """Find the versions of one model; a folder that cannot be read, or vanishes, has none."""
    found: dict[int, Path] = {}
    with suppress(OSError):
        for each in sorted(folder.iterdir(), key=lambda each: len(each.name)):  # "7" before "007"
            if each.name.isdecimal() and each.name.isascii() and each.is_dir():
                found.setdefault(int(each.name), each)
    return found


Fingerprint = frozenset[tuple[str, int, int, int]]


def fingerprint(path: Path) -> Fingerprint:
    """Return what changes when any file of a version does: paths, sizes, inodes and times. Empty once it has gone.

    Times are only ever compared for being equal: a clock that is set back does no harm.
    """
    found = []
    for folder, _, names in os.walk(path):  # it ignores folders that vanish while it walks
        for name in names:
            file = os.path.join(folder, name)
            with suppress(OSError):
                stat = os.stat(file)
                found.append((file, stat.st_size, stat.st_ino, stat.st_mtime_ns))
    return frozenset(found)


def read(path: Path) -> Version:
    """Check that a version is whole.

    Raises:
        ModelError: what is missing or differs.
    """
    name, number = path.parent.name, _number(path)
    try:
        if not (path / GRAPH).is_file():
            raise ModelError(f"{path} has no {GRAPH}")
        if not (path / MANIFEST).is_file():
            return Version(name, number, path, None, _sha256(path / GRAPH))
        manifest = _manifest(path)
        for file, expected in manifest["files"].items():
            if not (path / file).is_file():
                raise ModelError(f"{path} lacks {file}, which its manifest lists")
            if _sha256(path / file) != expected:
                raise ModelError(f"{path}/{file} is not the file that the manifest lists: its SHA-256 differs")
        return Version(name, number, path, manifest, _sha256(path / MANIFEST))
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error}") from error


# --- private ------------------------------------------------------------------------------------------


def _number(path: Path) -> int:
    return int(path.name)


def _manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
    except ValueError as error:
        raise ModelError(f"{path / MANIFEST} is not JSON: {error}") from error
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict) or not all(isinstance(value, str) for value in files.values()):
        raise ModelError(f'{path / MANIFEST} has no "files" with their SHA-256')
    assert isinstance(manifest, dict)
    return manifest


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
