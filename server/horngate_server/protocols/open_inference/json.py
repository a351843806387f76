"""The Open Inference Protocol over HTTP: bodies of infer requests and answers, JSON with tensors in it or behind it.

Tensors are ``{"name", "shape", "datatype", "data"}``; the data may be nested as the shape is, or flat (`json_tensors`
says how elements are written). A request may have all of a tensor's strings in base64 and say so in its parameters,
``{"content_type": "base64"}``, as in KServe's and MLServer's.

By the binary tensor extension, a tensor has the parameter ``binary_data_size`` instead of data: so many bytes, raw,
come behind the JSON, one tensor's behind another's. An output comes so where the request asks for it: by its parameter
``binary_data``, or by the request's ``binary_data_output`` for all that do not say.

JSON has neither NaN nor Infinity. In an answer they are the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``, as
in protobuf's own JSON: every parser reads them, and JavaScript's ``Number``, Python's ``float`` and NumPy make the
number of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from math import prod
from typing import Any

from horngate_protos.datatypes import BYTES
from horngate_protos.open_inference_pb2 import (
    InferParameter,
    ModelInferRequest,
    RepositoryIndexRequest,
    RepositoryModelLoadRequest,
)
from horngate_server.core.codec import Codec, wanted
from horngate_server.core.errors import InvalidRequest
from horngate_server.core.inference import Data, InferenceRequest, InferenceResult, ModelInfo, numbers
from horngate_server.protocols import json_tensors
from horngate_server.protocols.json_reader import read_json, whole_characters
from horngate_server.protocols.json_tensors import kind_of
from horngate_server.protocols.open_inference.encode import COMPUTE_US, QUEUE_US, classes, raw
from horngate_server.protocols.open_inference.header import InferHeader, read_header
from horngate_server.protocols.strings import check_count, split
from horngate_server.protocols.wire import check_shape

PROTOCOL = "open_inference_json"
CONTENT_TYPE = "content_type"
BASE64 = "base64"
"""A tensor's parameter and its value where all of its strings are written in base64; other values mean nothing here."""


BINARY_SIZE = "binary_data_size"
BINARY = "binary_data"
BINARY_OUTPUT = "binary_data_output"


@dataclass(frozen=True, slots=True, eq=False)
class JsonHeader(InferHeader):
    """An `InferHeader` that knows which outputs come behind the JSON.

    Attributes:
        binary: per output in ``outputs``; where there are none, one value for all.
    """

    binary: tuple[bool, ...] = (False,)


class JsonWithTensors(bytes):
    """An answer whose tensors come behind its JSON.

    Attributes:
        json_bytes: how long the JSON is.
    """

    json_bytes: int


def decode_json(body: bytes | bytearray, model: str, version: str, json_bytes: int | None = None) -> InferenceRequest:
    """Read an infer request's body; raw tensors are views of it.

    Args:
        body: JSON, and what comes behind it.
        model: the model's name, from the path.
        version: its version, from the path; empty for the one that serves by default.
        json_bytes: how long the JSON is; None where there is nothing else.

    Raises:
        InvalidRequest: it is not such a body, or a tensor's data are not what its datatype and shape say.
    """
    if json_bytes is not None and json_bytes > len(body):
        raise InvalidRequest(f"a body of {len(body)} bytes; expected at least the {json_bytes} of its JSON")
    text = body if json_bytes is None else memoryview(body)[:json_bytes]
    behind = _Behind(memoryview(body)[len(text) :])
    with whole_characters():
        request = _read(read_json(text, _DATA), model, version, behind)
    behind.check_end()
    return request


