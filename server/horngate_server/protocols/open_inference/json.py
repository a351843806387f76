"""The Open Inference Protocol in JSON, for callers who have nothing but ``curl``: the body of an infer request.

Tensors are ``{"name", "shape", "datatype", "data"}``; the data may be nested as the shape is, or flat.
"""

import json
from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np

from horngate_protos.datatypes import BY_NAME, Datatype
from horngate_protos.open_inference_pb2 import InferParameter, ModelInferRequest
from horngate_server.errors import InvalidRequest
from horngate_server.protocols import Codec, wanted
from horngate_server.protocols.open_inference.header import InferHeader, read_header
from horngate_server.protocols.open_inference.response import classes
from horngate_server.request import InferenceRequest, InferenceResult, ModelInfo, numbers

PROTOCOL = "open_inference_json"


def decode_json(body: bytes, model: str, version: str) -> InferenceRequest:
    """Read an infer request's body.

    Args:
        body: JSON.
        model: the model's name, from the path.
        version: its version, from the path; empty for the one that serves by default.

    Raises:
        InvalidRequest: it is not such a body, or a tensor's data are not what its datatype and shape say.
    """
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from error
    try:
        return _read(asked, model, version)
    except UnicodeEncodeError as error:  # half a character, which JSON can write and Unicode has not
        raise InvalidRequest(f"the body has a string that is no text: {error}") from error


def encode_json(request: InferenceRequest, model: ModelInfo, result: InferenceResult) -> bytes:
    """Write an infer response's body; data are flat, in row-major order (`Codec.encode`)."""
    header = request.header
    assert isinstance(header, InferHeader)
    outputs = []
    places = wanted(header, model.signature)
    for place, top in zip(places, header.top or (0,) * len(places), strict=True):
        spec, data = model.signature.outputs[place], result.outputs[place]
        name, shape = spec.datatype.name, list(result.shapes[place])
        if top:
            values: list[Any] = [
                each.decode() for each in classes(spec.datatype, numbers(data), result.rows, top, model.labels)
            ]
            name, shape = "BYTES", [result.rows, len(values) // result.rows]
        else:
            values = np.frombuffer(numbers(data), spec.datatype.numpy).tolist()
        outputs.append({"name": spec.name, "datatype": name, "shape": shape, "data": values})
    response: dict[str, Any] = {"model_name": model.name, "model_version": model.version}
    if request.id:
        response["id"] = request.id
    return json.dumps({**response, "outputs": outputs}).encode()


def _decode(_message: bytes | memoryview) -> InferenceRequest:
    raise AssertionError("the path says half of the request: use decode_json")


JSON = Codec(PROTOCOL, _decode, encode_json, lambda *_: None)

# --- private ------------------------------------------------------------------------------------------

_MISSING = object()


def _read(asked: Any, model: str, version: str) -> InferenceRequest:
    """Read what the body says."""
    request = ModelInferRequest(model_name=model, model_version=version, id=_get(asked, "the body", "id", str, ""))
    _parameters(request.parameters, asked, "the body")
    data = []
    for tensor in _get(asked, "the body", "inputs", list):
        name = _get(tensor, "an input", "name", str)
        at = f"input {name!r}"
        shape = _get(tensor, at, "shape", list)
        if not all(isinstance(axis, int) and not isinstance(axis, bool) and -1 <= axis < 1 << 63 for axis in shape):
            raise InvalidRequest(f"{at}: shape {shape}; expected whole numbers")
        given = request.inputs.add(name=name, datatype=_get(tensor, at, "datatype", str), shape=shape)
        _parameters(given.parameters, tensor, at)
        data.append(_elements(at, given.datatype, tuple(shape), _get(tensor, at, "data", list)))
    for output in _get(asked, "the body", "outputs", list, []):
        name = _get(output, "an output", "name", str)
        _parameters(request.outputs.add(name=name).parameters, output, f"output {name!r}")
    return InferenceRequest(read_header(request, raw=False), request.id, data)


def _get(place: Any, at: str, key: str, kind: type, default: Any = _MISSING) -> Any:
    """Return a value of the kind that it must have."""
    if not isinstance(place, dict):
        raise InvalidRequest(f"{at} is {_kind(place)}; expected an object")
    value = place.get(key, default)
    if value is _MISSING:
        raise InvalidRequest(f"{at} has no {key!r}")
    if not isinstance(value, kind):
        raise InvalidRequest(f"{at}: {key!r} is {_kind(value)}; expected {_KINDS[kind]}")
    return value


_KINDS: Mapping[type, str] = {str: "a string", list: "an array", dict: "an object"}


def _kind(value: object) -> str:
    return _KINDS.get(type(value), repr(value)[:40])


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
                raise InvalidRequest(f"{at}: parameter {name!r} is {_kind(value)}; expected a bool, number or string")
        into[name].CopyFrom(parameter)


def _elements(at: str, name: str, shape: tuple[int, ...], data: list[Any]) -> bytes:
    """Return the data's bytes."""
    datatype = BY_NAME.get(name)
    if datatype is None or name == "BF16":
        raise InvalidRequest(f"{at} has datatype {name!r}; expected one of {', '.join(BY_NAME)}, without BF16 in JSON")
    axes, values = _flat(at, data)
    if len(axes) > 1 and axes != shape:
        raise InvalidRequest(f"{at}: data nested as {list(axes)}; expected {list(shape)}, or flat")
    if not {type(value) for value in values} <= _TYPES[datatype.numpy.kind] or not _in_range(datatype, values):
        raise InvalidRequest(f"{at} has values that are not {name}'s: {str(values[:8])[:80]}")
    return np.array(values, datatype.numpy).tobytes()


_TYPES: Mapping[str, set[type]] = {"b": {bool}, "f": {int, float}, "i": {int}, "u": {int}}
"""By NumPy's kind of a datatype, what JSON has for its values."""


def _flat(at: str, data: list[Any]) -> tuple[tuple[int, ...], list[Any]]:
    """Return the axes of nested lists, and their values in one list."""
    axes = [len(data)]
    while data and any(isinstance(each, list) for each in data):
        lengths = {len(each) if isinstance(each, list) else -1 for each in data}
        if len(lengths) > 1:
            raise InvalidRequest(f"{at}: data in lists of unequal lengths; expected them as the shape says")
        axes.append(lengths.pop())
        data = list(chain.from_iterable(data))
    return tuple(axes), data


def _in_range(datatype: Datatype, values: list[int]) -> bool:
    """Whether numbers are within the datatype's limits."""
    kind = datatype.numpy.kind
    if not values or kind == "b":
        return True
    limits = np.finfo(np.float64) if kind == "f" else np.iinfo(datatype.numpy.name)
    return bool(limits.min <= min(values) and max(values) <= limits.max)
