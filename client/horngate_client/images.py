"""Anything that is clearly one image or several, to the batch that a model takes; else a refusal that says why.

Taken: a PIL image, a path (PNG, JPEG, whatever Pillow reads, or .npy), an array, nested lists, or a list of these.

- Shape: H x W, H x W x 1, N x H x W, N x H x W x 1 for a model [N, H, W] or [N, H, W, 1]; with C colours H x W x C
  and N x H x W x C. What can be read in two ways is refused.
- Values, for a UINT8 model: uint8 as they are; bool as 0 and 255; integers in 0..255; floats in 0..1 times 255,
  rounded; whole floats in 0..255. Not NaN, nothing negative or larger, no floats such as 3.7.
- Values, for a float model: floats as they are. Not bytes or pictures: the signature does not say whether the model
  wants 0..1 or 0..255.
- Pictures become grey (or RGB for three colours). Not those with transparent pixels; and one of another size is
  refused unless ``resize`` is asked for.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from horngate_client.errors import ConversionError, MissingExtra
from horngate_client.signature import ModelMetadata, TensorSpec

if TYPE_CHECKING:
    from PIL import Image

Array = NDArray[Any]
OneImage: TypeAlias = "ArrayLike | str | os.PathLike[str] | Image.Image"
Images: TypeAlias = "OneImage | Sequence[Any]"

USE_INFER = "use infer({name: array}) for this model, or the command horngate-client infer"
_NO_PIXELS = ("BYTES", "BOOL", "BF16")


@dataclass(frozen=True, slots=True)
class ImageInput:
    """The one input of an image model.

    Attributes:
        tensor: its name, datatype and shape.
        height: pixels, or -1 for any.
        width: pixels, or -1 for any.
        channels: 1 for grey, 3 for RGB, 4 for RGB and alpha.
    """

    tensor: TensorSpec
    height: int
    width: int
    channels: int

    @classmethod
    def of(cls, model: ModelMetadata) -> "ImageInput":
        """Find the image input, or say why the model has none."""
        if len(model.inputs) != 1:
            raise ConversionError(
                f"{model.name} takes {'; '.join(map(str, model.inputs)) or 'nothing'}, and predict is for one input of "
                f"images: {USE_INFER}"
            )
        wanted = cls.of_tensor(model.inputs[0])
        if wanted is None:
            raise ConversionError(f"{model.name} takes {model.inputs[0]}, which is no batch of images: {USE_INFER}")
        return wanted

    @classmethod
    def of_tensor(cls, tensor: TensorSpec) -> "ImageInput | None":
        """Return an input as one of images; None where it is none."""
        rank = len(tensor.shape)
        channels = tensor.shape[3] if rank == 4 else 1
        if rank not in (3, 4) or tensor.shape[0] != -1 or channels not in (1, 3, 4) or tensor.datatype in _NO_PIXELS:
            return None
        return cls(tensor, tensor.shape[1], tensor.shape[2], channels)

    @property
    def size(self) -> str:
        """The size in words, such as 28x28."""
        return "x".join("any" if side == -1 else str(side) for side in (self.height, self.width))


def convert(images: Images, wanted: ImageInput, *, resize: bool = False, invert: bool = False) -> Array:
    """Return the batch [N, H, W] or [N, H, W, C] that the model takes.

    Args:
        images: see the module's table.
        wanted: the model's input.
        resize: bring pictures (files and PIL images, not arrays) to the model's size.
        invert: swap black and white, for dark digits on light paper. Integers and files only.
    """
    batches = [
        _values(_shape(array, wanted, label), wanted, label, picture=picture, invert=invert)
        for array, label, picture in _arrays(images, wanted, resize, "the array")
    ]
    if not batches:
        raise ConversionError("there are no images: the list is empty")
    sizes = {batch.shape[1:] for batch in batches}
    if len(sizes) > 1:
        raise ConversionError(f"the images differ in size, and one batch has one: {sorted(sizes)}")
    return batches[0] if len(batches) == 1 else np.concatenate(batches)


# --- from anything to arrays --------------------------------------------------------------------------------


def _arrays(images: Any, wanted: ImageInput, resize: bool, label: str) -> Iterator[tuple[Array, str, bool]]:
    """Yield (array, what to call it in a message, it was a picture)."""
    if isinstance(images, str | os.PathLike):
        yield _from_path(Path(images), wanted, resize)
    elif _is_picture(images):
        yield _from_picture(images, wanted, resize, "the picture"), "the picture", True
    elif isinstance(images, bytes | bytearray | memoryview):
        raise ConversionError("bytes may be an encoded picture or raw pixels: pass a path, a PIL image or an array")
    elif isinstance(images, list | tuple) and (not images or any(_is_item(item) for item in images)):
        for index, item in enumerate(images):
            yield from _arrays(item, wanted, resize, f"image {index} of the list")
    else:
        try:
            array = np.asarray(images)
        except ValueError as exc:
            raise ConversionError(f"{label} is not one: {exc}") from exc
        yield array, label, False


def _is_item(item: Any) -> bool:
    """In a list: an image of its own, not a row of numbers of one image."""
    return (
        isinstance(item, str | os.PathLike | bytes)
        or (hasattr(item, "__array__") and np.ndim(item) > 1)
        or _is_picture(item)
    )


def _is_picture(value: Any) -> bool:
    """Whoever holds a PIL image has imported PIL; nobody else pays for it."""
    pil = sys.modules.get("PIL.Image")
    return pil is not None and isinstance(value, pil.Image)


def _from_path(path: Path, wanted: ImageInput, resize: bool) -> tuple[Array, str, bool]:
    if path.suffix == ".npy":
        try:
            return np.load(path, allow_pickle=False), str(path), False
        except (OSError, ValueError, EOFError) as exc:
            raise ConversionError(f"{path} cannot be read as .npy: {exc}") from exc
    try:
        from PIL import Image  # noqa: PLC0415 - an optional package, loaded only for files
    except ImportError as exc:
        raise MissingExtra(
            f"{path} needs Pillow, which is not installed: pip install 'horngate[images]', or pass an array"
        ) from exc
    try:
        with Image.open(path) as picture:
            return _from_picture(picture, wanted, resize, str(path)), str(path), True
    except (OSError, Image.DecompressionBombError) as exc:
        raise ConversionError(f"{path} cannot be read as a picture: {exc}") from exc


def _from_picture(picture: "Image.Image", wanted: ImageInput, resize: bool, label: str) -> Array:
    see_through = picture.has_transparency_data and picture.convert("RGBA").getchannel("A").getextrema() != (255, 255)
    if see_through and wanted.channels != 4:
        raise ConversionError(f"{label} has transparent pixels, whose colour is anyone's guess: flatten it first")
    if picture.mode not in ("L", "I", "I;16", "F") or wanted.channels > 1:
        picture = picture.convert({1: "L", 3: "RGB", 4: "RGBA"}[wanted.channels])
    height = wanted.height if wanted.height != -1 else picture.height
    width = wanted.width if wanted.width != -1 else picture.width
    if (picture.height, picture.width) != (height, width):
        if not resize:
            raise ConversionError(
                f"{label} is {picture.height}x{picture.width} and the model takes {wanted.size}: "
                "crop or scale it yourself, or ask for it with resize=True (--resize)"
            )
        picture = picture.resize((width, height))
    return np.asarray(picture)


# --- the shape ----------------------------------------------------------------------------------------------


def _shape(array: Array, wanted: ImageInput, label: str) -> Array:
    """Return the one reading of the array's shape as [N, H, W(, C)]."""
    pixel = () if len(wanted.tensor.shape) == 3 else (wanted.channels,)
    bare = (wanted.height, wanted.width)
    one = [(*bare, wanted.channels)] + ([bare] if wanted.channels == 1 else [])
    readings = {
        (len(array) if many else 1, *array.shape[many : many + 2], *pixel)
        for many in (0, 1)
        for axes in one
        if _fits(array.shape, (-1, *axes) if many else axes)
    }
    if not readings:
        hint = ""
        flat = wanted.height * wanted.width * wanted.channels
        if flat > 0 and array.ndim and array.shape[-1] == flat:
            hint = f"; if each row is a flattened image, say so with .reshape({list(wanted.tensor.shape)})"
        raise ConversionError(
            f"{label} has the shape {list(array.shape)} and the model takes {wanted.tensor}: "
            f"pass one image of {wanted.size} or a batch of them{hint}"
        )
    if len(readings) > 1:
        raise ConversionError(
            f"{label} has the shape {list(array.shape)}, which can be read as "
            f"{sorted(readings)}: reshape it to one of them"
        )
    shape = readings.pop()
    if shape[0] == 0:
        raise ConversionError(f"{label} is empty: there is nothing to predict")
    return array.reshape(shape)


