"""TensorFlow Serving's Predict: PredictRequest to a request, a result to PredictResponse.

As for the Open Inference Protocol, what callers repeat is parsed once: everything but the tensors' ``tensor_content``
is remembered under its own bytes, and the contents are views of the message. Typed lists, which strings always travel
in, go through protobuf's parser.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import NamedTuple

from google.protobuf.message import DecodeError

from horngate_protos.datatypes import BY_NAME, BYTES, tensorflow_name
from horngate_protos.tensorflow_pb2 import TensorProto, TensorShapeProto
from horngate_protos.tensorflow_serving_pb2 import PredictRequest
from horngate_protos.wire import varint
from horngate_server.core.codec import Codec, Template, wanted
from horngate_server.core.errors import InvalidRequest
from horngate_server.core.inference import (
    Buffer,
    Header,
    InferenceRequest,
    InferenceResult,
    InputHeader,
    ModelInfo,
    Outputs,
)
from horngate_server.core.signature import Signature, TensorSpec
from horngate_server.protocols.model_spec import read_spec, write_spec
from horngate_server.protocols.strings import check_count, string_bytes
from horngate_server.protocols.tensor_proto import data_of, datatype_of, shape_of
from horngate_server.protocols.wire import (
    LENGTH_DELIMITED,
    MOST_FIELDS,
    PARSED_BYTES,
    NotUsual,
    check_fields,
    check_head,
    check_parsed,
    field,
    varint_at,
)

PROTOCOL = "tensorflow_serving"


@dataclass(frozen=True, slots=True, eq=False)
class PredictHeader(Header):
    """A `Header` that knows TensorFlow's names of types."""

    def check(self, signature: Signature) -> None:
        """Refuse an input of another type than the signature's, in TensorFlow's words."""
        expected = {spec.name: spec.datatype for spec in signature.inputs}
        for given in self.inputs:
            datatype = expected.get(given.name)
            if datatype is not None and given.datatype != datatype.name:
                came = BY_NAME.get(given.datatype)
                raise InvalidRequest(
                    f"input {given.name!r} is {tensorflow_name(came.tensorflow) if came else given.datatype}; "
                    f"expected {tensorflow_name(datatype.tensorflow)}"
                )


def decode(message: bytes | memoryview) -> InferenceRequest:
    """Read a PredictRequest; contents are views of ``message`` (`Codec.decode`).

    Raises:
        InvalidRequest: it is not such a message, names no model, or holds values out of range.
    """
    length = len(message)
    known = _known.get(length)
    if known is not None:
        start, stop = len(known.head), length - len(known.tail)
        if message[:start] == known.head and message[stop:] == known.tail:
            return InferenceRequest(known.header, "", (memoryview(message)[start:stop],))
    spans = _spans(message)
    if spans is None:
        return _parse(bytes(message))
    view = memoryview(message)
    around = _around(view, spans)
    skeleton = b"".join(around)
    check_head(len(skeleton))
    header = _headers.get(skeleton)
    if header is None:
        header = _whole_header(bytes(message), view, spans)
        if header is None or any(each.datatype == BYTES.name for each in header.inputs):
            return _parse(bytes(message))
        if len(skeleton) <= _REMEMBERED_BYTES:
            if len(_headers) >= _REMEMBERED:
                _headers.clear()
            _headers[skeleton] = header
    if len(spans) == 1 and len(skeleton) <= _REMEMBERED_BYTES:
        if len(_known) >= _REMEMBERED:
            _known.clear()
        _known[length] = _Known(around[0], around[1], header)
    return InferenceRequest(header, "", [view[span.start : span.stop] for span in spans])


def encode(request: InferenceRequest, model: ModelInfo, result: InferenceResult) -> bytes:
    """Write a PredictResponse; numbers as ``tensor_content``, strings as ``string_val`` (`Codec.encode`)."""
    specs = model.signature.outputs
    parts: list[Buffer] = []
    for place in wanted(request.header, model.signature):
        data = result.outputs[place]
        if isinstance(data, list):
            parts.append(_strings_entry(specs[place], result.shapes[place], data))
        else:
            parts += (_entry_head(specs[place], result.shapes[place], len(data)), data)
    parts.append(_tail(model))
    return b"".join(parts)


def template(header: Header, model: ModelInfo, rows: int, outputs: Outputs) -> Template:
    """Write what answers have in common (`Codec.template`)."""
    specs, shapes = model.signature.outputs, outputs.shapes_of(rows)
    fixed = b""
    columns = []
    for place in wanted(header, model.signature):
        size = rows * (outputs.row_sizes[place] or 0)
        fixed += _entry_head(specs[place], shapes[place], size)
        columns.append((place, len(fixed)))
        fixed += bytes(size)
    return Template(fixed + _tail(model), columns)


PREDICT = Codec(PROTOCOL, decode, encode, template)

# --- private: reading ---------------------------------------------------------------------------------

_REMEMBERED = 256
_REMEMBERED_BYTES = 1024
"""A remembered header is objects of up to fifty times its bytes."""
_INPUTS = 0x12  # PredictRequest, field 2
_KEY = 0x0A  # a map's entry, field 1
_VALUE = 0x12  # and field 2
_DTYPE = 0x08  # TensorProto, field 1, a varint
_SHAPE = 0x12  # field 2
_CONTENT = 0x22  # field 4
_STRINGS = (_INPUTS, _VALUE, 0x42)
"""On the way to strings: an input's entry, its tensor, and field 8, an element of string_val."""
_LISTS = {"scomplex_val": 0x4A, "dcomplex_val": 0x62}
"""Lists that lie in a message as their tensor does in memory, packed: answers have complex numbers in them."""


