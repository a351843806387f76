"""TensorFlow Serving's REST API: the bodies of predict, classify and regress, and of their answers.

Predict comes in rows, ``{"instances": [...]}``, a value or an object of named values for each, or in columns,
``{"inputs": ...}``, a tensor or an object of named ones; the answer comes as the request did, in ``predictions`` or
``outputs``. A request says neither types nor shapes: types are the signature's, shapes are how the lists are nested.

As TensorFlow Serving does, answers write ``NaN``, ``Infinity`` and ``-Infinity`` bare, and an output of strings whose
name ends with ``_bytes`` in base64. An element of other outputs that is no UTF-8 is base64, too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from horngate_protos.datatypes import BYTES, COMPLEX, tensorflow_name
from horngate_protos.tensorflow_pb2 import Example, Feature
from horngate_protos.tensorflow_serving_pb2 import ClassificationResponse, RegressionResponse
from horngate_server.core.codec import Codec
from horngate_server.core.errors import InvalidRequest
from horngate_server.core.inference import Data, InferenceRequest, InferenceResult, InputHeader, ModelInfo, strings
from horngate_server.core.signature import Signature, TensorSpec
from horngate_server.protocols import examples, json_tensors
from horngate_server.protocols.examples import ExamplesHeader
from horngate_server.protocols.features import Rows
from horngate_server.protocols.json_reader import EveryName, read_json, whole_characters
from horngate_server.protocols.json_tensors import kind_of
from horngate_server.protocols.model_spec import Asked
from horngate_server.protocols.tensorflow_serving import PredictHeader
from horngate_server.protocols.wire import check_shape

PROTOCOL = "tensorflow_serving_json"
BYTES_SUFFIX = "_bytes"
"""How names of outputs end whose strings are written in base64."""
B64 = "b64"


@dataclass(frozen=True, slots=True, eq=False)
class JsonPredictHeader(PredictHeader):
    """A `PredictHeader` that knows how its answer is written.

    Attributes:
        in_rows: by row, as the request was; otherwise by output.
    """

    in_rows: bool = False

    def check(self, signature: Signature) -> None:
        """Refuse what JSON cannot carry of a signature."""
        for spec in (*signature.inputs, *signature.outputs):
            if spec.datatype in COMPLEX:
                raise InvalidRequest(
                    f"{spec.name!r} is {tensorflow_name(spec.datatype.tensorflow)}, which JSON has no values for; "
                    "expected Predict by gRPC"
                )
        PredictHeader.check(self, signature)  # no super(): a dataclass with slots is another class than the one here


@whole_characters()
def decode_predict(
    body: bytes | bytearray, asked: Asked, signature_of: Callable[[Asked], Signature]
) -> InferenceRequest:
    """Read a predict request's body.

    Args:
        body: JSON.
        asked: the model and its version, from the path.
        signature_of: returns the signature that is asked for, which says the inputs' types.

    Raises:
        InvalidRequest: it is not such a body, or its values are not the inputs'.
    """
    given = _object(read_json(body, EveryName()))
    asked = asked._replace(signature=_signature(given))
    signature = signature_of(asked)
    specs = {spec.name: spec for spec in signature.inputs}
    if ("instances" in given) == ("inputs" in given):
        came = "both" if "inputs" in given else "neither"
        raise InvalidRequest(f"the body has {came} of 'inputs' and 'instances'; expected one of them")
    in_rows = "instances" in given
    values = _columns(given["instances"], specs) if in_rows else _tensors(given["inputs"], specs)
    inputs: list[InputHeader] = []
    data: list[Data] = []
    for name, (at, value) in values.items():
        spec = specs[name]
        shape, elements = json_tensors.flat(at, value)
        check_shape(name, shape)
        if spec.datatype.name not in json_tensors.KNOWN:
            raise InvalidRequest(f"{at} is {tensorflow_name(spec.datatype.tensorflow)}, which JSON has no values for")
        inputs.append(InputHeader(name, spec.datatype.name, shape))
        data.append(json_tensors.elements(at, spec.datatype, elements))
    header = _header(asked, tuple(inputs), in_rows=in_rows)
    return InferenceRequest(header, "", data)


@whole_characters()
def decode_examples(body: bytes | bytearray, asked: Asked) -> InferenceRequest:
    """Read a classify or regress request's body, ``{"examples": [{feature: value or list}], "context": {...}}``.

    Raises:
        InvalidRequest: it is not such a body.
    """
    given = _object(read_json(body, ()))
    rows = given.get("examples")
    if not isinstance(rows, list):
        raise InvalidRequest(
            f"the body: 'examples' is {kind_of(rows) if 'examples' in given else 'missing'}; expected an array"
        )
    if not rows:
        raise InvalidRequest("the body: 'examples' is an empty array; expected at least one")
    examples.check_count(len(rows))
    context = _example("the context", given.get("context", {}))
    made = [_example(f"example {number}", each) for number, each in enumerate(rows)]
    header = ExamplesHeader(asked.model, asked.version, (), signature=_signature(given), rows=Rows(made, context))
    return InferenceRequest(header, "", ())


def encode_predict(request: InferenceRequest, model: ModelInfo, result: InferenceResult) -> bytes:
    """Write a predict answer's body (`Codec.encode`)."""
    assert isinstance(request.header, JsonPredictHeader)
    outputs = {
        spec.name: _nested(spec, data, shape)
        for spec, data, shape in zip(model.signature.outputs, result.outputs, result.shapes, strict=True)
    }
    finite = all(json_tensors.is_finite(each) for each in outputs.values())
    write = json_tensors.dump if finite else json_tensors.bare
    if not request.header.in_rows:
        values = {name: _value(each) for name, each in outputs.items()}
        return write({"outputs": next(iter(values.values())) if len(values) == 1 else values})
    rows = {each.shape[0] if each.ndim else 0 for each in outputs.values()}
    if len(rows) != 1:
        shapes = {name: list(each.shape) for name, each in outputs.items()}
        raise InvalidRequest(
            f"the outputs have not as many rows as each other: {shapes}; expected 'inputs' rather than 'instances'"
        )
    if len(outputs) == 1:
        return write({"predictions": _value(next(iter(outputs.values())))})
    return write(
        {"predictions": [{name: _value(each[row]) for name, each in outputs.items()} for row in range(rows.pop())]}
    )


