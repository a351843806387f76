"""The Open Inference Protocol in JSON, for callers who have nothing but ``curl``: the body of an infer request.

Tensors are ``{"name", "shape", "datatype", "data"}``; the data may be nested as the shape is, or flat. Both ways:

- BYTES are text; an element that is no UTF-8 is ``{"b64": "..."}``, its bytes in base64, as in TensorFlow Serving's
  JSON. A request may have all of a tensor's elements in base64 and say so in its parameters,
  ``{"content_type": "base64"}``, as in KServe's and MLServer's.
- JSON has neither NaN nor Infinity. In an answer they are the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``,
  as in protobuf's own JSON: every parser reads them, and JavaScript's ``Number``, Python's ``float`` and NumPy make the
  number of them. A request may write them so too, or without the quotes, as Python and TensorFlow Serving do.
- Numbers that the tensor's datatype cannot hold are refused, and never become another number: 300 as UINT8, 1e39 as
  FP32. Only the digits that a float has not are lost.
"""

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from itertools import chain
from math import inf, isfinite, isnan, nan
from typing import Any

import numpy as np

from horngate_protos.datatypes import BYTES, DATATYPES, Datatype
from horngate_protos.open_inference_pb2 import InferParameter, ModelInferRequest, RepositoryModelLoadRequest
from horngate_server.core.codec import Codec, wanted
from horngate_server.core.errors import InvalidRequest
from horngate_server.core.inference import (
    Data,
    InferenceRequest,
    InferenceResult,
    ModelInfo,
    numbers,
    strings,
)
from horngate_server.protocols.open_inference import json_reader
from horngate_server.protocols.open_inference.encode import COMPUTE_US, QUEUE_US, classes, widen
from horngate_server.protocols.open_inference.header import InferHeader, read_header
from horngate_server.protocols.strings import check_count
from horngate_server.protocols.wire import check_shape

PROTOCOL = "open_inference_json"
CONTENT_TYPE = "content_type"
BASE64 = "base64"
"""A tensor's parameter and its value where all of its strings are written in base64; other values mean nothing here."""


def decode_json(body: bytes | bytearray, model: str, version: str) -> InferenceRequest:
    """Read an infer request's body.

    Args:
        body: JSON.
        model: the model's name, from the path.
        version: its version, from the path; empty for the one that serves by default.

    Raises:
        InvalidRequest: it is not such a body, or a tensor's data are not what its datatype and shape say.
    """
    try:
        asked = json_reader.read_json(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from error
    try:
        request = _read(asked, model, version)
    except UnicodeEncodeError as error:  # half a character, which JSON can write and Unicode has not
        raise InvalidRequest(f"the body has a string that is no text: {error}") from error
    if len(body) <= json_reader.WHOLE_BYTES and _MAY_BE_INFINITE.search(body):
        json.loads(body, parse_float=json_reader.finite)
    return request


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
    if header.timing:
        response["parameters"] = {QUEUE_US: round(result.queue_s * 1e6), COMPUTE_US: round(result.compute_s * 1e6)}
    return json.dumps({**response, "outputs": outputs}, allow_nan=False).encode()


def decode_load_json(body: bytes | bytearray, model: str) -> RepositoryModelLoadRequest:
    """Read the body of a request to load or promote a model: nothing, or ``{"parameters": {...}}``.

    Raises:
        InvalidRequest: it is not such a body.
    """
    try:
        return _read_load(json.loads(body or b"{}"), model)
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"the body has a string that is no text: {error}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the body is no JSON: {error}") from error


def _decode(_message: bytes | memoryview) -> InferenceRequest:
    raise AssertionError("the path says half of the request: use decode_json")


JSON = Codec(PROTOCOL, _decode, encode_json, lambda *_: None)

# --- private ------------------------------------------------------------------------------------------

_MISSING = object()
_KNOWN = {each.name: each for each in (*DATATYPES, BYTES) if each.name != "BF16"}
"""BF16 is not taken: JSON's numbers would have to be rounded."""
_NOT_FINITE: Mapping[str, float] = {"NaN": nan, "Infinity": inf, "-Infinity": -inf}


_MAY_BE_INFINITE = re.compile(rb"[eE]\+?0*[1-9][0-9]{2}|[0-9]{200}")
"""What a number beyond 64 bits has, wherever it stands: an exponent of three figures, or very many figures."""


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


