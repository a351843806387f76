"""Is this request answerable by this model? Checked alone, before it meets its neighbours."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from horngate_server.errors import InvalidRequest, MessageTooLarge
from horngate_server.request import Data, Header, InferenceRequest, InputHeader, ModelInfo, numbers
from horngate_server.signature import FREE, TensorSpec

FREE_FILL_BYTES = 1 << 16
"""An input with axes of any length is filled up to so many bytes: the signature bounds it no further."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """How a request with this header is computed by a model with this signature.

    Attributes:
        info: the model, with the signature that answers.
        rows: its length along the batch axis.
        order: per input of the signature, its place in the request.
        sizes: per input of the signature, the bytes that fill its shape.
        shapes: per input of the signature, the axes after the first.
        alike: requests for which it is equal share a batch.
        flags: whether any input is BOOL, whose bytes must be looked at.
    """

    info: ModelInfo
    rows: int
    order: tuple[int, ...]
    sizes: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    alike: tuple[str, tuple[tuple[int, ...], ...]]
    flags: bool = False


def plan(header: Header, info: ModelInfo, max_rows: int) -> Plan:
    """Check names, datatypes, shapes and rows against the signature.

    Raises:
        InvalidRequest: what was expected and what came.
    """
    signature = info.signature
    came = {given.name: place for place, given in enumerate(header.inputs)}
    expected = {spec.name for spec in signature.inputs}
    if came.keys() != expected or len(came) != len(header.inputs):
        raise InvalidRequest(
            f"expected the inputs {_names(sorted(expected))}; came {_names([given.name for given in header.inputs])}"
        )
    known = [spec.name for spec in signature.outputs]
    if len(set(header.outputs)) != len(header.outputs) or not set(header.outputs) <= set(known):
        raise InvalidRequest(f"expected outputs out of {_names(known)}; came {_names(header.outputs)}")
    order = tuple(came[spec.name] for spec in signature.inputs)
    given = [header.inputs[place] for place in order]
    for spec, tensor in zip(signature.inputs, given, strict=True):
        _check(spec, tensor)
    rows = given[0].shape[0]
    for tensor in given:
        if tensor.shape[0] != rows:
            raise InvalidRequest(
                f"input {tensor.name!r} has {tensor.shape[0]} rows and {given[0].name!r} has {rows}; "
                "expected as many in each"
            )
    if rows > max_rows:
        raise InvalidRequest(f"{rows} rows in one request; expected at most {max_rows} (--queue-rows)")
    shapes = tuple(tensor.shape[1:] for tensor in given)
    return Plan(
        info=info,
        rows=rows,
        order=order,
        sizes=tuple(spec.nbytes(tensor.shape) for spec, tensor in zip(signature.inputs, given, strict=True)),
        shapes=shapes,
        alike=(signature.name, shapes),
        flags=any(spec.datatype.name == "BOOL" for spec in signature.inputs),
    )


def arrange(request: InferenceRequest, planned: Plan) -> Sequence[Data]:
    """Return the request's data in the signature's order, checked to fill the shapes.

    Raises:
        InvalidRequest: too few or too many bytes, or a BOOL that is neither 0 nor 1.
        MessageTooLarge: what the last element stands for has no bound in the signature, and is too much.
    """
    data = request.data
    if len(data) == 1:
        if len(data[0]) == planned.sizes[0] and not planned.flags:
            return data
    else:
        data = [data[place] for place in planned.order]
    signature = planned.info.signature
    if request.header.filled:
        data = [
            _filled(each, spec, size) for each, spec, size in zip(data, signature.inputs, planned.sizes, strict=True)
        ]
    for spec, size, shape, buffer in zip(signature.inputs, planned.sizes, planned.shapes, data, strict=True):
        if len(buffer) != size:
            raise InvalidRequest(
                f"input {spec.name!r} has {len(buffer)} bytes; expected {size} for the shape "
                f"{[planned.rows, *shape]} of {spec.datatype.name}"
            )
        if spec.datatype.name == "BOOL" and size and np.frombuffer(numbers(buffer), np.uint8).max() > 1:
            raise InvalidRequest(f"input {spec.name!r} is BOOL; expected bytes 0 or 1")
    return data


# --- private ------------------------------------------------------------------------------------------


def _check(spec: TensorSpec, tensor: InputHeader) -> None:
    if tensor.datatype != spec.datatype.name:
        raise InvalidRequest(f"input {spec.name!r} has datatype {tensor.datatype!r}; expected {spec.datatype.name}")
    if not spec.fits(tensor.shape) or any(axis < 0 for axis in tensor.shape):
        raise InvalidRequest(
            f"input {spec.name!r} has shape {list(tensor.shape)}; expected {list(spec.shape)} "
            "(-1: any length, the first axis is the batch)"
        )
    if tensor.shape[0] == 0:
        raise InvalidRequest(f"input {spec.name!r} has no rows; expected at least one")


def _filled(data: Data, spec: TensorSpec, size: int) -> Data:
    """Repeat the last element as often as is missing; after the shape was found to be one that the signature takes."""
    item = spec.datatype.numpy.itemsize
    if len(data) < item or len(data) >= size:
        return data
    if FREE in spec.shape[1:] and size > FREE_FILL_BYTES:
        raise MessageTooLarge(
            f"input {spec.name!r} has {len(data) // item} values for {size // item} elements; expected all of them, "
            f"or a tensor of at most {FREE_FILL_BYTES} bytes"
        )
    data = numbers(data)
    return bytes(data) + bytes(data[-item:]) * ((size - len(data)) // item)


def _names(names: Sequence[str]) -> str:
    return "[" + ", ".join(map(repr, names)) + "]"