def _fits(shape: tuple[int, ...], axes: tuple[int, ...]) -> bool:
    return len(shape) == len(axes) and all(want in (-1, have) for have, want in zip(shape, axes, strict=True))


# --- the values ---------------------------------------------------------------------------------------------


def _values(array: Array, wanted: ImageInput, label: str, *, picture: bool, invert: bool) -> Array:
    target = wanted.tensor.numpy
    kind = array.dtype.kind
    if kind not in "biuf":
        raise ConversionError(f"{label} has the type {array.dtype}; images are numbers")
    if kind == "f" and not np.isfinite(array).all():
        raise ConversionError(f"{label} holds NaN or infinite values")
    if target.kind == "f":
        if picture or kind != "f":
            raise ConversionError(
                f"{label} holds {array.dtype} and the model takes {wanted.tensor}: its signature does not say "
                "whether that means 0..1 or 0..255, so pass floats scaled as the model was trained"
            )
        if invert:
            raise ConversionError(f"invert needs to know white, and {wanted.tensor} does not say what that is")
        return np.ascontiguousarray(array, dtype=target)
    if target == np.uint8:
        array = _to_bytes(array, label)
        return np.ascontiguousarray(255 - array if invert else array)
    if invert or kind == "f":
        raise ConversionError(f"{label} holds {array.dtype} and the model takes {wanted.tensor}: convert it yourself")
    limits = np.iinfo(str(target))
    return np.ascontiguousarray(_in_range(array, label, int(limits.min), int(limits.max)), dtype=target)


def _to_bytes(array: Array, label: str) -> NDArray[np.uint8]:
    if array.dtype == np.uint8:
        return array.view(np.uint8)
    if array.dtype.kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if low >= 0 and high <= 1:
            return np.rint(array.astype(np.float32) * 255).astype(np.uint8)
        if low < 0 or high > 255 or not np.equal(np.rint(array), array).all():
            raise ConversionError(
                f"{label} holds floats from {low:g} to {high:g}; a UINT8 model takes floats in 0..1 (scaled by "
                "255) or whole numbers in 0..255: undo what was done to them"
            )
    return _in_range(array, label, 0, 255).astype(np.uint8)


def _in_range(array: Array, label: str, low: int, high: int) -> Array:
    least, most = array.min().item(), array.max().item()
    if least < low or most > high:
        raise ConversionError(f"{label} holds values from {least} to {most}; the model takes {low}..{high}")
    return array
