"""Any array to the tensor that a signature asks for, no value changed; otherwise a refusal that says why."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from horngate_client.errors import ConversionError
from horngate_client.signature import TensorSpec

Array = NDArray[Any]


def convert_inputs(specs: Sequence[TensorSpec], values: Mapping[str, ArrayLike]) -> dict[str, Array]:
    """Convert every input of a model, in the signature's order; the inputs agree on the number of rows."""
    names = [spec.name for spec in specs]
    for name in values:
        if name not in names:
            raise ConversionError(f"the model has no input {name!r}; it takes {', '.join(names)}")
    for name in names:
        if name not in values:
            raise ConversionError(f"the input {name!r} is missing; the model takes {', '.join(names)}")
    arrays = {spec.name: convert(values[spec.name], spec) for spec in specs}
    rows = {spec.name: len(arrays[spec.name]) for spec in specs if spec.in_rows}
    if len(set(rows.values())) > 1:
        raise ConversionError(f"the inputs differ in their number of rows: {rows}")
    return arrays


def convert(value: ArrayLike, spec: TensorSpec) -> Array:
    """Return ``value`` as a contiguous array of the datatype and shape of ``spec``.

    BYTES are an array of objects, each of them ``bytes``. They are made of ``str``, which becomes UTF-8, and ``bytes``,
    in lists or in arrays of the types object, ``S`` and ``U``; NumPy itself drops zeros at the end of an ``S``.
    """
    strings = spec.datatype == "BYTES" and not hasattr(value, "dtype")  # NumPy would make an S of a list of bytes
    try:
        array = np.asarray(value, object if strings else None)
    except ValueError as exc:
        raise ConversionError(f"{spec.name} is not an array: {exc}") from exc
    if not spec.fits(array.shape):
        raise ConversionError(
            f"{spec.name} has the shape {list(array.shape)}; the model takes {spec}{_hint(array, spec)}"
        )
    if spec.in_rows and len(array) == 0:
        raise ConversionError(f"{spec.name} has no rows: there is nothing to ask")
    if spec.datatype == "BYTES":
        return _bytes(array, spec)
    return np.ascontiguousarray(_cast(array, spec)).reshape(array.shape)


def _hint(array: Array, spec: TensorSpec) -> str:
    single = spec.in_rows and array.ndim == len(spec.shape) - 1
    return "; put a single row into a batch of one with array[None]" if single else ""


def _cast(array: Array, spec: TensorSpec) -> Array:
    target = spec.numpy
    if array.dtype == target:
        return array
    if array.dtype.kind not in "biuf":
        raise ConversionError(f"{spec.name} has the type {array.dtype}; the model takes {spec}")
    if spec.datatype == "BF16":
        raise ConversionError(f"{spec.name} is BF16, which NumPy has not: pass its bits as uint16")
    if np.can_cast(array.dtype, target, "safe"):
        return array.astype(target)
    if array.dtype.kind == "f" and target.kind in "biu":
        raise ConversionError(
            f"{spec.name} holds floats ({array.dtype}) and the model takes {spec}: round them yourself"
        )
    with np.errstate(all="ignore"):
        cast = array.astype(target)
        if array.dtype.kind == "f":  # to a narrower float: digits are lost, as everywhere; an overflow is not
            changed = np.isinf(cast) & np.isfinite(array.astype(np.float64))
        else:
            changed = cast.astype(array.dtype) != array
            if target.kind in "iu":  # a wrapped value can come back unharmed: -1 as uint64 does
                changed |= np.less(cast, 0) != np.less(array, 0)
    if changed.any():
        raise ConversionError(f"{spec.name} holds {array[changed][0]}, which {spec.datatype} cannot")
    return cast


def _bytes(array: Array, spec: TensorSpec) -> Array:
    elements = array.reshape(-1).tolist()
    for index, item in enumerate(elements):
        if isinstance(item, str):
            try:
                elements[index] = item.encode()
            except UnicodeEncodeError as exc:
                raise ConversionError(f"{spec.name} has a string that is no text: {exc}") from exc
        elif not isinstance(item, bytes):
            raise ConversionError(f"{spec.name} takes strings or bytes (BYTES), not {type(item).__name__}")
    out = np.empty(len(elements), dtype=object)
    out[:] = elements
    return out.reshape(array.shape)
