"""Is this request answerable by this model? Checked alone, before it meets its neighbours."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from horngate_server.core.errors import InvalidRequest, MessageTooLarge
from horngate_server.core.inference import Data, Header, InferenceRequest, InputHeader, ModelInfo, numbers
from horngate_server.core.signature import FREE, Signature, TensorSpec

FREE_FILL_BYTES = 1 << 16
"""An input with axes of any length is filled up to so many bytes: the signature bounds it no further."""
FILL_BYTES = 64 << 20
"""And one that only its rows make larger: as much as a message holds by default, whose size bounds all others."""
AXIS = (1 << 31) - 1
"""The longest axis: TensorFlow's operations count in 32 bits."""
EMPTY_ELEMENTS = 1 << 20
"""A tensor without elements costs nothing to send, but what a model makes of its other axes does."""
SMALL_ANSWER_BYTES = 4096
"""Smaller answers are bounded by the rows that may wait, and not counted."""
ANSWER_BYTES = (1 << 31) - (1 << 16)
"""No protobuf message is larger."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """How a request with this header is computed by a model with this signature.

    Attributes:
        info: the model, with the signature that answers.
        rows: its length along the batch axis; where there is none, 1.
        order: per input of the signature, its place in the request.
        sizes: per input of the signature, what fills its shape: bytes, or elements of BYTES.
        shapes: per input of the signature, the axes after the first, as they came; all where it is ``whole``.
        alike: requests for which it is equal share a batch, and cost the same.
        whole: it has a run of its own, and is never cut.
        max_rows: rows of its kind that one run takes at most.
        answer_bytes: about how large its answer will be; 0 for a small one.
        flags: whether any input is BOOL, whose bytes must be looked at.
        predictable: a run costs what one of the same kind and size did.
    """

    info: ModelInfo
    rows: int
    order: tuple[int, ...]
    sizes: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    alike: tuple[str, bool, tuple[tuple[int, ...], ...]]
    whole: bool = False
    max_rows: int = 1 << 30
    answer_bytes: int = 0
    flags: bool = False
    predictable: bool = True

    def alone(self) -> "Plan":
        """Return the same with a run of its own."""
        if self.whole:
            return self
        shapes = tuple((self.rows, *shape) for shape in self.shapes)
        return replace(
            self,
            whole=True,
            shapes=shapes,
            alike=alike(self.info.signature, shapes, whole=True),
            max_rows=self.rows,
        )


def alike(
    signature: Signature, shapes: Sequence[tuple[int, ...]], *, whole: bool
) -> tuple[str, bool, tuple[tuple[int, ...], ...]]:
    """Return what requests have in common that share a batch and cost the same (`Plan.alike`).

    Args:
        signature: theirs.
        shapes: per input, the axes after the first, up to which they may be padded (`Padding.shared`); or all of them
            where it is ``whole``.
        whole: each has a run of its own.
    """
    return (signature.function, whole, tuple(shapes))


def plan(header: Header, info: ModelInfo, max_rows: int) -> Plan:
    """Check names, datatypes, shapes and rows against the signature.

    Raises:
        InvalidRequest: what was expected and what came.
        MessageTooLarge: to compute or to answer it would take more memory than there may be.
    """
    signature, batching = info.signature, info.batching
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
    counts = {tensor.shape[0] for spec, tensor in zip(signature.inputs, given, strict=True) if spec.in_rows}
    whole = batching.whole or len(counts) != 1  # inputs of different lengths are for the model to judge
    rows = max(counts, default=1)
    if not whole and not rows:
        raise InvalidRequest(f"input {given[0].name!r} has no rows; expected at least one")
    if rows > max_rows:
        raise InvalidRequest(f"{rows} rows in one request; expected at most {max_rows} (--queue-rows)")
    rows = max(1, rows)
    shapes = tuple(tensor.shape if whole else tensor.shape[1:] for tensor in given)
    sizes = tuple(spec.size(tensor.shape) for spec, tensor in zip(signature.inputs, given, strict=True))
    size = _size(signature, [tensor.shape for tensor in given])
    most = rows if whole else batching.max_rows
    shared = shapes if whole or batching.padding is None else batching.padding.shared(shapes)
    if not whole and any(spec.is_open for spec in signature.inputs):
        row = max(1, _size(signature, shared))
        fits = batching.memory_bytes / max(1.0, batching.memory.of(row))
        most = max(1, int(min(most, fits, batching.batch_bytes / row)))
    run_bytes, runs = (size, 1) if whole else (size // rows, rows)
    answer_bytes = int(max(rows * batching.row_bytes, runs * batching.answer.of(run_bytes)))
    _bound(run_bytes, answer_bytes, info)
    if answer_bytes <= SMALL_ANSWER_BYTES:
        answer_bytes = 0
    return Plan(
        info=info,
        rows=rows,
        order=order,
        sizes=sizes,
        shapes=shapes,
        alike=alike(signature, shared, whole=whole),
        whole=whole,
        max_rows=most,
        answer_bytes=answer_bytes,
        flags=any(spec.datatype.name == "BOOL" for spec in signature.inputs),
        predictable=not signature.loops and not any(spec.datatype.numpy.hasobject for spec in signature.inputs),
    )


def arrange(request: InferenceRequest, planned: Plan) -> Sequence[Data]:
    """Return the request's data in the signature's order, checked to fill the shapes.

    Raises:
        InvalidRequest: too few or too many bytes or strings, or a BOOL that is neither 0 nor 1.
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
    for spec, size, shape, content in zip(signature.inputs, planned.sizes, planned.shapes, data, strict=True):
        if len(content) != size:
            unit = "strings" if isinstance(content, list) else "bytes"
            raise InvalidRequest(
                f"input {spec.name!r} has {len(content)} {unit}; expected {size} for the shape "
                f"{list(shape) if planned.whole else [planned.rows, *shape]} of {spec.datatype.name}"
            )
        if spec.datatype.name == "BOOL" and size and np.frombuffer(numbers(content), np.uint8).max() > 1:
            raise InvalidRequest(f"input {spec.name!r} is BOOL; expected bytes 0 or 1")
    return data