def encode_classify(request: InferenceRequest, model: ModelInfo, result: InferenceResult) -> bytes:
    """Write a classify answer's body: ``[label, score]`` of every class, for every example (`Codec.encode`)."""
    response = ClassificationResponse.FromString(examples.encode_classify(request, model, result))
    rows = response.result.classifications
    scores = np.array([[each.score for each in row.classes] for row in rows], np.float32)
    write = json_tensors.dump if json_tensors.is_finite(scores) else json_tensors.bare
    return write(
        {
            "results": [
                [[each.label, score] for each, score in zip(row.classes, of_row, strict=True)]
                for row, of_row in zip(rows, scores, strict=True)
            ]
        }
    )


def encode_regress(request: InferenceRequest, model: ModelInfo, result: InferenceResult) -> bytes:
    """Write a regress answer's body: a value for every example (`Codec.encode`)."""
    response = RegressionResponse.FromString(examples.encode_regress(request, model, result))
    values = np.array([each.value for each in response.result.regressions], np.float32)
    return (json_tensors.dump if json_tensors.is_finite(values) else json_tensors.bare)({"results": values})


def _decode(_message: bytes | memoryview) -> InferenceRequest:
    raise AssertionError("the path says half of the request: use decode_predict or decode_examples")


PREDICT = Codec(PROTOCOL, _decode, encode_predict, lambda *_: None)
CLASSIFY = Codec(PROTOCOL, _decode, encode_classify, lambda *_: None, examples.fit_classify)
REGRESS = Codec(PROTOCOL, _decode, encode_regress, lambda *_: None, examples.fit_regress)

# --- private: reading ---------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _header(asked: Asked, inputs: tuple[InputHeader, ...], *, in_rows: bool) -> JsonPredictHeader:
    """Return one object for one header: what is worked out of it is remembered."""
    return JsonPredictHeader(asked.model, asked.version, inputs, signature=asked.signature, in_rows=in_rows)


