"""Models as they lie on disk: of which kind they are, by their content. It loads no TensorFlow."""

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from horngate_trainer import memory, npz
from horngate_trainer.errors import DataError, ExamplesError, SourceError
from horngate_trainer.publish import versions

KERAS, H5, FOLDER, TFLITE = "keras", "h5", "savedmodel", "tflite"
TITLES = {KERAS: "a Keras file", H5: "a Keras file (HDF5)", FOLDER: "a SavedModel", TFLITE: "a .tflite file"}
SUFFIXES = {KERAS: (".keras",), H5: (".h5", ".hdf5"), TFLITE: (".tflite",)}
GRAPH = "saved_model.pb"
"""What a SavedModel's folder has."""
LITE = "model.tflite"
"""What a version has for LiteRT."""

Examples = Mapping[str, npt.NDArray[Any]]


def kind_of(path: Path) -> str:
    """Say what kind of model lies there: one of `TITLES`.

    Raises:
        SourceError: none that can be imported; the text says what was expected, and what lies there.
    """
    try:
        if path.is_dir():
            return _kind_of_folder(path)
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as exc:
        raise SourceError(f"cannot read {path}: {exc.strerror or exc}") from exc
    if start == b"\x89HDF\r\n\x1a\n":
        return H5
    if start[4:] == b"TFL3":
        return TFLITE
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if {"config.json", "metadata.json"} <= set(archive.namelist()):
                return KERAS
    if path.name == GRAPH:
        raise SourceError(f"{path} is a part of a SavedModel: import its folder, {path.parent}")
    named = any(path.suffix in suffixes for suffixes in SUFFIXES.values())
    why = "what is in it is not what its name says (damaged, or a part of the file?); " * named
    raise SourceError(f"{path} is no model that can be imported: {why}{_EXPECTED}")


def size_bytes(path: Path) -> int:
    """Return the size of a file, or of all files in a folder."""
    files = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]
    return sum(each.stat().st_size for each in files)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of a SavedModel's graph."""
    with (path / GRAPH if path.is_dir() else path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def examples(path: Path) -> Examples:
    """Read rows.

    Raises:
        ExamplesError: there is no such file of arrays, or no memory for it.
    """
    try:
        with npz.opened(path) as archive:
            needed = sum(archive.header(name).size_bytes for name in archive.names)
            there = memory.available_bytes()
            if there is not None and needed > there:
                raise ExamplesError(
                    f"--examples {path} needs {needed / 1e9:.1f} GB of memory, and {there / 1e9:.1f} GB are free here: "
                    "a hundred rows are enough"
                )
            return {name: archive.read(name) for name in archive.names}
    except DataError as exc:
        raise ExamplesError(f"--examples: {exc}") from exc


# --- private ---------------------------------------------------------------------------------------------------------

_EXPECTED = (
    f"expected a .keras or .h5 file with a whole Keras model, a SavedModel's folder (with {GRAPH}), or a .tflite file"
)


def _kind_of_folder(path: Path) -> str:
    if (path / GRAPH).is_file():
        return FOLDER
    below = sorted(number for number in versions(path) if _importable(path / str(number)))
    if below:
        raise SourceError(f"{path} is a folder of versions: import one of them, such as {path / str(below[-1])}")
    if _importable(path):
        raise SourceError(f"{path} has a {LITE} and no SavedModel: import {path / LITE}")
    raise SourceError(f"{path} is no model that can be imported: {_EXPECTED}")


def _importable(version: Path) -> bool:
    return any((version / file).is_file() for file in (GRAPH, LITE))