# --- private ------------------------------------------------------------------------------------------


def _check(spec: TensorSpec, tensor: InputHeader) -> None:
    if tensor.datatype != spec.datatype.name:
        raise InvalidRequest(f"input {spec.name!r} has datatype {tensor.datatype!r}; expected {spec.datatype.name}")
    shape = tensor.shape
    if not spec.fits(shape) or any(not 0 <= axis <= AXIS for axis in shape):
        raise InvalidRequest(
            f"input {spec.name!r} has shape {list(shape)}; expected {_expected(spec)}, no axis longer than {AXIS}"
        )
    if 0 in shape and prod(axis or 1 for axis in shape) > EMPTY_ELEMENTS:
        raise InvalidRequest(
            f"input {spec.name!r} has shape {list(shape)}, which has no elements; expected a product of its other axes "
            f"of at most {EMPTY_ELEMENTS}"
        )


def _size(signature: Signature, shapes: Sequence[tuple[int, ...]]) -> int:
    """Return the bytes of a signature's inputs with these shapes, but for strings."""
    return sum(
        spec.size(shape)
        for spec, shape in zip(signature.inputs, shapes, strict=True)
        if not spec.datatype.numpy.hasobject
    )


def _expected(spec: TensorSpec) -> str:
    if spec.shape is None:
        return "any number of axes"
    if FREE not in spec.shape:
        return str(list(spec.shape))
    return f"{list(spec.shape)} (-1: any length{', the first axis is the batch' * spec.in_rows})"


def _bound(run_bytes: int, answer_bytes: int, info: ModelInfo) -> None:
    """Refuse what would take too much memory, by what runs of the model took so far."""
    need = int(info.batching.memory.of(run_bytes))
    if need > info.batching.memory_bytes:
        raise MessageTooLarge(
            f"a run with {run_bytes} bytes of inputs is likely to need {need} bytes of memory; expected at most "
            f"{info.batching.memory_bytes:.0f} (--model-memory)"
        )
    if answer_bytes > ANSWER_BYTES:
        raise MessageTooLarge(
            f"the answer would have about {answer_bytes} bytes; expected at most {ANSWER_BYTES}: send fewer rows"
        )


def _filled(data: Data, spec: TensorSpec, size: int) -> Data:
    """Repeat the last number as often as is missing; after the shape was found to be one that the signature takes."""
    item = spec.size(())
    if isinstance(data, list) or len(data) < item or len(data) >= size:
        return data
    bounded = spec.shape is not None and FREE not in spec.shape[1:]
    most = FILL_BYTES if bounded else FREE_FILL_BYTES
    if size > most:
        raise MessageTooLarge(
            f"input {spec.name!r} has {len(data) // item} values for {size // item} elements; expected all of them, "
            f"or a tensor of at most {most} bytes"
        )
    return bytes(data) + bytes(data[-item:]) * ((size - len(data)) // item)


def _names(names: Sequence[str]) -> str:
    return "[" + ", ".join(map(repr, names)) + "]"
