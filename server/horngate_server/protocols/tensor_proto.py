"""TensorFlow's TensorProto: its type, its shape and its elements, with the rules that TensorFlow reads them by."""

from math import prod

import numpy as np

from horngate_protos.datatypes import BY_TENSORFLOW, BYTES, tensorflow_name
from horngate_protos.tensorflow_pb2 import TensorProto
from horngate_server.errors import InvalidRequest
from horngate_server.protocols.strings import MOST_STRINGS, check_count
from horngate_server.protocols.wire import NotUsual, check_shape, varint_at
from horngate_server.request import Data


def datatype_of(tensor: TensorProto) -> str:
    """Return the Open Inference Protocol's name of a tensor's type; TensorFlow's own where there is none."""
    datatype = BY_TENSORFLOW.get(tensor.dtype)
    return datatype.name if datatype else tensorflow_name(tensor.dtype)


def shape_of(name: str, tensor: TensorProto) -> tuple[int, ...]:
    """Return a tensor's axes.

    Raises:
        InvalidRequest: it has none, not even of a scalar, or such as no tensor has.
    """
    if tensor.tensor_shape.unknown_rank:
        raise InvalidRequest(f"input {name!r} has a tensor_shape of unknown rank; expected the axes that it has")
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    check_shape(name, shape)
    return shape


def data_of(name: str, tensor: TensorProto) -> Data:
    """Return a tensor's elements, as many as came; where none came and some should be, TensorFlow's default, one zero.

    Raises:
        InvalidRequest: values that the type has not, or strings whose lengths are not those of the bytes that came.
    """
    datatype = BY_TENSORFLOW.get(tensor.dtype)
    if datatype is BYTES:
        return _strings(name, tensor)
    if tensor.tensor_content or datatype is None:
        return tensor.tensor_content
    values = getattr(tensor, datatype.values)
    if not values and _elements(tensor):
        return bytes(datatype.numpy.itemsize)
    kind: np.dtype[np.generic] = _TYPED.get(datatype.values, datatype.numpy)
    if len(values) * kind.itemsize % datatype.numpy.itemsize:
        raise InvalidRequest(f"input {name!r} has {len(values)} values in {datatype.values}; expected pairs")
    try:
        return np.array(values, kind).tobytes()
    except OverflowError as error:
        raise InvalidRequest(
            f"input {name!r} has a value in {datatype.values} out of {datatype.name}'s range"
        ) from error


def strings_in(message: bytes, position: int, end: int) -> tuple[int, int]:
    """Return how many strings a TensorProto has that is not parsed yet, and all of their bytes.

    Args:
        message: holds it.
        position: where it begins.
        end: where it ends.

    Raises:
        InvalidRequest: there are more than `MOST_STRINGS`.
        NotUsual: it is written in another way than by protobuf.
        IndexError: it ends in the midst of a field.
    """
    count = size = 0
    while position < end:
        tag = message[position]
        length, position = varint_at(message, position + 1)
        if tag == _STRING:
            count += 1
            size += length
            if count > MOST_STRINGS:
                check_count("the request", count)
        if tag & 7 == _LENGTH_DELIMITED:
            position += length
        elif tag & 7 != _VARINT:
            raise NotUsual
    if position != end:
        raise NotUsual
    return count, size


# --- private ------------------------------------------------------------------------------------------

_STRING = 0x42  # field 8, an element of string_val
_VARINT = 0
_LENGTH_DELIMITED = 2
_TYPED: dict[str, np.dtype[np.generic]] = {
    "half_val": np.dtype("<u2"),
    "scomplex_val": np.dtype("<f4"),
    "dcomplex_val": np.dtype("<f8"),
}
"""How lists hold what is no element: half floats as their bits, in integers; complex numbers as pairs."""


def _elements(tensor: TensorProto) -> int:
    """Return how many elements the shape has."""
    return prod(dim.size for dim in tensor.tensor_shape.dim)


def _strings(name: str, tensor: TensorProto) -> list[bytes]:
    """Return a tensor's strings; in ``tensor_content``, which TensorFlow reads too, all of their lengths come first."""
    content = tensor.tensor_content
    count = _elements(tensor)
    if not content:
        return list(tensor.string_val) or [b""] * (count > 0)
    check_count(f"input {name!r}", count)
    lengths = []
    at = 0
    try:
        for _ in range(count):
            length, at = varint_at(content, at)
            lengths.append(length)
    except (IndexError, NotUsual):
        at = len(content) + 1
    if at + sum(lengths) != len(content):
        raise InvalidRequest(
            f"input {name!r} has {len(content)} bytes of tensor_content; expected the lengths of {count} strings and "
            "then the strings (string_val is the usual place for them)"
        )
    elements = []
    for length in lengths:
        elements.append(content[at : at + length])
        at += length
    return elements
