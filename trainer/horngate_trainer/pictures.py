"""Pillow's part: what becomes of an image file, or of its content, as the client sends those of a file."""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from horngate_trainer.errors import DataError, first_line
from horngate_trainer.pixels import WIDE

if TYPE_CHECKING:
    from PIL import Image

_GREY = ("1", "L", "I", "I;16", "I;16B", "I;16L")


@dataclass(frozen=True, slots=True)
class Picture:
    """An image that can be opened.

    Attributes:
        name: for messages.
        content: where its file is, the file's content, or bare pixels.
    """

    name: str
    content: Path | bytes | npt.NDArray[np.uint8]


def look(picture: Picture) -> tuple[int, ...]:
    """Return the shape of an image by its header: [height, width] if it has no colours, else [height, width, 3].

    Raises:
        DataError: it is no image.
    """
    with _opened(picture) as image:
        return (image.height, image.width) if image.mode in _GREY else (image.height, image.width, 3)


def common_shape(shapes: Mapping[tuple[int, ...], str], size: tuple[int, int] | None) -> tuple[int, ...]:
    """Return the shape that all images are brought to: grey if all are, else of three colours.

    Args:
        shapes: that occur, each with the name of an image that has it.
        size: height and width that were asked for; None: all must have one.

    Raises:
        DataError: they differ in size, and none was asked for, or in what their channels are.
    """
    first, name = next(iter(shapes.items()))
    for each, other in shapes.items():
        if size is None and each[:2] != first[:2]:
            height, width = first[:2]
            raise DataError(
                f"images differ in size: {name} is {height}x{width}, {other} is {each[0]}x{each[1]}; "
                f"--image-size {height}x{width} brings all to one"
            )
        if {each[2:], first[2:]} not in ({()}, {(3,)}, {(), (3,)}) and each[2:] != first[2:]:
            raise DataError(f"images differ in channels: {name} is {first}, {other} is {each}")
    colours = max((each[2:] for each in shapes), key=len)
    return (*(size or first[:2]), *colours)


def read(picture: Picture, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return an image's pixels, brought to a shape.

    Raises:
        DataError: it is none, or its pixels have no colour that one could tell.
    """
    with _opened(picture) as opened:
        image = opened
        if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
            raise DataError(f"{picture.name} has transparent pixels, whose colour is anyone's guess: flatten it first")
        if image.mode.startswith("I"):
            image = _of_8_bits(picture.name, image)
        image = image.convert("RGB" if len(shape) == 3 else "L")
        if (image.height, image.width) != shape[:2]:
            image = image.resize((shape[1], shape[0]))
        return np.asarray(image)


# --- private ---------------------------------------------------------------------------------------------------------


def _of_8_bits(name: str, image: "Image.Image") -> "Image.Image":
    from PIL import Image  # noqa: PLC0415 - see `_opened`

    values = np.asarray(image)
    if values.min() < 0 or values.max() > WIDE:
        raise DataError(f"{name} has values from {values.min()} to {values.max()}; grey images have 8 or 16 bits")
    return Image.fromarray(np.rint(values * (255 / WIDE)).astype(np.uint8))


@contextmanager
def _opened(picture: Picture) -> Iterator["Image.Image"]:
    """Open an image; what Pillow finds wrong with it, here or later, is a `DataError` that names it."""
    from PIL import Image  # noqa: PLC0415 - only images need it

    try:
        content = picture.content
        if isinstance(content, np.ndarray):
            yield Image.fromarray(content)
            return
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as image:
            yield image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as exc:
        raise DataError(f"{picture.name} cannot be read as an image: {first_line(exc)}") from exc
