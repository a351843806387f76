"""Rows that come as tensorflow.Example, as the inputs of a signature.

An example needs a feature for every input, by the input's name: an ``int64_list`` or a ``float_list`` with all elements
of the row in row-major order, or a ``bytes_list``: of an input of strings its elements, of any other one value, the
row's bytes. Features that are no inputs are ignored. What an example lacks, the context has.

A signature whose graph parses examples itself, as those that Estimators export, has one input, a vector of strings: it
is given the examples as they are, serialized.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from math import prod
from typing import Any, NamedTuple

import numpy as np

from horngate_protos.datatypes import BYTES
from horngate_protos.tensorflow_pb2 import Example, Feature
from horngate_server.core.errors import InvalidRequest
from horngate_server.core.inference import Data, InputHeader, numbers, strings
from horngate_server.core.signature import FREE, Signature, TensorSpec
from horngate_server.protocols.wire import PARSED_BYTES

SERIALIZED = ("inputs", "examples")
"""What an input of serialized examples is called, where the graph does not tell that it is one."""

_Features = Mapping[str, Feature]


class Rows(NamedTuple):
    """What was asked about.

    Attributes:
        examples: one for each row.
        context: its features are every row's that has none of the name.
    """

    examples: Sequence[Example]
    context: Example


def takes_examples(signature: Signature, rows: Rows) -> bool:
    """Whether the graph parses examples itself: it was seen to, or the input is called so and no feature is."""
    if len(signature.inputs) != 1:
        return False
    [spec] = signature.inputs
    if spec.datatype is not BYTES or spec.shape not in {None, (FREE,)}:
        return False
    return bool(spec.features) or (
        spec.name in SERIALIZED and not all(spec.name in _features(each, rows, spec) for each in rows.examples)
    )


def serialized(spec: TensorSpec, rows: Rows) -> tuple[InputHeader, Data]:
    """Return the examples as an input of strings; each behind the context, which makes one message of both.

    Raises:
        InvalidRequest: they are too long together: one context may stand in all rows.
    """
    context = rows.context.SerializeToString()
    size = sum(each.ByteSize() for each in rows.examples) + len(context) * len(rows.examples)
    if size > PARSED_BYTES:
        raise InvalidRequest(f"{size} bytes in all examples, the context in each; expected at most {PARSED_BYTES}")
    data = [context + each.SerializeToString() for each in rows.examples]
    return InputHeader(spec.name, spec.datatype.name, (len(data),)), data


def tensor(spec: TensorSpec, rows: Rows) -> tuple[InputHeader, Data]:
    """Return an input's feature of all examples as the input.

    Raises:
        InvalidRequest: an example has none, or one that does not fit; not all have as many elements.
    """
    data = _data(spec, rows)
    count = len(data[0])
    if any(len(row) != count for row in data):
        raise InvalidRequest(f"feature {spec.name!r} has not as many elements in every example; expected the same")
    shape = (len(data), *_axes(spec, count // spec.size(())))
    return InputHeader(spec.name, spec.datatype.name, shape), _joined(data)


# --- private ------------------------------------------------------------------------------------------

_STRING_BYTES = 8
"""What a string takes beside its own bytes, where it is in a list again and again."""


def _features(example: Example, rows: Rows, spec: TensorSpec) -> _Features:
    """Return the features among which an input's is: an example's own, or the context's."""
    own = example.features.feature
    return own if spec.name in own else rows.context.features.feature


def _data(spec: TensorSpec, rows: Rows) -> list[Data]:
    """Return every example's elements of an input, while they are not too many: one context may stand for all rows."""
    found: list[Data] = []
    left = PARSED_BYTES
    for number, example in enumerate(rows.examples):
        row = _row(_features(example, rows, spec), spec, number)
        found.append(row)
        left -= sum(_STRING_BYTES + len(each) for each in row) if isinstance(row, list) else len(row)
        if left < 0:
            raise InvalidRequest(f"feature {spec.name!r} has more than {PARSED_BYTES} bytes in all examples together")
    return found


def _row(features: _Features, spec: TensorSpec, number: int) -> Data:
    """Return one example's elements of an input."""
    kind = features[spec.name].WhichOneof("kind") if spec.name in features else None
    at = f"example {number}, feature {spec.name!r}"
    if kind is None:
        raise InvalidRequest(f"{at} is missing; expected one for every input: {spec}")
    row = _values(at, kind, getattr(features[spec.name], kind).value, spec)
    elements, left = divmod(len(row), spec.size(()))
    if left or prod(_axes(spec, elements)) != elements:
        raise InvalidRequest(
            f"{at} has {len(row) / spec.size(()):g} elements; expected those of {list(_row_shape(spec))}"
        )
    return row


def _joined(rows: Sequence[Data]) -> Data:
    """Return the elements of all rows."""
    if isinstance(rows[0], list):
        return list(chain.from_iterable(map(strings, rows)))
    return b"".join(map(numbers, rows))


def _values(at: str, kind: str, values: Sequence[Any], spec: TensorSpec) -> Data:
    """Return a feature's values as the elements of a row."""
    datatype = spec.datatype
    if datatype is BYTES:
        if kind != "bytes_list":
            raise InvalidRequest(f"{at} is a {kind}; expected bytes_list for BYTES")
        return list(values)
    if kind == "bytes_list":
        if len(values) != 1:
            raise InvalidRequest(f"{at} has {len(values)} byte strings; expected one, with the row's bytes")
        return bytes(values[0])
    if datatype.name == "BF16" or (kind == "float_list" and datatype.numpy.kind not in "fc"):
        raise InvalidRequest(f"{at} is a {kind}; expected bytes_list or int64_list for {datatype.name}")
    try:
        return np.array(values[:], datatype.numpy).tobytes()  # a list: protobuf 7 hands over arrays, which wrap around
    except OverflowError as error:
        raise InvalidRequest(f"{at} has a value out of {datatype.name}'s range") from error


def _row_shape(spec: TensorSpec) -> tuple[int, ...]:
    """Return a row's axes as the signature has them; where it does not say, a row is a vector."""
    return (FREE,) if spec.shape is None else spec.shape[1:]


def _axes(spec: TensorSpec, elements: int) -> tuple[int, ...]:
    """Return a row's axes; one of any length is what the number of elements makes it."""
    axes = _row_shape(spec)
    if FREE not in axes:
        return axes
    known = prod(axis for axis in axes if axis != FREE)
    free = axes.index(FREE)
    rest = elements // known if known else 0
    return tuple(rest if place == free else 1 if axis == FREE else axis for place, axis in enumerate(axes))