def _read_load(asked: Any, model: str) -> RepositoryModelLoadRequest:
    request = RepositoryModelLoadRequest(model_name=model)
    for name, value in _get(asked, "the body", "parameters", dict, {}).items():
        match value:
            case int() if not isinstance(value, bool) and 0 <= value < 1 << 63:
                request.parameters[name].int64_param = value
            case str():
                request.parameters[name].string_param = value
            case _:
                raise InvalidRequest(f"the body: parameter {name!r} is {_kind(value)}; expected a number or a string")
    return request


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
    if isinstance(value, np.ndarray):
        value = value.tolist()[0]
    return _KINDS.get(type(value)) or json.dumps(value)[:40]


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
    return _numbers(at, datatype, values)


def _numbers(at: str, datatype: Datatype, values: list[Any]) -> bytes:
    """Return numbers as they lie in memory, none of them changed by more than a float's rounding."""
    kind = datatype.numpy.kind
    types = {type(value) for value in values}
    if np.ndarray in types:
        return b"".join(
            _array(at, datatype, each) if type(each) is np.ndarray else _numbers(at, datatype, [each])
            for each in values
        )
    if kind == "f" and str in types:
        values = [_NOT_FINITE.get(value, value) if type(value) is str else value for value in values]
        types = {type(value) for value in values}
    if not types <= _TYPES[kind]:
        wrong = next(value for value in values if type(value) not in _TYPES[kind])
        raise InvalidRequest(f"{at} has {_kind(wrong)} among its data, which is not {datatype.name}'s")
    try:
        array = np.array(values, np.float64 if kind == "f" else datatype.numpy)
        with np.errstate(over="raise"):
            return array.astype(datatype.numpy, copy=False).tobytes()
    except (OverflowError, FloatingPointError) as error:
        raise InvalidRequest(
            f"{at} has {_outside(datatype, values)} among its data, which {datatype.name} cannot hold"
        ) from error


def _array(at: str, datatype: Datatype, array: np.ndarray) -> bytes:
    """Return numbers that were read as an array; what does not simply fit is looked at one by one."""
    kind = datatype.numpy
    if kind.kind == "f":
        array = array.astype(np.float64)
    elif not np.can_cast(array.dtype, kind):
        return _numbers(at, datatype, array.tolist())
    try:
        with np.errstate(over="raise"):
            return array.astype(kind).tobytes()
    except FloatingPointError:
        return _numbers(at, datatype, array.tolist())


def _outside(datatype: Datatype, values: list[Any]) -> str:
    """Return the first number that a datatype cannot hold."""
    low: float
    high: float
    if datatype.numpy.kind == "f":
        low, high = float(np.finfo(datatype.numpy.name).min), float(np.finfo(datatype.numpy.name).max)
    else:
        low, high = np.iinfo(datatype.numpy.name).min, np.iinfo(datatype.numpy.name).max
    return next(str(each)[:40] for each in values if -inf < each < low or high < each < inf)


def _string(at: str, value: Any, *, encoded: bool) -> bytes:
    """Return an element of BYTES."""
    match value:
        case str() if not encoded:
            return value.encode()
        case str(content):
            pass
        case {"b64": str(content), **rest} if not rest:
            pass
        case _:
            raise InvalidRequest(
                f'{at} has {_kind(value)} among its data; expected strings, or {{"b64": "..."}} for bytes'
            )
    try:
        return b64decode(content, validate=True)
    except ValueError as error:
        raise InvalidRequest(f"{at} has {content[:40]!r} among its data; expected base64: {error}") from error


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
    return [value if isfinite(value) else _written(value) for value in array.tolist()]


def _written(value: float) -> str:
    return "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _text(element: bytes) -> Any:
    try:
        return element.decode()
    except UnicodeDecodeError:
        return {"b64": b64encode(element).decode()}


_TYPES: Mapping[str, set[type]] = {"b": {bool}, "f": {int, float}, "i": {int}, "u": {int}}
"""By NumPy's kind of a datatype, what JSON has for its values."""


def _flat(at: str, data: list[Any]) -> tuple[tuple[int, ...], list[Any]]:
    """Return the axes of nested lists, and their values in one list."""
    axes = [_length(data)]
    while data and any(isinstance(each, list) for each in data):
        lengths = {_length(each) if isinstance(each, list) else -1 for each in data}
        if len(lengths) > 1:
            raise InvalidRequest(f"{at}: data in lists of unequal lengths; expected them as the shape says")
        axes.append(lengths.pop())
        data = list(chain.from_iterable(data))
    return tuple(axes), data


def _length(data: list[Any]) -> int:
    """Count the values of a list, whose arrays are many."""
    return sum(len(each) if type(each) is np.ndarray else 1 for each in data)