def _object(given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise InvalidRequest(f"the body is {kind_of(given)}; expected an object")
    return given


def _signature(given: dict[str, Any]) -> str:
    name = given.get("signature_name", "")
    if not isinstance(name, str):
        raise InvalidRequest(f"the body: 'signature_name' is {kind_of(name)}; expected a string")
    return name


def _is_named(value: Any) -> bool:
    """Whether it is an object of named values, and not a string of bytes."""
    return isinstance(value, dict) and list(value) != [B64]


def _columns(instances: Any, specs: dict[str, TensorSpec]) -> dict[str, tuple[str, Any]]:
    """Return rows as columns: by input's name, where they stand and the values."""
    if not isinstance(instances, list):
        raise InvalidRequest(f"the body: 'instances' is {kind_of(instances)}; expected an array")
    if not instances:
        raise InvalidRequest("the body: no values in 'instances'; expected at least one")
    if not any(map(_is_named, instances)):
        return {_only(specs, "instances"): ("instances", instances)}
    columns: dict[str, list[Any]] = {name: [] for name in specs}
    for number, row in enumerate(instances):
        if not _is_named(row) or row.keys() != columns.keys():
            came = f"the keys {', '.join(sorted(row))}" if isinstance(row, dict) else kind_of(row)
            raise InvalidRequest(f"instances[{number}] has {came}; expected an object with {', '.join(sorted(specs))}")
        for name, column in columns.items():
            column.append(row[name])
    return {name: (f"instances[...].{name}", column) for name, column in columns.items()}


def _tensors(inputs: Any, specs: dict[str, TensorSpec]) -> dict[str, tuple[str, Any]]:
    """Return columns by input's name, and where they stand."""
    if not _is_named(inputs):
        return {_only(specs, "inputs"): ("inputs", inputs)}
    if inputs.keys() != specs.keys():
        raise InvalidRequest(
            f"inputs has the keys {', '.join(sorted(inputs)) or 'none'}; expected {', '.join(sorted(specs))}"
        )
    return {name: (f"inputs.{name}", value) for name, value in inputs.items()}


def _only(specs: dict[str, TensorSpec], key: str) -> str:
    if len(specs) != 1:
        raise InvalidRequest(f"{key} has plain values; expected objects with {', '.join(sorted(specs)) or 'no input'}")
    return next(iter(specs))


def _example(at: str, given: Any) -> Example:
    if not isinstance(given, dict):
        raise InvalidRequest(f"{at} is {kind_of(given)}; expected an object of features")
    made = Example()
    for name, value in given.items():
        _fill(f"{at}, feature {name!r}", made.features.feature[name], value if isinstance(value, list) else [value])
    return made


def _fill(at: str, feature: Feature, values: list[Any]) -> None:
    """Fill a feature: with whole numbers, with floats where one is, or with strings."""
    kinds = set(map(type, values))
    if kinds <= {str, dict}:
        feature.bytes_list.value.extend(strings(json_tensors.elements(at, BYTES, values)))
        return
    if not kinds <= {int, bool, float}:
        raise InvalidRequest(f"{at} has {', '.join(sorted(map(kind_of, values)))[:80]}; expected numbers, or strings")
    try:
        if float in kinds:
            feature.float_list.value.extend(values)
        else:
            feature.int64_list.value.extend(map(int, values))
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(f"{at} has a number that does not fit: {error}") from error


# --- private: writing ---------------------------------------------------------------------------------


def _nested(spec: TensorSpec, data: Data, shape: Sequence[int]) -> Any:
    """Return an output as an array of its shape."""
    if isinstance(data, list):
        elements = np.empty(len(data), object)
        elements[:] = json_tensors.texts(data, encoded=spec.name.endswith(BYTES_SUFFIX))
        return elements.reshape(shape)
    return json_tensors.array(spec.datatype, data).reshape(shape)


def _value(each: Any) -> Any:
    """Return an array as what the writer takes: it has neither strings in arrays nor arrays of no axes."""
    if isinstance(each, np.ndarray) and (each.dtype.hasobject or not each.ndim):
        return each.tolist() if each.dtype.hasobject else each[()]
    return each
