"""A folder of images with a folder for each class, as Keras's ``image_dataset_from_directory`` has it."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from math import prod
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from horngate_protos.control_groups import cores
from horngate_trainer import quiet
from horngate_trainer.errors import DataError, first_line
from horngate_trainer.memory import Size
from horngate_trainer.pixels import WIDE, Images, Labels

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
TRAIN, TESTS = "train", ("test", "val", "validation", "valid")
TEST_SHARE = 0.2
"""Of each class, where there is no folder for the test."""
SEED = 0
"""Of that split: the same folder is split the same way each time, so that a training can be resumed."""


@dataclass(frozen=True, slots=True)
class Folder:
    """What was read.

    Attributes:
        arrays: ``x_train``, ``y_train``, ``x_test``, ``y_test``, as a data set has them.
        names: of the classes: their folders', sorted.
    """

    arrays: dict[str, npt.NDArray[Any]]
    names: Sequence[str]


def load(path: Path, before: Callable[[Size], None], size: tuple[int, int] | None) -> Folder:
    """Read a folder of images.

    With ``train`` and ``test`` (or ``val``, ``validation``) in it, each has the classes' folders; without, a fifth of
    each class is kept for the test. Images are grey if all are, else of three colours.

    Args:
        path: the folder.
        before: told how large the data are before an image is decoded; an exception that it raises passes through.
        size: height and width that images are brought to; None: all must have one size.

    Raises:
        DataError: there are no classes, an image cannot be read, or sizes differ.
        TrainerError: Pillow, which reads images, is not installed.
    """
    quiet.require("a folder of images", "PIL", otherwise="give an .npz file")
    names, parts = _parts(path)
    files = [file for part in parts.values() for file, _ in part]
    with ThreadPoolExecutor(cores()) as pool:
        seen = list(pool.map(_look, files))
        shape = _shape(files, seen, size)
        before(
            Size(
                train=len(parts["train"]),
                test=len(parts["test"]),
                image_shape=shape,
                classes=len(names),
                loading_bytes=len(files) * prod(shape),
            )
        )
        arrays: dict[str, npt.NDArray[Any]] = {}
        for part, found in parts.items():
            pixels: Images = np.empty((len(found), *shape), np.uint8)

            def fill(place: int, file: Path, into: Images = pixels) -> None:
                into[place] = _read(file, shape)

            for _ in pool.map(fill, range(len(found)), [file for file, _ in found]):
                pass
            labels: Labels = np.array([label for _, label in found], np.int32)
            arrays |= {f"x_{part}": pixels, f"y_{part}": labels}
    return Folder(arrays, names)


# --- private ---------------------------------------------------------------------------------------------------------

_Labelled = list[tuple[Path, int]]
_GREY = ("1", "L", "I", "I;16", "I;16B", "I;16L")


@dataclass(frozen=True, slots=True)
class _Seen:
    """What an image's header says: its size in pixels, and whether it has no colours."""

    height: int
    width: int
    grey: bool


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


def _look(file: Path) -> _Seen:
    with _opened(file) as image:
        return _Seen(image.height, image.width, image.mode in _GREY)


def _shape(files: Sequence[Path], seen: Sequence[_Seen], size: tuple[int, int] | None) -> tuple[int, ...]:
    """Return the shape of all images.

    Raises:
        DataError: they differ in size, and none was asked for.
    """
    first = seen[0]
    for file, each in zip(files, seen, strict=True):
        if size is None and (each.height, each.width) != (first.height, first.width):
            raise DataError(
                f"images differ in size: {files[0]} is {first.height}x{first.width}, {file} is "
                f"{each.height}x{each.width}; --image-size {first.height}x{first.width} brings all to one"
            )
    height, width = size or (first.height, first.width)
    return (height, width) if all(each.grey for each in seen) else (height, width, 3)


def _read(file: Path, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return an image's pixels, as the client sends those of a file."""
    with _opened(file) as opened:
        image = opened
        if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
            raise DataError(f"{file} has transparent pixels, whose colour is anyone's guess: flatten it first")
        if image.mode.startswith("I"):
            image = _of_8_bits(file, image)
        image = image.convert("RGB" if len(shape) == 3 else "L")
        if (image.height, image.width) != shape[:2]:
            image = image.resize((shape[1], shape[0]))
        return np.asarray(image)


def _of_8_bits(file: Path, image: "Image.Image") -> "Image.Image":
    from PIL import Image  # noqa: PLC0415 - see `_opened`

    values = np.asarray(image)
    if values.min() < 0 or values.max() > WIDE:
        raise DataError(f"{file} has values from {values.min()} to {values.max()}; grey images have 8 or 16 bits")
    return Image.fromarray(np.rint(values * (255 / WIDE)).astype(np.uint8))


@contextmanager
def _opened(file: Path) -> Iterator["Image.Image"]:
    """Open an image; what Pillow finds wrong with it, here or later, is a `DataError` that names the file."""
    from PIL import Image  # noqa: PLC0415 - only folders need it

    try:
        with Image.open(file) as image:
            yield image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as exc:
        raise DataError(f"{file} cannot be read as an image: {first_line(exc)}") from exc
