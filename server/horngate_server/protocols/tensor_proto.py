"""TensorFlow's TensorProto: its type, its shape and its elements, with the rules that TensorFlow reads them by."""

from math import prod

from horngate_protos.datatypes import BY_TENSORFLOW, BYTES, tensorflow_name
from horngate_protos.tensor_protos import typed_numbers
from horngate_protos.tensorflow_pb2 import TensorProto
from horngate_server.core.errors import InvalidRequest
from horngate_server.core.inference import Data
from horngate_server.protocols.strings import check_count
from horngate_server.protocols.wire import PARSED_BYTES, NotUsual, check_shape, varint_at


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
    """Return a tensor's elements: numbers as many as came, or one zero where none did; strings as many as it has.

    Raises:
        InvalidRequest: values that the type has not, or strings whose lengths are not those of the bytes that came.
    """
    datatype = BY_TENSORFLOW.get(tensor.dtype)
    if datatype is BYTES:
        return _strings(name, tensor)
    if tensor.tensor_content or datatype is None:
        return tensor.tensor_content
    if not getattr(tensor, datatype.values) and _elements(tensor):
        return bytes(datatype.numpy.itemsize)
    try:
        return typed_numbers(tensor, datatype)
    except ValueError as error:
        raise InvalidRequest(f"input {name!r} {error}") from error


# --- private ------------------------------------------------------------------------------------------


def _elements(tensor: TensorProto) -> int:
    """Return how many elements the shape has."""
    return prod(dim.size for dim in tensor.tensor_shape.dim)


def _strings(name: str, tensor: TensorProto) -> list[bytes]:
    """Return a tensor's strings: all of them, where fewer came than the shape has; their last one is repeated.

    In ``tensor_content``, which TensorFlow reads too, the lengths of all strings come first.
    """
    count = _elements(tensor)
    check_count(f"input {name!r}", count)
    if tensor.tensor_content:
        return _strings_in_content(name, tensor.tensor_content, count)
    elements = list(tensor.string_val)
    last, missing = (elements or [b""])[-1], count - len(elements)
    if missing * len(last) > PARSED_BYTES:
        raise InvalidRequest(
            f"input {name!r} has {len(elements)} strings in string_val; expected {count}: the last one may stand for "
            f"those that are missing where they take no more than {PARSED_BYTES} bytes"
        )
    return elements + [last] * missing


def _strings_in_content(name: str, content: bytes, count: int) -> list[bytes]:
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
