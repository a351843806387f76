"""A folder of images with a folder for each class, as Keras's ``image_dataset_from_directory`` has it."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby
from math import prod
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from horngate_protos.control_groups import cores
from horngate_trainer import pictures, quiet
from horngate_trainer.errors import DataError, TooLargeError
from horngate_trainer.memory import Size
from horngate_trainer.pictures import Picture
from horngate_trainer.pixels import Images, Labels
from horngate_trainer.streamed import Streamed

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
TRAIN, TESTS = "train", ("test", "val", "validation", "valid")
TEST_SHARE = 0.2
"""Of each class, where there is no folder for the test."""
HEAD_BYTES = 4096
"""So many of each file are in the digest of a folder that is streamed."""
SEED = 0
"""Of that split: the same folder is split the same way each time, so that a training can be resumed."""


@dataclass(frozen=True, slots=True)
class Folder:
    """What was read.

    Attributes:
        arrays: ``x_train``, ``y_train``, ``x_test``, ``y_test``, as a data set has them; images may be `Streamed`.
        names: of the classes: their folders', sorted.
    """

    arrays: dict[str, Any]
    names: Sequence[str]


def load(path: Path, before: Callable[[Size], None], size: tuple[int, int] | None, *, stream: bool = False) -> Folder:
    """Read a folder of images.

    With ``train`` and ``test`` (or ``val``, ``validation``) in it, each has the classes' folders; without, a fifth of
    each class is kept for the test. Images are grey if all are, else of three colours.

    Args:
        path: the folder.
        before: told how large the data are before an image is decoded; an exception that it raises passes through,
            but for a `TooLargeError` that the data in memory are.
        size: height and width that images are brought to; None: all must have one size.
        stream: leave images where they are, and read them as they are needed, even if they fit into memory.

    Raises:
        DataError: there are no classes, an image cannot be read, or sizes differ.
        TrainerError: Pillow, which reads images, is not installed.
    """
    quiet.require("a folder of images", "PIL", otherwise="give an .npz file")
    names, parts = _parts(path)
    files = [file for part in parts.values() for file, _ in part]
    with ThreadPoolExecutor(cores()) as pool:
        seen = pool.map(pictures.look, (Picture(str(file), file) for file in files))
        shapes: dict[tuple[int, ...], str] = {}
        for file, each in zip(files, seen, strict=True):
            shapes.setdefault(each, str(file))
    shape = pictures.common_shape(shapes, size)
    in_memory = Size(
        train=len(parts["train"]),
        test=len(parts["test"]),
        image_shape=shape,
        classes=len(names),
        loading_bytes=len(files) * prod(shape),
    )
    try:
        if not stream:
            before(in_memory)
    except TooLargeError:
        stream = True
    if stream:
        before(replace(in_memory, loading_bytes=0, streamed=True))
    arrays: dict[str, Any] = {}
    for part, found in parts.items():
        images = _streamed(found, shape, _digest(found) if stream else b"")
        labels: Labels = np.array([label for _, label in found], np.int32)
        arrays |= {f"x_{part}": images if stream else images[:], f"y_{part}": labels}
    return Folder(arrays, names)


# --- private ---------------------------------------------------------------------------------------------------------

_Labelled = list[tuple[Path, int]]


def _streamed(found: _Labelled, shape: tuple[int, ...], digest: bytes) -> Streamed:
    def read(place: int) -> Images:
        file, _ = found[place]
        return pictures.read(Picture(str(file), file), shape)

    return Streamed(read, (len(found), *shape), digest)


def _digest(found: _Labelled) -> bytes:
    """Return a digest of labels, and of files by their sizes and beginnings: reading all would take an epoch."""

    def told(labelled: tuple[Path, int]) -> bytes:
        file, label = labelled
        with file.open("rb") as opened:
            return f"{label} {file.stat().st_size} ".encode() + opened.read(HEAD_BYTES)

    digest = hashlib.sha256()
    with ThreadPoolExecutor(cores()) as pool:
        for each in pool.map(told, found):
            digest.update(each)
    return digest.digest()


def _parts(path: Path) -> tuple[Sequence[str], dict[str, _Labelled]]:
    """Return the classes' names, and the files of each part with their labels.

    Raises:
        DataError: there are no classes, or one has no images.
    """
    tests = [name for name in TESTS if (path / name).is_dir()]
    if (path / TRAIN).is_dir() and tests:
        names = _classes(path / TRAIN)
        if unknown := sorted(set(_classes(path / tests[0])) - set(names)):
            raise DataError(f"{path / tests[0]} has the class {unknown[0]!r}, which {path / TRAIN} has not")
        test = [(file, names.index(name)) for name in names for file in _images(path / tests[0] / name)]
        if not test:
            raise DataError(f"{path / tests[0]} has no images ({_KINDS})")
        return names, {"train": _labelled(path / TRAIN, names), "test": test}
    root = path / TRAIN if _classes(path) == [TRAIN] else path
    names = _classes(root)
    return names, _split(_labelled(root, names))


def _classes(path: Path) -> list[str]:
    names = sorted(each.name for each in path.iterdir() if each.is_dir() and not each.name.startswith("."))
    if not names:
        raise DataError(f"{path} has no folders: a folder of images for each class is needed, as {path}/cat/1.png")
    if odd := [name for name in names if name.splitlines() != [name] or not name.isprintable()]:
        raise DataError(f"{path} has the folder {odd[0]!r}, whose name cannot be a class's")
    return names


def _images(path: Path) -> list[Path]:
    return sorted(each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES and each.is_file())


_KINDS = ", ".join(each[1:].upper() for each in SUFFIXES[:5])


def _labelled(path: Path, names: Sequence[str]) -> _Labelled:
    found = {name: _images(path / name) for name in names}
    if bare := [name for name, files in found.items() if not files]:
        raise DataError(f"{path / bare[0]} has no images ({_KINDS} and others)")
    return [(file, label) for label, files in enumerate(found.values()) for file in files]


def _split(found: _Labelled) -> dict[str, _Labelled]:
    """Keep a share of each class for the test; at least one of those that have two.

    Raises:
        DataError: no class has two.
    """
    generator = np.random.default_rng(SEED)
    train: _Labelled = []
    test: _Labelled = []
    for _, labelled in groupby(found, key=itemgetter(1)):
        files = list(labelled)
        kept = min(len(files) - 1, max(1, round(TEST_SHARE * len(files))))
        for place, at in enumerate(generator.permutation(len(files))):
            (test if place < kept else train).append(files[at])
    if not test:
        raise DataError("no class has two images, one to learn from and one to test with")
    return {"train": train, "test": test}