def encode_json(request: InferenceRequest, model: ModelInfo, result: InferenceResult) -> bytes:
    """Write an infer response's body; data are flat, in row-major order (`Codec.encode`)."""
    header = request.header
    assert isinstance(header, JsonHeader)
    outputs, behind = [], []
    places = wanted(header, model.signature)
    binary = header.binary if header.outputs else header.binary * len(places)
    for place, top, is_binary in zip(places, header.top or (0,) * len(places), binary, strict=True):
        spec, data, shape = model.signature.outputs[place], result.outputs[place], result.shapes[place]
        datatype = spec.datatype
        if top:
            data, shape = classes(spec, numbers(data), shape, top, model.labels)
            datatype = BYTES
        output: dict[str, Any] = {"name": spec.name, "datatype": datatype.name, "shape": shape}
        if is_binary:
            behind.append(raw(data))
            output["parameters"] = {BINARY_SIZE: len(behind[-1])}
        elif datatype is BYTES:
            output["data"] = json_tensors.texts(data)
        else:
            values = json_tensors.array(datatype, data)
            output["data"] = values if json_tensors.is_finite(values) else json_tensors.spelled(values)
        outputs.append(output)
    response: dict[str, Any] = {"model_name": model.name, "model_version": model.version}
    if request.id:
        response["id"] = request.id
    if header.timing:
        response["parameters"] = {QUEUE_US: round(result.queue_s * 1e6), COMPUTE_US: round(result.compute_s * 1e6)}
    json = json_tensors.dump({**response, "outputs": outputs})
    if not behind:
        return json
    answer = JsonWithTensors(b"".join([json, *behind]))
    answer.json_bytes = len(json)
    return answer


def decode_load_json(body: bytes | bytearray, model: str) -> RepositoryModelLoadRequest:
    """Read the body of a request to load or promote a model: nothing, or ``{"parameters": {...}}``.

    Raises:
        InvalidRequest: it is not such a body.
    """
    with whole_characters():
        return _read_load(read_json(body or b"{}", ()), model)


def decode_index_json(body: bytes | bytearray) -> RepositoryIndexRequest:
    """Read the body of a request for the index: nothing, or ``{"ready": true}`` for what is ready alone.

    Raises:
        InvalidRequest: it is not such a body.
    """
    return RepositoryIndexRequest(ready=_get(read_json(body or b"{}", ()), "the body", "ready", bool, default=False))


def _decode(_message: bytes | memoryview) -> InferenceRequest:
    raise AssertionError("the path says half of the request: use decode_json")


JSON = Codec(PROTOCOL, _decode, encode_json, lambda *_: None)

# --- private ------------------------------------------------------------------------------------------

_MISSING = object()
_DATA = frozenset(["data"])
_REMEMBERED_BYTES = 1024
"""A remembered header is objects of up to fifty times its bytes."""
_KINDS: Mapping[type, str] = {str: "a string", list: "an array", dict: "an object", bool: "true or false"}


class _Behind:
    """The bytes behind the JSON, from which one tensor after the other is taken."""

    def __init__(self, left: memoryview) -> None:
        self._left = left

    def take(self, at: str, size: int) -> memoryview:
        if not 0 <= size <= len(self._left):
            raise InvalidRequest(
                f"{at}: {BINARY_SIZE} {size}; expected at most the {len(self._left)} bytes that are left behind the "
                "JSON (its length is in Inference-Header-Content-Length)"
            )
        taken, self._left = self._left[:size], self._left[size:]
        return taken

    def check_end(self) -> None:
        if self._left:
            raise InvalidRequest(
                f"{len(self._left)} bytes behind the JSON and its tensors; expected none: inputs say how many are "
                f"theirs by {BINARY_SIZE}"
            )


def _read(asked: Any, model: str, version: str, behind: _Behind) -> InferenceRequest:
    """Read what the body says."""
    request = ModelInferRequest(model_name=model, model_version=version)
    identity = _get(asked, "the body", "id", str, "")
    identity.encode()
    _parameters(request.parameters, asked, "the body")
    data = []
    for tensor in _get(asked, "the body", "inputs", list):
        name = _get(tensor, "an input", "name", str)
        at = f"input {name!r}"
        shape = _get(tensor, at, "shape", list)
        if not all(isinstance(axis, int) and not isinstance(axis, bool) for axis in shape):
            raise InvalidRequest(f"{at}: shape {str(shape)[:80]}; expected whole numbers")
        check_shape(name, shape)
        given = request.inputs.add(name=name, datatype=_get(tensor, at, "datatype", str), shape=shape)
        _parameters(given.parameters, tensor, at)
        data.append(_elements(at, tensor, given, behind))
    for output in _get(asked, "the body", "outputs", list, []):
        name = _get(output, "an output", "name", str)
        _parameters(request.outputs.add(name=name).parameters, output, f"output {name!r}")
    said = request.SerializeToString()
    header = _header(said) if len(said) <= _REMEMBERED_BYTES else _header.__wrapped__(said)
    return InferenceRequest(header, identity, data)


