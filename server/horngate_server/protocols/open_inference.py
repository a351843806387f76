"""The Open Inference Protocol's ModelInfer: bytes <-> request and result.

A ModelInferRequest is a small header and then the tensors' bytes. Callers repeat the header again and again, so it
is parsed once and remembered under its own bytes; a request then costs a walk over its few top-level fields and a
view of each tensor. What the walk does not expect (legal, but nobody sends it) goes through protobuf's own parser.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from horngate_protos.datatypes import BY_NAME, Datatype
from horngate_protos.open_inference_pb2 import InferTensorContents, ModelInferRequest, ModelInferResponse
from horngate_server.errors import InvalidRequest
from horngate_server.request import (
    Buffer,
    Header,
    InferenceRequest,
    InferenceResult,
    InputHeader,
    ModelInfo,
    Outputs,
    WholeResults,
)
from horngate_server.signature import TensorSpec

TIMING = "horngate_timing"
"""The request parameter (bool) that asks for timings in the response's parameters."""
QUEUE_US = "horngate_queue_us"
COMPUTE_US = "horngate_compute_us"


def decode(message: bytes | memoryview) -> InferenceRequest:
    """Read a ModelInferRequest; the data are views of ``message``.

    Raises:
        InvalidRequest: it is not such a message, mixes raw and typed tensors, or holds values out of range.
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
    header = _raw_header(head) if len(head) <= _REMEMBERED_BYTES else _raw_header.__wrapped__(head)
    if len(data) != len(header.inputs):
        raise InvalidRequest(
            f"raw_input_contents has {len(data)} entries for {len(header.inputs)} inputs; expected one for each"
        )
    if len(data) == 1 and not identity:
        _remember(header, bytes(message[: len(message) - len(data[0])]), len(message))
    return InferenceRequest(header, identity, data)


def encode_whole(model: ModelInfo, results: WholeResults) -> Sequence[bytes]:
    """Write the ModelInferResponses of all requests that were in a batch whole.

    Neighbours whose answers look alike are written together: they differ in nothing but the outputs' bytes, which
    NumPy copies into place for all of them at once.
    """
    requests, rows = results.requests, results.rows
    answers: list[bytes] = []
    start = row = 0
    while start < len(requests):
        header, each = requests[start].header, rows[start]
        stop = start + 1
        while stop < len(requests) and requests[stop].header is header and rows[stop] == each and not requests[stop].id:
            stop += 1
        count = stop - start
        end = row + count * each
        alike = None
        if count >= _WORTH_IT and header.raw and not (header.timing or requests[start].id):
            alike = _encode_alike(model, header, results.outputs, range(row, end, each))
        answers += alike or [
            encode(
                requests[start + index],
                model,
                InferenceResult(
                    each,
                    results.outputs.shapes,
                    results.outputs.rows(row + index * each, row + (index + 1) * each),
                    results.queue_s[start + index],
                    results.compute_s,
                ),
            )
            for index in range(count)
        ]
        start, row = stop, end
    return answers


def encode(request: InferenceRequest, model: ModelInfo, result: InferenceResult) -> bytes:
    """Write a ModelInferResponse: raw where the request was raw, typed where it was typed."""
    specs = model.signature.outputs
    header = request.header
    wanted = _wanted(header, model)
    typed = not header.raw and all(specs[place].datatype.contents for place in wanted)
    if typed or header.timing:
        return _encode_any(request, model, result, wanted, typed=typed)
    shapes = tuple((specs[place], (result.rows, *result.shapes[place])) for place in wanted)
    parts: list[Buffer] = [_response_head(model.name, model.version, shapes)]
    if request.id:
        identity = request.id.encode()
        parts += (b"\x1a", _varint(len(identity)), identity)
    for place in wanted:
        output = result.outputs[place]
        parts += (b"\x32", _varint(len(output)), output)
    return b"".join(parts)


# --- private ------------------------------------------------------------------------------------------

_REMEMBERED_BYTES = 4096
_REMEMBERED_LENGTHS = 512
_WORTH_IT = 4
"""From this many answers on, setting up the common way costs less than it saves."""
_ALIKE_BYTES = 65536
"""Longer answers are copied once each rather than three times together."""
_ID = 0x1A  # field 3, length-delimited
_RAW = 0x3A  # field 7, length-delimited
_LENGTH_DELIMITED = 2


class _Known(NamedTuple):
    """A message that came: the next one of its length is likely to differ in the tensor's bytes alone.

    Attributes:
        head: everything before those bytes, their length included.
        header: what it says.
    """

    head: bytes
    header: Header


_known: dict[int, _Known] = {}


def _remember(header: Header, head: bytes, length: int) -> None:
    """Keep the last head of a message length: with one tensor and no id, nothing else can vary before the data."""
    if len(head) <= _REMEMBERED_BYTES:
        if len(_known) >= _REMEMBERED_LENGTHS:
            _known.clear()
        _known[length] = _Known(head, header)


def _wanted(header: Header, model: ModelInfo) -> Sequence[int]:
    """Return the places of the outputs that are asked for, in the order asked for."""
    specs = model.signature.outputs
    if not header.outputs:
        return range(len(specs))
    places = {spec.name: place for place, spec in enumerate(specs)}
    return [places[name] for name in header.outputs]


def _encode_alike(model: ModelInfo, header: Header, outputs: Outputs, starts: range) -> list[bytes] | None:
    """Write the answers of requests whose rows start there; None where they are too long for that."""
    row, rows, count = starts.start, starts.step, len(starts)
    specs = model.signature.outputs
    wanted = _wanted(header, model)
    shapes = tuple((specs[place], (rows, *outputs.shapes[place])) for place in wanted)
    fixed = _response_head(model.name, model.version, shapes)
    columns = []
    for place in wanted:
        size = rows * outputs.row_bytes[place]
        fixed += b"\x32" + _varint(size)
        columns.append((len(fixed), size))
        fixed += bytes(size)
    length = len(fixed)
    if length > _ALIKE_BYTES:
        return None
    table = np.empty((count, length), np.uint8)
    table[:] = np.frombuffer(fixed, np.uint8)
    for place, (start, size) in zip(wanted, columns, strict=True):
        first = row * outputs.row_bytes[place]
        data = np.frombuffer(outputs.data[place][first : first + count * size], np.uint8)
        table[:, start : start + size] = data.reshape(count, size)
    block = table.tobytes()
    return [block[start : start + length] for start in range(0, len(block), length)]


def _walk(  # noqa: C901, PLR0911, PLR0912 - a parser on the hot path: calls would cost more than they explain
    message: bytes | memoryview,
) -> tuple[bytes, str, list[memoryview]] | None:
    """Split a message into header bytes, id and raw tensors; None where it is not in the usual form."""
    view = memoryview(message)
    end = len(message)
    position = 0
    head_end = 0
    identity = ""
    id_start = id_end = 0
    data: list[memoryview] = []
    try:
        while position < end:
            tag = message[position]
            if tag & 7 != _LENGTH_DELIMITED or tag > 0x7F:
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
                data.append(view[position:stop])
            elif data:
                return None
            else:
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


@lru_cache(maxsize=512)
def _raw_header(head: bytes) -> Header:
    """Parse a header whose tensors travel raw."""
    request = _from_bytes(head)
    if any(tensor.HasField("contents") for tensor in request.inputs):
        raise InvalidRequest(_MIXED)
    return _header(request, raw=True)


def _parse(message: bytes | memoryview) -> InferenceRequest:
    """Read any ModelInferRequest with protobuf's parser: typed contents, unusual field order."""
    request = _from_bytes(bytes(message))
    if request.raw_input_contents:
        if any(tensor.HasField("contents") for tensor in request.inputs):
            raise InvalidRequest(_MIXED)
        if len(request.raw_input_contents) != len(request.inputs):
            raise InvalidRequest(
                f"raw_input_contents has {len(request.raw_input_contents)} entries for "
                f"{len(request.inputs)} inputs; expected one for each"
            )
        return InferenceRequest(_header(request, raw=True), request.id, list(request.raw_input_contents))
    data = [_typed(tensor) for tensor in request.inputs]
    return InferenceRequest(_header(request, raw=False), request.id, data)


