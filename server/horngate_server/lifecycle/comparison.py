"""Are two answers the same? Devices and batch sizes differ in the last bits of a number, and in nothing else."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from horngate_protos.datatypes import Datatype
from horngate_server.core.model import Array


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far numbers may be apart: ``atol + rtol * |wanted|``.

    Attributes:
        atol: absolute.
        rtol: relative.
        argmax_agreement: the share of decisions that must be the same: whole numbers, and which entry is the largest.
    """

    atol: float
    rtol: float
    argmax_agreement: float = 1.0


def first_difference(got: Array, wanted: Array, datatype: Datatype, tolerance: Tolerance) -> tuple[int, ...] | None:
    """Return the place where two arrays of one shape differ most; None where they are the same.

    NaN equals NaN, and an infinity itself; what is no floating-point number is the same or not.
    """
    if datatype.numpy.kind in "fc" or datatype.name == "BF16":
        mine, theirs = as_numbers(got, datatype), as_numbers(wanted, datatype)
        with np.errstate(invalid="ignore"):
            excess = np.abs(mine - theirs) - (tolerance.atol + tolerance.rtol * np.abs(theirs))
        same = (mine == theirs) | (np.isnan(mine) & np.isnan(theirs))
        excess = np.where(same, -1.0, np.nan_to_num(excess, nan=np.inf, posinf=np.inf))
        if not excess.size or excess.max() <= 0:
            return None
        return tuple(map(int, np.unravel_index(excess.argmax(), excess.shape)))
    different = np.argwhere(got != wanted)
    return tuple(map(int, different[0])) if len(different) else None


def decisions(got: Array, wanted: Array, datatype: Datatype) -> npt.NDArray[np.bool_] | None:
    """Return, for each decision in an answer, whether it is the same: the largest entry of each row, or whole numbers.

    None where nothing is decided.
    """
    if datatype.numpy.kind not in "fc" and datatype.name != "BF16":
        return np.asarray(got == wanted, bool).ravel()
    if got.ndim < 2 or got.shape[-1] < 2 or got.dtype.kind != "f" or not got.size:
        return None
    return np.asarray(got.argmax(axis=-1) == wanted.argmax(axis=-1)).ravel()


def as_numbers(array: Array, datatype: Datatype) -> npt.NDArray[np.float64] | npt.NDArray[np.complex128]:
    """Return floating-point or complex numbers in double precision."""
    if datatype.name == "BF16":  # the upper half of a float32
        return (array.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    if array.dtype.kind == "c":
        return array.astype(np.complex128)
    return array.astype(np.float64)


def as_bfloat16(array: Array) -> Array:
    """Return numbers as bfloat16, cut off, each in a uint16."""
    return (array.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
