"""The Open Inference Protocol in JSON, for callers who have nothing but ``curl``: the body of an infer request.

Tensors are ``{"name", "shape", "datatype", "data"}``; the data may be nested as the shape is, or flat. Both ways:

- BYTES are text; an element that is no UTF-8 is ``{"b64": "..."}``, its bytes in base64, as in TensorFlow Serving's
  JSON. A request may have all of a tensor's elements in base64 and say so in its parameters,
  ``{"content_type": "base64"}``, as in KServe's and MLServer's.
- JSON has neither NaN nor Infinity. In an answer each of them is ``null``, as JavaScript writes them too; who must tell
  them apart asks over gRPC. A request that has them, or a number that is one in the tensor's datatype (1e39 as FP32),
  is refused.
"""

import binascii
import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from itertools import chain
from math import isfinite
from typing import Any, NoReturn

import numpy as np

from horngate_protos.datatypes import BYTES, DATATYPES, Datatype
from horngate_protos.open_inference_pb2 import InferParameter, ModelInferRequest
from horngate_server.errors import InvalidRequest
from horngate_server.protocols import Codec, wanted
from horngate_server.protocols.open_inference.header import InferHeader, read_header
from horngate_server.protocols.open_inference.response import classes, widen
from horngate_server.protocols.strings import check_count
from horngate_server.protocols.wire import check_shape
from horngate_server.request import Data, InferenceRequest, InferenceResult, ModelInfo, numbers, strings

PROTOCOL = "open_inference_json"
CONTENT_TYPE = "content_type"
"""A tensor's parameter that says how its strings are written; whatever but this is left to the model:"""
BASE64 = "base64"


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
        asked = json.loads(body, parse_constant=_no_number)
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
        spec, data, shape = model.signature.outputs[place], result.outputs[place], result.shapes[place]
        datatype = spec.datatype
        if top:
            data, shape = classes(spec, numbers(data), shape, top, model.labels)
            datatype = BYTES
        values = _values(datatype, data)
        outputs.append({"name": spec.name, "datatype": datatype.name, "shape": list(shape), "data": values})
    response: dict[str, Any] = {"model_name": model.name, "model_version": model.version}
    if request.id:
        response["id"] = request.id
    return json.dumps({**response, "outputs": outputs}, allow_nan=False).encode()


def _decode(_message: bytes | memoryview) -> InferenceRequest:
    raise AssertionError("the path says half of the request: use decode_json")


JSON = Codec(PROTOCOL, _decode, encode_json, lambda *_: None)

# --- private ------------------------------------------------------------------------------------------

_MISSING = object()
_KNOWN = {each.name: each for each in (*DATATYPES, BYTES) if each.name != "BF16"}
"""BF16 is not taken: JSON's numbers would have to be rounded."""


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON; numbers are finite")


def _read(asked: Any, model: str, version: str) -> InferenceRequest:
    """Read what the body says."""
    request = ModelInferRequest(model_name=model, model_version=version, id=_get(asked, "the body", "id", str, ""))
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
        encoded = given.parameters[CONTENT_TYPE].string_param == BASE64 if CONTENT_TYPE in given.parameters else False
        data.append(_elements(at, given.datatype, tuple(shape), _get(tensor, at, "data", list), encoded=encoded))
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


def _elements(at: str, name: str, shape: tuple[int, ...], data: list[Any], *, encoded: bool) -> Data:
    """Return the data's elements; ``encoded``: strings are base64."""
    datatype = _KNOWN.get(name)
    if datatype is None:
        raise InvalidRequest(f"{at} has datatype {name[:40]!r}; expected one of {', '.join(_KNOWN)}")
    axes, values = _flat(at, data)
    if len(axes) > 1 and axes != shape:
        raise InvalidRequest(f"{at}: data nested as {list(axes)}; expected {list(shape)}, or flat")
    if datatype is BYTES:
        check_count(at, len(values))
        return [_string(at, value, encoded=encoded) for value in values]
    if not {type(value) for value in values} <= _TYPES[datatype.numpy.kind]:
        raise _out_of_range(at, name, values)
    return _numbers(at, datatype, values)


def _numbers(at: str, datatype: Datatype, values: list[Any]) -> bytes:
    """Return numbers as they lie in memory, none of them changed by more than a float's rounding."""
    kind = datatype.numpy.kind
    if not values or kind == "b":
        return np.array(values, datatype.numpy).tobytes()
    limits = np.finfo(np.float64) if kind == "f" else np.iinfo(datatype.numpy.name)
    if not (limits.min <= min(values) and max(values) <= limits.max):
        raise _out_of_range(at, datatype.name, values)
    with np.errstate(over="ignore"):
        array = np.array(values, datatype.numpy)
    if kind == "f" and not np.isfinite(array).all():
        raise _out_of_range(at, datatype.name, values)
    return array.tobytes()


def _out_of_range(at: str, name: str, values: list[Any]) -> InvalidRequest:
    return InvalidRequest(f"{at} has values that are not {name}'s: {str(values[:8])[:80]}")


def _string(at: str, value: Any, *, encoded: bool) -> bytes:
    """Return an element of BYTES."""
    try:
        match value:
            case str():
                return b64decode(value, validate=True) if encoded else value.encode()
            case {"b64": str(content), **rest} if not rest:
                return b64decode(content, validate=True)
    except binascii.Error as error:
        raise InvalidRequest(f"{at} has a string that is no base64: {error}: {str(value)[:40]!r}") from error
    raise InvalidRequest(f'{at} has {_kind(value)} among its data; expected strings, or {{"b64": "..."}} for bytes')


def _values(datatype: Datatype, data: Data) -> list[Any]:
    """Return an output's elements as JSON has them."""
    if datatype is BYTES:
        return [_text(each) for each in strings(data)]
    array = np.frombuffer(numbers(data), datatype.numpy)
    if datatype.name == "BF16":
        array = widen(array)
    if array.dtype.kind != "f" or np.isfinite(array).all():
        values: list[Any] = array.tolist()
        return values
    return [value if isfinite(value) else None for value in array.tolist()]


def _text(element: bytes) -> Any:
    try:
        return element.decode()
    except UnicodeDecodeError:
        return {"b64": b64encode(element).decode()}


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
