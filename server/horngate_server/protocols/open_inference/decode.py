"""ModelInferRequest: bytes to a request.

A ModelInferRequest is a small header and then the tensors' bytes. Callers repeat the header again and again, so it
is parsed once and remembered under its own bytes; a request then costs a walk over its few top-level fields and a
view of each tensor. What the walk does not expect (legal, but nobody sends it) goes through protobuf's own parser.
Strings are split here, once, and are never remembered: their lengths are among the tensor's bytes.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from horngate_protos.datatypes import BY_NAME, BYTES
from horngate_protos.open_inference_pb2 import ModelInferRequest
from horngate_server.core.errors import InvalidRequest
from horngate_server.core.inference import Buffer, Data, InferenceRequest
from horngate_server.protocols.open_inference.header import InferHeader, read_header
from horngate_server.protocols.strings import split, string_bytes
from horngate_server.protocols.wire import (
    LENGTH_DELIMITED,
    MOST_FIELDS,
    PARSED_BYTES,
    NotUsual,
    check_fields,
    check_head,
    check_parsed,
    varint_at,
)


def decode(message: bytes | memoryview) -> InferenceRequest:
    """Read a ModelInferRequest; numbers are views of ``message``, strings are copied out of it.

    Raises:
        InvalidRequest: it is not such a message, mixes raw and typed tensors, holds values out of range, or strings
            whose lengths are not those of the bytes that came.
    """
    known = _known.get(len(message))
    if known is not None and message[: len(known.head)] == known.head:
        return InferenceRequest(known.header, "", (memoryview(message)[len(known.head) :],))
    walked = _walk(message)
    if walked is None:
        return _parse(message)
    head, identity, data = walked
    if not data:  # typed contents: the values are in the header, which is then worth no memory
        return _parse(message)
    check_head(len(head))
    header = _raw_header(head) if len(head) <= _REMEMBERED_BYTES else _raw_header.__wrapped__(head)
    if len(data) != len(header.inputs):
        raise InvalidRequest(
            f"raw_input_contents has {len(data)} entries for {len(header.inputs)} inputs; expected one for each"
        )
    if header.strings:
        return InferenceRequest(header, identity, _split(header, data))
    if len(data) == 1 and not identity:
        _remember(header, bytes(message[: len(message) - len(data[0])]), len(message))
    return InferenceRequest(header, identity, data)


def identity(message: bytes | memoryview) -> str:
    """Return a request's id where it is among the first `MOST_FIELDS` fields, without making anything of the others."""
    found = ""
    position = 0
    try:
        for _ in range(MOST_FIELDS):
            tag = message[position]
            if tag & 7 != LENGTH_DELIMITED or tag > 0x7F:
                break
            length, start = varint_at(message, position + 1)
            position = start + length
            if tag == _ID:
                found = str(message[start:position], "utf-8")
    except (IndexError, NotUsual, UnicodeDecodeError):  # the message ends, or is none
        pass
    return found


# --- private ------------------------------------------------------------------------------------------

_REMEMBERED_BYTES = 1024
"""A remembered header is objects of up to fifty times its bytes."""
_REMEMBERED_LENGTHS = 256
_ID = 0x1A  # field 3, length-delimited
_RAW = 0x3A  # field 7, length-delimited
_STRINGS = (0x2A, 0x2A, 0x42)
"""On the way to strings: an input, its contents, an element of bytes_contents."""


class _Known(NamedTuple):
    """A message that came: the next one of its length is likely to differ in the tensor's bytes alone.

    Attributes:
        head: everything before those bytes, their length included.
        header: what it says.
    """

    head: bytes
    header: InferHeader


_known: dict[int, _Known] = {}


def _remember(header: InferHeader, head: bytes, length: int) -> None:
    """Keep the last head of a message length: with one tensor and no id, nothing else can vary before the data."""
    if len(head) <= _REMEMBERED_BYTES:
        if len(_known) >= _REMEMBERED_LENGTHS:
            _known.clear()
        _known[length] = _Known(head, header)