_MIXED = "raw_input_contents and typed contents in one request; expected one or the other"


def _from_bytes(message: bytes) -> ModelInferRequest:
    try:
        return ModelInferRequest.FromString(message)
    except DecodeError as error:
        raise InvalidRequest(f"not a ModelInferRequest: {error}") from error


def _header(request: ModelInferRequest, *, raw: bool) -> Header:
    return Header(
        model=request.model_name,
        version=request.model_version,
        inputs=tuple(InputHeader(tensor.name, tensor.datatype, tuple(tensor.shape)) for tensor in request.inputs),
        outputs=tuple(tensor.name for tensor in request.outputs),
        raw=raw,
        timing=TIMING in request.parameters and request.parameters[TIMING].bool_param,
    )


def _typed(tensor: ModelInferRequest.InferInputTensor) -> bytes:
    """Turn typed contents into the bytes that they would have been raw."""
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
    try:
        return np.array(values, datatype.numpy).tobytes()
    except OverflowError as error:
        raise InvalidRequest(f"input {tensor.name!r} has a value out of {datatype.name}'s range") from error


_Shapes = tuple[tuple[TensorSpec, tuple[int, ...]], ...]


@lru_cache(maxsize=4096)
def _response_head(model: str, version: str, outputs: _Shapes) -> bytes:
    """Serialize a response without its id and its data: for one model, it varies with the rows alone."""
    return _response(model, version, outputs).SerializeToString()


def _response(model: str, version: str, outputs: _Shapes) -> ModelInferResponse:
    return ModelInferResponse(
        model_name=model,
        model_version=version,
        outputs=[
            ModelInferResponse.InferOutputTensor(name=spec.name, datatype=spec.datatype.name, shape=shape)
            for spec, shape in outputs
        ],
    )


def _encode_any(
    request: InferenceRequest,
    model: ModelInfo,
    result: InferenceResult,
    wanted: Sequence[int],
    *,
    typed: bool,
) -> bytes:
    """Write a response with protobuf's own serializer: typed contents, parameters."""
    specs = model.signature.outputs
    response = _response(
        model.name,
        model.version,
        tuple((specs[place], (result.rows, *result.shapes[place])) for place in wanted),
    )
    response.id = request.id
    if request.header.timing:
        response.parameters[QUEUE_US].int64_param = round(result.queue_s * 1e6)
        response.parameters[COMPUTE_US].int64_param = round(result.compute_s * 1e6)
    for tensor, place in zip(response.outputs, wanted, strict=True):
        if typed:
            tensor.contents.CopyFrom(_contents(specs[place].datatype, result.outputs[place]))
        else:
            response.raw_output_contents.append(bytes(result.outputs[place]))
    return response.SerializeToString()


def _contents(datatype: Datatype, data: Buffer) -> InferTensorContents:
    assert datatype.contents is not None
    return InferTensorContents(**{datatype.contents: np.frombuffer(data, datatype.numpy).tolist()})


def _varint(number: int) -> bytes:
    """Encode a length (protobuf's base-128 varint)."""
    if number < 0x80:
        return _ONE_BYTE[number]
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


_ONE_BYTE = tuple(bytes([number]) for number in range(0x80))
