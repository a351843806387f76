"""Models on disk: which versions there are, which of them are whole, and whether one has changed.

The layout is TensorFlow Serving's, ``<root>/<name>/<integer version>/``; other folders are not versions. A lone
``.tflite`` file can be a version, too, where an operator names it (`model_places`). A version with a manifest
(``assets.extra/horngate.json``) is whole when every file in it has the SHA-256 that the manifest, which is written
last, says; one without is taken as it is, and called unverified.
"""

import errno
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from horngate_server.core.errors import ModelError
from horngate_server.core.settings import LITERT, TENSORFLOW
from horngate_server.lifecycle import folder_hints
from horngate_server.lifecycle.folder_hints import GRAPH, LITE

FILES = {TENSORFLOW: GRAPH, LITERT: LITE}
"""What each engine computes from, in a version's folder."""
MANIFEST = "assets.extra/horngate.json"
HIGHEST = (1 << 63) - 1
"""The highest version: the protocols have 64 bits for it."""


@dataclass(frozen=True, slots=True)
class Version:
    """A whole version on disk.

    Attributes:
        name: the model's.
        number: the version's.
        path: its folder.
        manifest: what the manifest says; None where there is none.
        digest: SHA-256 of the manifest, or of the graph's file where there is none, in hex.
    """

    name: str
    number: int
    path: Path
    manifest: Mapping[str, Any] | None
    digest: str


@dataclass(frozen=True, slots=True)
class Listing:
    """What lies where models are expected.

    Attributes:
        models: those with a version: by name, where the versions lie.
        unreadable: the models whose folder cannot be read at the moment.
        ignored: what looks like a model or a version and is none, each with the reason.
    """

    models: Mapping[str, Mapping[int, Path]] = field(default_factory=dict)
    unreadable: frozenset[str] = frozenset()
    ignored: Mapping[Path, str] = field(default_factory=dict)


def look(root: Path) -> Listing:
    """Find every model under the root, and its versions.

    Raises:
        ModelError: the root is not a folder that can be read.
    """
    try:
        folders = sorted(each for each in root.iterdir() if os.path.isdir(each) and not each.name.startswith("."))
    except OSError as error:
        raise ModelError(f"--models {shown(root)}: {error.strerror}") from error
    odd = folder_hints.about_root(root)
    return joined([Listing(ignored=odd), *(look_at_model(folder, folder.name) for folder in folders)])


def look_at_model(folder: Path, name: str) -> Listing:
    """Find the versions of one model in its folder."""
    if shown(name) != name:
        return Listing(ignored={folder: "its name is not UTF-8: no caller could ask for it"})
    try:
        mine, odd = _versions(folder)
    except OSError as error:
        if error.errno in _GONE:
            return Listing()
        return Listing({}, frozenset([name]), {folder: f"it cannot be read: {error.strerror}"})
    if mine:
        return Listing({name: mine}, ignored={**odd, **folder_hints.about_versions(folder)})
    if hint := folder_hints.about_model(folder):
        odd[folder] = hint
    return Listing(ignored=odd)


def joined(listings: Iterable[Listing]) -> Listing:
    """Return several listings as one; of two models with one name, the first counts."""
    models: dict[str, Mapping[int, Path]] = {}
    unreadable: set[str] = set()
    ignored: dict[Path, str] = {}
    for each in listings:
        ignored |= each.ignored
        unreadable |= each.unreadable
        for name, found in each.models.items():
            if models.setdefault(name, found) is not found:
                ignored[next(iter(found.values()))] = f"there is another model {name}: give one of them another --name"
    return Listing(models, frozenset(unreadable), ignored)


def versions(folder: Path) -> Mapping[int, Path]:
    """Find the versions of one model; a folder that cannot be read, or vanishes, has none."""
    try:
        return _versions(folder)[0]
    except OSError:
        return {}


def file_of(path: Path, engine: str) -> Path:
    """Return what an engine computes from: a file in a version's folder, or a lone ``.tflite`` file itself."""
    return path if engine == LITERT and path.is_file() else path / FILES[engine]


def shown(path: Path | str) -> str:
    """Return a path as text that can be logged and sent: what is not UTF-8 in it is written as an escape."""
    return str(path).encode(errors="backslashreplace").decode()


Fingerprint = frozenset[tuple[str, int, int, int, int]]


def fingerprint(path: Path) -> Fingerprint:
    """Return what changes when any file of a version does: paths, sizes, inodes, times, permissions. Empty: no file.

    Times are only ever compared for being equal: a clock that is set back does no harm. What cannot be read is part of
    it too, with the reason: so that a version is tried again once it can.
    """
    found = []

    def note(error: OSError) -> None:
        if error.errno not in _GONE:  # it may vanish while this walks
            found.append((str(error.filename), -(error.errno or 1), 0, 0, 0))

    def note_file(file: str, stat: os.stat_result) -> None:
        found.append((file, stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_mode))

    for folder, folders, names in os.walk(path, onerror=note):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]  # they are not walked
        for name in (*names, *links):
            file = os.path.join(folder, name)
            try:
                stat = os.stat(file)
            except OSError as error:
                note(error)
            else:
                note_file(file, stat)
    if not found and os.path.isfile(path):
        note_file(str(path), os.stat(path))
    return frozenset(found)


