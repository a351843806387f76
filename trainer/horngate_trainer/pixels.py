"""Images and labels as people have them, as the trainer takes them: pixels of 8 bits, and classes counted from 0."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from horngate_trainer.errors import DataError

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int32]

CHUNK_VALUES = 1 << 24
"""So many values are converted at a time: the wider numbers in between need memory."""
WIDE: Final = 65535
"""White, of 16 bits."""


def check(where: str, key: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """See that an array can be images, as far as that shows without their values.

    Raises:
        DataError: it cannot.
    """
    if dtype.kind not in "buifO":  # objects are refused where they are read
        raise DataError(f"{where}: {key} must be numbers (uint8, or floats from 0 to 1), not {dtype}")
    if len(shape) not in (3, 4):
        raise DataError(f"{where}: {key} must be [N, height, width] or [N, height, width, channels], not {shape}")
    if not prod(shape):
        raise DataError(f"{where}: {key} is empty: {shape}")


def images(where: str, arrays: dict[str, npt.NDArray[Any]]) -> dict[str, Images]:
    """Return images as pixels of 8 bits; all arrays are read by one rule.

    uint8 stays as it is, False and True are black and white, floats from 0 to 1 are times 255; whole numbers from 0 to
    255 are pixels, and uint16 beyond is of 16 bits.

    Args:
        where: they are from, for messages.
        arrays: by name; they are taken out one by one, so that no more of them is held than must be.

    Raises:
        DataError: their values are none of these.
    """
    for key, array in arrays.items():
        check(where, key, array.dtype, array.shape)
    factors = {
        **dict.fromkeys((key for key, each in arrays.items() if each.dtype.kind == "b"), 255.0),
        **_of_fractions(where, {key: each for key, each in arrays.items() if each.dtype.kind == "f"}),
        **_of_whole_numbers(where, {key: each for key, each in arrays.items() if each.dtype.kind in "iu"}),
    }
    return {key: _scaled(arrays.pop(key), factors[key]) for key in list(arrays)}


def labels(where: str, arrays: Mapping[str, npt.NDArray[Any]]) -> tuple[dict[str, Labels], Sequence[str] | None]:
    """Return labels as numbers, and the names that these stand for: those of ``y_train``, sorted.

    Args:
        where: they are from, for messages.
        arrays: ``y_train`` and ``y_test``: whole numbers [N] or [N, 1], one-hot rows [N, classes], or texts [N].

    Raises:
        DataError: they are none of these, or ``y_test`` has a name that ``y_train`` has not.
    """
    for key, array in arrays.items():
        if array.size == 0:
            raise DataError(f"{where}: {key} is empty")
        if array.dtype.kind not in "biufSU":
            raise DataError(f"{where}: {key} must be whole numbers, one-hot rows or texts, not {array.dtype}")
    texts = [key for key, array in arrays.items() if array.dtype.kind in "SU"]
    if not texts:
        return {key: _numbers(where, key, array) for key, array in arrays.items()}, None
    if len(texts) < len(arrays):
        raise DataError(f"{where}: {texts[0]} has texts, and the other labels are numbers")
    named = {key: _texts(where, key, array) for key, array in arrays.items()}
    names = np.unique(named["y_train"])
    if len(unknown := np.setdiff1d(named["y_test"], names)):
        raise DataError(f"{where}: label {str(unknown[0])!r} in y_test does not occur in y_train")
    return {key: np.searchsorted(names, each).astype(np.int32) for key, each in named.items()}, names.tolist()


# --- private ---------------------------------------------------------------------------------------------------------


def _of_fractions(where: str, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, float]:
    for key, array in arrays.items():
        least, most = float(array.min()), float(array.max())
        if not (least >= 0 and most <= 1):  # NaN, too
            raise DataError(
                f"{where}: {key} has {array.dtype} from {least:g} to {most:g}; floats must be from 0 to 1: undo what "
                "was done to them, or give pixels from 0 to 255 as uint8"
            )
    return dict.fromkeys(arrays, 255.0)


def _of_whole_numbers(where: str, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, float]:
    factors = dict.fromkeys(arrays, 1.0)
    wider = {key: array for key, array in arrays.items() if array.dtype != np.uint8}
    ranges = {key: (int(array.min()), int(array.max())) for key, array in wider.items()}
    if any(most > 255 for _, most in ranges.values()) and all(each.dtype == np.uint16 for each in wider.values()):
        return factors | dict.fromkeys(wider, 255 / WIDE)
    for key, (least, most) in ranges.items():
        if least < 0 or most > 255:
            raise DataError(
                f"{where}: {key} has {wider[key].dtype} from {least} to {most}; pixels are from 0 to 255, or uint16 to "
                f"{WIDE}"
            )
    return factors


def _scaled(array: npt.NDArray[Any], factor: float) -> Images:
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    made = np.empty(array.shape, np.uint8)
    rows = max(1, CHUNK_VALUES // prod(array.shape[1:]))
    for at in range(0, len(array), rows):
        some = array[at : at + rows]
        made[at : at + rows] = some if factor == 1 else np.rint(some.astype(np.float32) * np.float32(factor))
    return made


def _numbers(where: str, key: str, array: npt.NDArray[Any]) -> Labels:
    if array.ndim == 2 and array.shape[1] > 1:
        return _from_one_hot(where, key, array)
    if array.dtype.kind not in "iu":
        raise DataError(f"{where}: {key} must be whole numbers, not {array.dtype}")
    if array.ndim != 1 and array.shape[1:] != (1,):
        raise DataError(f"{where}: {key} must be [N], or one-hot [N, classes], not {array.shape}")
    least, most = int(array.min()), int(array.max())
    if least < 0 or most > np.iinfo(np.int32).max:
        raise DataError(f"{where}: label {least if least < 0 else most} in {key} is out of range; labels count from 0")
    return np.ascontiguousarray(array.reshape(-1), np.int32)


def _from_one_hot(where: str, key: str, array: npt.NDArray[Any]) -> Labels:
    right = ((array == 0) | (array == 1)).all(axis=1) & (np.count_nonzero(array, axis=1) == 1)
    if not right.all():
        row = int(np.argmin(right))
        raise DataError(f"{where}: {key} is {array.shape}, and row {row} is not one-hot (a single 1 among zeros)")
    return np.asarray(array.argmax(axis=1), np.int32)


def _texts(where: str, key: str, array: npt.NDArray[Any]) -> npt.NDArray[np.str_]:
    if array.ndim != 1 and array.shape[1:] != (1,):
        raise DataError(f"{where}: {key} must be [N], not {array.shape}")
    try:
        found: npt.NDArray[np.str_] = (np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array).reshape(-1)
    except UnicodeDecodeError as exc:
        raise DataError(f"{where}: {key} has texts that are not UTF-8") from exc
    for name in np.unique(found).tolist():
        if name.splitlines() != [name]:
            raise DataError(f"{where}: {key} has the label {name!r}; labels are texts of one line")
    return found
