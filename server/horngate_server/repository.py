"""The model root on disk: which versions there are, and which of them are whole.

The layout is TensorFlow Serving's, ``<root>/<name>/<integer version>/``; other folders are not versions. A version
with a manifest (``assets.extra/horngate.json``) is whole when every file in it has the SHA-256 that the manifest,
which is written last, says; one without is taken as it is, and called unverified.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
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


def models(root: Path) -> Mapping[str, list[Path]]:
    """Return every model under the root with its versions' folders, the newest first.

    Raises:
        ModelError: the root is not a folder that can be read.
    """
    try:
        folders = sorted(each for each in root.iterdir() if each.is_dir() and not each.name.startswith("."))
        found = {folder.name: sorted(_versions(folder), key=_number, reverse=True) for folder in folders}
    except OSError as error:
        raise ModelError(f"--models {root}: {error.strerror}") from error
    return {name: versions for name, versions in found.items() if versions}


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


def _versions(folder: Path) -> Iterator[Path]:
    return (each for each in folder.iterdir() if each.name.isdecimal() and each.name.isascii() and each.is_dir())


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