def _walk(  # noqa: C901, PLR0911, PLR0912 - a parser on the hot path: calls would cost more than they explain
    message: bytes | memoryview,
) -> tuple[bytes, str, list[memoryview]] | None:
    """Split a message into header bytes, id and raw tensors; None where it is not in the usual form.

    Raises:
        InvalidRequest: it has too many fields.
    """
    view = memoryview(message)
    end = len(message)
    position = 0
    head_end = 0
    identity = ""
    id_start = id_end = 0
    fields = 0
    data: list[memoryview] = []
    try:
        while position < end:
            tag = message[position]
            if tag & 7 != LENGTH_DELIMITED or tag > 0x7F:
                return None
            start = position
            length = message[position + 1]
            position += 2
            shift = 7
            if length > 0x7F:
                length &= 0x7F
                while True:
                    byte = message[position]
                    position += 1
                    length |= (byte & 0x7F) << shift
                    shift += 7
                    if byte <= 0x7F:
                        break
                    if shift > 35:
                        return None
            stop = position + length
            if stop > end:
                return None
            if tag == _RAW:
                if len(data) == MOST_FIELDS:
                    return None
                data.append(view[position:stop])
            elif data:
                return None
            else:
                fields += 1
                if fields > MOST_FIELDS:
                    check_fields(fields)
                head_end = stop
                if tag == _ID:
                    identity = str(view[position:stop], "utf-8")
                    id_start, id_end = start, stop
            position = stop
    except (IndexError, UnicodeDecodeError):
        return None
    if id_end:
        return bytes(view[:id_start]) + bytes(view[id_end:head_end]), identity, data
    return bytes(view[:head_end]), identity, data


@lru_cache(maxsize=256)
def _raw_header(head: bytes) -> InferHeader:
    """Parse a header whose tensors travel raw."""
    request = _from_bytes(head)
    if any(tensor.HasField("contents") for tensor in request.inputs):
        raise InvalidRequest(_MIXED)
    return read_header(request, raw=True)


def _parse(message: bytes | memoryview) -> InferenceRequest:
    """Read any ModelInferRequest with protobuf's parser: typed contents, unusual field order."""
    message = bytes(message)
    if len(message) > PARSED_BYTES:
        check_parsed(len(message) - string_bytes(message, _STRINGS), "raw_input_contents")
    request = _from_bytes(message)
    check_fields(max(len(request.inputs), len(request.outputs), len(request.parameters)))
    if request.raw_input_contents:
        if any(tensor.HasField("contents") for tensor in request.inputs):
            raise InvalidRequest(_MIXED)
        if len(request.raw_input_contents) != len(request.inputs):
            raise InvalidRequest(
                f"raw_input_contents has {len(request.raw_input_contents)} entries for "
                f"{len(request.inputs)} inputs; expected one for each"
            )
        header = read_header(request, raw=True)
        return InferenceRequest(header, request.id, _split(header, list(request.raw_input_contents)))
    header = read_header(request, raw=not request.inputs)  # without any, nothing asks for lists
    return InferenceRequest(header, request.id, [_typed(tensor) for tensor in request.inputs])


def _split(header: InferHeader, data: Sequence[Buffer]) -> list[Data]:
    """Return raw contents with those of BYTES as their elements."""
    return [
        split(tensor.name, raw, tensor.shape, prod(tensor.shape)) if tensor.datatype == BYTES.name else raw
        for tensor, raw in zip(header.inputs, data, strict=True)
    ]


_MIXED = "raw_input_contents and typed contents in one request; expected one or the other"


def _from_bytes(message: bytes) -> ModelInferRequest:
    try:
        return ModelInferRequest.FromString(message)
    except DecodeError as error:
        raise InvalidRequest(f"not a ModelInferRequest: {error}") from error


def _typed(tensor: ModelInferRequest.InferInputTensor) -> Data:
    """Turn typed contents into the elements that they would have been raw."""
    datatype = BY_NAME.get(tensor.datatype)
    if datatype is None:
        raise InvalidRequest(
            f"input {tensor.name!r} has datatype {tensor.datatype!r}; expected one of {', '.join(BY_NAME)}"
        )
    if datatype.contents is None:
        raise InvalidRequest(f"input {tensor.name!r} is {datatype.name}, which only travels raw")
    filled = [field.name for field, _ in tensor.contents.ListFields()]
    if filled not in ([], [datatype.contents]):
        raise InvalidRequest(
            f"input {tensor.name!r} is {datatype.name}; expected its values in {datatype.contents}, "
            f"found {' and '.join(filled)}"
        )
    values = getattr(tensor.contents, datatype.contents)
    if datatype is BYTES:
        if len(values) != prod(tensor.shape):
            raise InvalidRequest(
                f"input {tensor.name!r} has {len(values)} strings; expected {prod(tensor.shape)} for the shape "
                f"{list(tensor.shape)}"
            )
        return list(values)
    try:
        return np.array(values[:], datatype.numpy).tobytes()  # a list: protobuf 7 hands over arrays, which wrap around
    except OverflowError as error:
        raise InvalidRequest(f"input {tensor.name!r} has a value out of {datatype.name}'s range") from error