class _Span(NamedTuple):
    """Where an input's content lies in a message, and where its name does."""

    name: slice
    start: int
    stop: int


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    """A message with one tensor: the next one of its length is likely to differ in that tensor's content alone."""

    head: bytes
    tail: bytes
    header: Header


_known: dict[int, _Known] = {}
_headers: dict[bytes, Header] = {}
"""By everything but the contents."""


def _spans(message: bytes | memoryview) -> list[_Span] | None:
    """Find the contents; None where the message has another form than the one that everybody sends."""
    spans = []
    try:
        for tag, start, stop in _fields(message, 0, len(message)):
            if tag == _INPUTS:
                entry = list(_fields(message, start, stop))
                if [each[0] for each in entry] != [_KEY, _VALUE]:
                    return None
                tensor = list(_fields(message, entry[1][1], entry[1][2]))
                if [each[0] for each in tensor] not in _TENSORS:
                    return None
                spans.append(_Span(slice(entry[0][1], entry[0][2]), *tensor[-1][1:]))
    except (IndexError, NotUsual):
        return None
    return spans or None


_TENSORS = ([_DTYPE, _SHAPE, _CONTENT], [_DTYPE, _CONTENT])


def _fields(message: bytes | memoryview, position: int, end: int) -> list[tuple[int, int, int]]:
    """Return the fields between two places: tag, and where the value begins and ends."""
    found: list[tuple[int, int, int]] = []
    while position < end:
        tag = message[position]
        start = position + 1
        length, position = varint_at(message, start)
        if len(found) == MOST_FIELDS:
            raise NotUsual
        if tag == _DTYPE:
            found.append((tag, start, position))
            continue
        if tag & 7 != LENGTH_DELIMITED or tag > 0x7F or position + length > end:
            raise NotUsual
        found.append((tag, position, position + length))
        position += length
    if position != end:
        raise NotUsual
    return found


def _around(view: memoryview, spans: list[_Span]) -> list[bytes]:
    """Return what lies before, between and after the contents."""
    stops = [0, *(span.stop for span in spans)]
    starts = [*(span.start for span in spans), len(view)]
    return [bytes(view[stop:start]) for stop, start in zip(stops, starts, strict=True)]


def _whole_header(message: bytes, view: memoryview, spans: list[_Span]) -> Header | None:
    """Read the header of a message whose contents were found; None where they are not all that protobuf finds."""
    request = _from_bytes(message)
    try:
        names = [str(view[span.name], "utf-8") for span in spans]
    except UnicodeDecodeError:
        return None
    if sorted(names) != sorted(request.inputs):
        return None
    return _header(request, names)


def _parse(message: bytes) -> InferenceRequest:
    """Read any PredictRequest with protobuf's parser."""
    if len(message) > PARSED_BYTES:
        check_parsed(len(message) - string_bytes(message, _STRINGS), "tensor_content")
    request = _from_bytes(message)
    names = list(request.inputs)
    header = _header(request, names)
    return InferenceRequest(header, "", [data_of(name, request.inputs[name]) for name in names])


def _from_bytes(message: bytes) -> PredictRequest:
    try:
        return PredictRequest.FromString(message)
    except DecodeError as error:
        raise InvalidRequest(f"not a PredictRequest: {error}") from error


def _header(request: PredictRequest, names: list[str]) -> Header:
    asked = read_spec(request.model_spec if request.HasField("model_spec") else None)
    check_fields(max(len(request.inputs), len(request.output_filter)))
    inputs = tuple(
        InputHeader(name, datatype_of(request.inputs[name]), shape_of(name, request.inputs[name])) for name in names
    )
    check_count("the request", sum(prod(each.shape) for each in inputs if each.datatype == BYTES.name))
    return PredictHeader(
        model=asked.model,
        version=asked.version,
        inputs=inputs,
        outputs=tuple(request.output_filter),
        signature=asked.signature,
        filled=any(not tensor.tensor_content for tensor in request.inputs.values()),
    )


# --- private: writing ---------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def _entry_head(spec: TensorSpec, shape: tuple[int, ...], size: int) -> bytes:
    """Write an output up to its content: the map's entry, the key, the TensorProto's type and shape."""
    axes = TensorShapeProto(dim=[TensorShapeProto.Dim(size=axis) for axis in shape])
    tensor = TensorProto(dtype=spec.datatype.tensorflow, tensor_shape=axes).SerializeToString()
    tensor += bytes([_LISTS.get(spec.datatype.values, _CONTENT)]) + varint(size)
    key = field(1, spec.name.encode())
    value = bytes([_VALUE]) + varint(len(tensor) + size) + tensor
    return b"\x0a" + varint(len(key) + len(value) + size) + key + value


def _strings_entry(spec: TensorSpec, shape: tuple[int, ...], elements: list[bytes]) -> bytes:
    """Write an output of strings whole."""
    axes = TensorShapeProto(dim=[TensorShapeProto.Dim(size=axis) for axis in shape])
    tensor = TensorProto(dtype=spec.datatype.tensorflow, tensor_shape=axes, string_val=elements).SerializeToString()
    return field(1, field(1, spec.name.encode()) + field(2, tensor))


def _tail(model: ModelInfo) -> bytes:
    """Write what comes after the outputs."""
    return field(2, write_spec(model.name, model.version, model.signature.name))