@lru_cache(maxsize=256)
def _header(said: bytes) -> JsonHeader:
    """Return what a request says beside its id and data: callers repeat themselves, and one object is checked once."""
    request = ModelInferRequest.FromString(said)
    header = read_header(request, raw=False)
    everything = _flag(request.parameters, BINARY_OUTPUT, default=False)
    binary = tuple(_flag(output.parameters, BINARY, default=everything) for output in request.outputs)
    common = {each.name: getattr(header, each.name) for each in fields(header)}
    return JsonHeader(**common, binary=binary or (everything,))


def _elements(at: str, tensor: Any, given: ModelInferRequest.InferInputTensor, behind: _Behind) -> Data:
    """Return a tensor's elements, from its data or from behind the JSON."""
    shape = tuple(given.shape)
    datatype = json_tensors.KNOWN.get(given.datatype)
    parameters = given.parameters
    if BINARY_SIZE in parameters:
        if "data" in tensor:
            raise InvalidRequest(f"{at} has both data and {BINARY_SIZE}; expected one of them")
        found = behind.take(at, parameters[BINARY_SIZE].int64_param)
        if datatype is not BYTES:
            return found
        check_count(at, prod(shape))
        return split(given.name, found, shape, prod(shape))
    values = _get(tensor, at, "data", list)
    if datatype is None:
        raise InvalidRequest(
            f"{at} has datatype {given.datatype[:40]!r}; expected one of {', '.join(json_tensors.KNOWN)}"
        )
    axes, values = json_tensors.flat(at, values)
    if len(axes) > 1 and axes != shape:
        raise InvalidRequest(f"{at}: data nested as {list(axes)}; expected {list(shape)}, or flat")
    encoded = CONTENT_TYPE in parameters and parameters[CONTENT_TYPE].string_param == BASE64
    return json_tensors.elements(at, datatype, values, encoded=encoded)


def _flag(parameters: Mapping[str, InferParameter], name: str, *, default: bool) -> bool:
    return parameters[name].bool_param if name in parameters else default


def _read_load(asked: Any, model: str) -> RepositoryModelLoadRequest:
    request = RepositoryModelLoadRequest(model_name=model)
    for name, value in _get(asked, "the body", "parameters", dict, {}).items():
        match value:
            case int() if not isinstance(value, bool) and 0 <= value < 1 << 63:
                request.parameters[name].int64_param = value
            case str():
                request.parameters[name].string_param = value
            case _:
                raise InvalidRequest(f"the body: parameter {name!r} is {kind_of(value)}; expected a number or a string")
    return request


def _get(place: Any, at: str, key: str, kind: type, default: Any = _MISSING) -> Any:
    """Return a value of the kind that it must have."""
    if not isinstance(place, dict):
        raise InvalidRequest(f"{at} is {kind_of(place)}; expected an object")
    value = place.get(key, default)
    if value is _MISSING:
        raise InvalidRequest(f"{at} has no {key!r}")
    if not isinstance(value, kind):
        raise InvalidRequest(f"{at}: {key!r} is {kind_of(value)}; expected {_KINDS[kind]}")
    return value


def _parameters(into: Any, place: Any, at: str) -> None:
    """Take JSON's values as the parameters that they would be in protobuf."""
    for name, value in _get(place, at, "parameters", dict, {}).items():
        match value:
            case bool():
                parameter = InferParameter(bool_param=value)
            case int() if -(1 << 63) <= value < 1 << 63:
                parameter = InferParameter(int64_param=value)
            case float():
                parameter = InferParameter(double_param=value)
            case str():
                parameter = InferParameter(string_param=value)
            case _:
                raise InvalidRequest(f"{at}: parameter {name!r} is {kind_of(value)}; expected a bool, number or string")
        into[name].CopyFrom(parameter)