def read(path: Path, alive: Callable[[], None] = lambda: None, *, called: tuple[str, int] | None = None) -> Version:
    """Check that a version is whole.

    Args:
        path: its folder, or a lone ``.tflite`` file.
        alive: called after every file; what it raises ends the reading.
        called: the model's name and the version's number, where the folders' names do not say them.

    Raises:
        ModelError: what is missing or differs, and what to do where that is known.
    """
    name, number = called or (path.parent.name, number_of(path.name))
    if number is None:
        raise ModelError(f"{shown(path)} is no version: expected a whole number up to {HIGHEST}")
    try:
        graph = next((file for engine in FILES if (file := file_of(path, engine)).is_file()), None)
        if graph is None:
            os.listdir(path)  # a folder that cannot be read says so itself
            hint = folder_hints.about_version(path)
            raise ModelError(f"{shown(path)} has no {GRAPH} and no {LITE}{hint and ': '}{hint}")
        if hint := folder_hints.about_pointers(path):
            raise ModelError(hint)
        if not (path / MANIFEST).is_file():
            return Version(name, number, path, None, _sha256(graph))
        manifest = manifest_of(path)
        for file, expected in manifest["files"].items():
            _check(path, file, expected)
            alive()
        return Version(name, number, path, manifest, _sha256(path / MANIFEST))
    except OSError as error:
        what = shown(error.filename or path)
        raise ModelError(f"{what} cannot be read: {error.strerror or error}") from error


def number_of(name: str) -> int | None:
    """Return the version that a folder's name stands for; None where it stands for none."""
    match = _NUMBER.fullmatch(name)
    return int(match[1]) if match and int(match[1]) <= HIGHEST else None


def manifest_of(path: Path) -> dict[str, Any]:
    """Return what a version's manifest says.

    Raises:
        ModelError: it is no manifest.
        OSError: it cannot be read.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{shown(path / MANIFEST)} is not JSON: {error}") from error
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict) or not all(isinstance(value, str) for value in files.values()):
        raise ModelError(f'{shown(path / MANIFEST)} has no "files" with their SHA-256')
    assert isinstance(manifest, dict)
    return manifest


def is_plain(file: str) -> bool:
    """Whether a path stays below the folder that it is of."""
    plain = PurePosixPath(file)
    inside = bool(plain.parts) and not plain.is_absolute() and ".." not in plain.parts
    return inside and "\0" not in file and shown(file) == file


# --- private ------------------------------------------------------------------------------------------

_GONE = frozenset([errno.ENOENT, errno.ENOTDIR])
_NUMBER = re.compile(r"0*([0-9]{1,19})")


def _versions(folder: Path) -> tuple[dict[int, Path], dict[Path, str]]:
    """Return one model's versions, and what looks like one and is none.

    Raises:
        OSError: the folder cannot be read.
    """
    found: dict[int, Path] = {}
    odd: dict[Path, str] = {}
    for each in sorted(folder.iterdir(), key=lambda each: len(each.name)):  # "7" before "007"
        if not (each.name.isdecimal() and each.name.isascii() and os.path.isdir(each)):
            continue
        number = number_of(each.name)
        if number is None:
            odd[each] = f"it is no version: expected a whole number up to {HIGHEST}"
        elif number in found:
            odd[each] = f"version {number} is there already, as {found[number].name}"
        else:
            found[number] = each
    return found, odd


def _check(path: Path, file: str, expected: str) -> None:
    """Check one file that a manifest lists.

    Raises:
        ModelError: it is not below the version, is missing or differs.
        OSError: it cannot be read.
    """
    if not is_plain(file):
        raise ModelError(
            f"{shown(path / MANIFEST)} lists {file!a}; expected plain paths below the version, such as {GRAPH}"
        )
    whole = path / file
    if not whole.is_file():
        raise ModelError(f"{shown(path)} lacks {file}, which its manifest lists")
    if not whole.resolve().is_relative_to(path.resolve()):
        raise ModelError(
            f"{shown(path / MANIFEST)} lists {file}, which is a link to {shown(whole.resolve())}; "
            "expected files below the version"
        )
    if _sha256(whole) != expected:
        if folder_hints.is_pointer(whole):
            raise ModelError(folder_hints.about_pointer(path, whole))
        raise ModelError(f"{shown(path)}/{file} is not the file that the manifest lists: its SHA-256 differs")


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
