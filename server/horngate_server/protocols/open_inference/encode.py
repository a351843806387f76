"""ModelInferResponse: a result to bytes."""

from collections.abc import Sequence
from functools import lru_cache
from math import prod

import numpy as np

from horngate_protos.datatypes import BYTES, Datatype
from horngate_protos.open_inference_pb2 import InferTensorContents, ModelInferResponse
from horngate_protos.wire import varint
from horngate_server.core.codec import Template, wanted
from horngate_server.core.inference import (
    Buffer,
    Data,
    Header,
    InferenceRequest,
    InferenceResult,
    ModelInfo,
    Outputs,
    numbers,
    strings,
)
from horngate_server.core.signature import FREE, TensorSpec
from horngate_server.protocols.json_tensors import widen
from horngate_server.protocols.open_inference.header import InferHeader
from horngate_server.protocols.strings import pack

QUEUE_US = "horngate_queue_us"
COMPUTE_US = "horngate_compute_us"
FINAL = "triton_final_response"


def template(header: Header, model: ModelInfo, rows: int, outputs: Outputs) -> Template | None:
    """Write what raw answers without an id have in common (`Codec.template`)."""
    assert isinstance(header, InferHeader)
    if not _is_plain(header):
        return None
    places = wanted(header, model.signature)
    fixed = _response_head(model.name, model.version, _shapes(model, places, outputs.shapes_of(rows)))
    columns = []
    for place in places:
        size = rows * (outputs.row_sizes[place] or 0)
        fixed += b"\x32" + varint(size)
        columns.append((place, len(fixed)))
        fixed += bytes(size)
    return Template(fixed, columns)


def encode(request: InferenceRequest, model: ModelInfo, result: InferenceResult) -> bytes:
    """Write a ModelInferResponse: raw where the request was raw, typed where it was typed (`Codec.encode`)."""
    header = request.header
    assert isinstance(header, InferHeader)
    places = wanted(header, model.signature)
    if not _is_plain(header):
        return _encode_any(request, header, model, result, places)
    parts: list[Buffer] = [_response_head(model.name, model.version, _shapes(model, places, result.shapes))]
    if request.id:
        identity = request.id.encode()
        parts += (b"\x1a", varint(len(identity)), identity)
    for place in places:
        output = raw(result.outputs[place])
        parts += (b"\x32", varint(len(output)), output)
    return b"".join(parts)


def classes(
    spec: TensorSpec, data: Buffer, shape: tuple[int, ...], top: int, labels: Sequence[str]
) -> tuple[list[bytes], tuple[int, int]]:
    """Return the highest values of each row of an output, and the shape [rows, classes] of the tensor of them.

    The first axis counts rows; an output without one, a scalar or a vector of a fixed length, is a single row.

    Args:
        spec: the output; not BYTES and not complex.
        data: its elements.
        shape: all of its axes.
        top: how many values of a row are wanted, at least 1.
        labels: of the classes.

    Returns:
        Strings ``value:index[:label]``, the highest first, equals by index.
    """
    in_rows = len(shape) > 1 or spec.shape == (FREE,)
    rows, width = (shape[0], prod(shape[1:])) if in_rows and shape else (1, prod(shape))
    values = np.frombuffer(data, spec.datatype.numpy).reshape(rows, width)
    if spec.datatype.name == "BF16":
        values = widen(values)
    written = "{:f}:{}" if values.dtype.kind == "f" else "{:d}:{}"
    found = []
    for row in values:
        for index in np.argsort(-row.astype(np.float64), kind="stable")[:top].tolist():
            label = f":{labels[index]}" if index < len(labels) else ""
            found.append((written.format(row[index].item(), index) + label).encode())
    return found, (rows, min(top, width))


# --- private ------------------------------------------------------------------------------------------

_Shapes = tuple[tuple[TensorSpec, tuple[int, ...]], ...]


def _is_plain(header: InferHeader) -> bool:
    """Whether the answer holds nothing but the outputs as they are, raw."""
    return header.raw and not (header.timing or header.final or header.top)


def _shapes(model: ModelInfo, places: Sequence[int], shapes: Sequence[tuple[int, ...]]) -> _Shapes:
    return tuple((model.signature.outputs[place], shapes[place]) for place in places)


@lru_cache(maxsize=4096)
def _response_head(model: str, version: str, outputs: _Shapes) -> bytes:
    """Serialize a response without its id and its data: for one model, it varies with the rows alone."""
    return ModelInferResponse(
        model_name=model,
        model_version=version,
        outputs=[
            ModelInferResponse.InferOutputTensor(name=spec.name, datatype=spec.datatype.name, shape=shape)
            for spec, shape in outputs
        ],
    ).SerializeToString()


def _encode_any(
    request: InferenceRequest, header: InferHeader, model: ModelInfo, result: InferenceResult, places: Sequence[int]
) -> bytes:
    """Write a response with protobuf's own serializer: typed contents, classes, parameters."""
    shapes = _shapes(model, places, result.shapes)
    response = ModelInferResponse.FromString(_response_head(model.name, model.version, shapes))
    response.id = request.id
    if header.timing:
        response.parameters[QUEUE_US].int64_param = round(result.queue_s * 1e6)
        response.parameters[COMPUTE_US].int64_param = round(result.compute_s * 1e6)
    if header.final:
        response.parameters[FINAL].bool_param = True
    tops = header.top or (0,) * len(places)
    typed = not header.raw and all(top or spec.datatype.contents for (spec, _), top in zip(shapes, tops, strict=True))
    for tensor, (spec, shape), place, top in zip(response.outputs, shapes, places, tops, strict=True):
        data = result.outputs[place]
        datatype = spec.datatype
        if top:
            data, tensor.shape[:] = classes(spec, numbers(data), shape, top, model.labels)
            datatype = BYTES
            tensor.datatype = datatype.name
        if typed:
            tensor.contents.CopyFrom(_contents(datatype, data))
        else:
            response.raw_output_contents.append(bytes(raw(data)))
    return response.SerializeToString()


def raw(data: Data) -> Buffer:
    """Return a tensor's elements as they travel raw."""
    return pack(data) if isinstance(data, list) else data


def _contents(datatype: Datatype, data: Data) -> InferTensorContents:
    assert datatype.contents is not None
    if datatype is BYTES:
        return InferTensorContents(bytes_contents=strings(data))
    return InferTensorContents(**{datatype.contents: np.frombuffer(numbers(data), datatype.numpy).tolist()})
