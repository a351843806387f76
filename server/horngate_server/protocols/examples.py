"""TensorFlow Serving's Classify and Regress: rows that come as tensorflow.Example, and scores or values back.

Any signature can be asked. An example needs a feature for every input of it, by the input's name: an ``int64_list`` or
a ``float_list`` with all elements of the row in row-major order, or a ``bytes_list`` with one value, the row's bytes.
Features that are no inputs are ignored. Classify answers with all classes of the output with the scores; Regress with
the only value that the model has for a row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod

import numpy as np
from google.protobuf.message import DecodeError

from horngate_protos.tensorflow_pb2 import Feature
from horngate_protos.tensorflow_serving_pb2 import (
    Class,
    ClassificationRequest,
    ClassificationResponse,
    Classifications,
    Input,
    RegressionRequest,
    RegressionResponse,
)
from horngate_server.errors import InvalidRequest
from horngate_server.protocols import Codec
from horngate_server.protocols.tensorflow_serving import PROTOCOL, read_spec, write_spec
from horngate_server.protocols.wire import PARSED_BYTES, check_parsed
from horngate_server.request import Header, InferenceRequest, InferenceResult, InputHeader, ModelInfo, numbers
from horngate_server.signature import FREE, Signature, TensorSpec

SCORES = ("scores", "probabilities")
"""What the output with the scores is called; where none is, it is the only one of floats with a value per class."""
VALUES = ("outputs",)
"""The same for the output with the value; where none is, it is the only one of floats with one value per row."""

_Features = Mapping[str, Feature]


@dataclass(frozen=True, slots=True, eq=False)
class ExamplesHeader(Header):
    """A `Header` before its signature is known.

    Attributes:
        rows: the features of every example.
        context: features of all of them, where they have none of the name.
    """

    rows: Sequence[_Features] = ()
    context: _Features = field(default_factory=dict)


def decode_classify(message: bytes | memoryview) -> InferenceRequest:
    """Read a ClassificationRequest (`Codec.decode`)."""
    return _decode(message, ClassificationRequest)


def decode_regress(message: bytes | memoryview) -> InferenceRequest:
    """Read a RegressionRequest (`Codec.decode`)."""
    return _decode(message, RegressionRequest)


def fit_classify(request: InferenceRequest, signature: Signature) -> InferenceRequest:
    """Make tensors of the examples, and ask for the scores (`Codec.fit`)."""
    scores = [spec for spec in _floats(signature) if len(spec.shape) == 2]
    return _fit(request, signature, _only(signature, scores, SCORES, "[rows, classes], as Classify answers with"))


def fit_regress(request: InferenceRequest, signature: Signature) -> InferenceRequest:
    """Make tensors of the examples, and ask for the values (`Codec.fit`)."""
    values = [spec for spec in _floats(signature) if spec.shape[1:] in {(), (1,)}]
    return _fit(request, signature, _only(signature, values, VALUES, "[rows], as Regress answers with"))


def encode_classify(request: InferenceRequest, model: ModelInfo, result: InferenceResult) -> bytes:
    """Write a ClassificationResponse: all classes, in their order (`Codec.encode`)."""
    response = ClassificationResponse()
    response.model_spec.MergeFromString(write_spec(model.name, model.version, model.signature.name))
    for row in _output(request, model, result):
        labels = [*model.labels, *map(str, range(len(model.labels), len(row)))]
        response.result.classifications.append(
            Classifications(
                classes=[Class(label=label, score=score) for label, score in zip(labels, row, strict=False)]
            )
        )
    return response.SerializeToString()


def encode_regress(request: InferenceRequest, model: ModelInfo, result: InferenceResult) -> bytes:
    """Write a RegressionResponse (`Codec.encode`)."""
    response = RegressionResponse()
    response.model_spec.MergeFromString(write_spec(model.name, model.version, model.signature.name))
    for row in _output(request, model, result):
        response.result.regressions.add(value=row[0])
    return response.SerializeToString()


CLASSIFY = Codec(PROTOCOL, decode_classify, encode_classify, lambda *_: None, fit_classify)
REGRESS = Codec(PROTOCOL, decode_regress, encode_regress, lambda *_: None, fit_regress)

# --- private ------------------------------------------------------------------------------------------


def _decode(
    message: bytes | memoryview, kind: type[ClassificationRequest] | type[RegressionRequest]
) -> InferenceRequest:
    check_parsed(len(message), "Predict's tensor_content")
    try:
        request = kind.FromString(bytes(message))
    except DecodeError as error:
        raise InvalidRequest(f"not a {kind.DESCRIPTOR.name}: {error}") from error
    asked = read_spec(request.model_spec if request.HasField("model_spec") else None)
    given: Input = request.input
    with_context = given.WhichOneof("kind") == "example_list_with_context"
    examples = given.example_list_with_context.examples if with_context else given.example_list.examples
    if not examples:
        raise InvalidRequest("Input is empty: expected at least one example")
    header = ExamplesHeader(
        model=asked.model,
        version=asked.version,
        inputs=(),
        signature=asked.signature,
        rows=[each.features.feature for each in examples],
        context=given.example_list_with_context.context.features.feature,
    )
    return InferenceRequest(header, "", ())


def _fit(request: InferenceRequest, signature: Signature, output: str) -> InferenceRequest:
    header = request.header
    assert isinstance(header, ExamplesHeader)
    inputs, data = [], []
    for spec in signature.inputs:
        rows = _rows(header, spec)
        if any(len(row) != len(rows[0]) for row in rows):
            raise InvalidRequest(f"feature {spec.name!r} has not as many elements in every example; expected the same")
        elements = len(rows[0]) // spec.datatype.numpy.itemsize
        inputs.append(InputHeader(spec.name, spec.datatype.name, (len(rows), *_axes(spec, elements))))
        data.append(b"".join(rows))
    fitted = _header(header.model, header.version, header.signature, tuple(inputs), output)
    return InferenceRequest(fitted, request.id, data)


def _rows(header: ExamplesHeader, spec: TensorSpec) -> list[bytes]:
    """Return every example's elements of an input, while they are not too many: one context may stand for all rows."""
    rows: list[bytes] = []
    left = PARSED_BYTES
    for number, features in enumerate(header.rows):
        rows.append(_row(features if spec.name in features else header.context, spec, number))
        left -= len(rows[-1])
        if left < 0:
            raise InvalidRequest(f"feature {spec.name!r} has more than {PARSED_BYTES} bytes in all examples together")
    return rows


@lru_cache(maxsize=512)
def _header(model: str, version: str, signature: str, inputs: tuple[InputHeader, ...], output: str) -> Header:
    """Return one object for one header: what is worked out of it is remembered."""
    return Header(model, version, inputs, (output,), signature)


def _row(features: _Features, spec: TensorSpec, number: int) -> bytes:
    """Return one example's elements of an input as bytes."""
    kind = features[spec.name].WhichOneof("kind") if spec.name in features else None
    at = f"example {number}, feature {spec.name!r}"
    if kind is None:
        raise InvalidRequest(f"{at} is missing; expected one for every input: {spec}")
    values = getattr(features[spec.name], kind).value
    datatype = spec.datatype
    if kind == "bytes_list":
        if len(values) != 1:
            raise InvalidRequest(f"{at} has {len(values)} byte strings; expected one, with the row's bytes")
        row = bytes(values[0])
    elif datatype.name == "BF16" or (kind == "float_list" and datatype.numpy.kind != "f"):
        raise InvalidRequest(f"{at} is a {kind}; expected bytes_list or int64_list for {datatype.name}")
    else:
        try:
            row = np.array(values, datatype.numpy).tobytes()
        except OverflowError as error:
            raise InvalidRequest(f"{at} has a value out of {datatype.name}'s range") from error
    size = datatype.numpy.itemsize
    elements, left = divmod(len(row), size)
    if left or prod(_axes(spec, elements)) != elements:
        raise InvalidRequest(f"{at} has {len(row) / size:g} elements; expected those of {list(spec.shape[1:])}")
    return row


def _axes(spec: TensorSpec, elements: int) -> tuple[int, ...]:
    """Return a row's axes; one of any length is what the number of elements makes it."""
    axes = spec.shape[1:]
    if FREE not in axes:
        return axes
    known = prod(axis for axis in axes if axis != FREE)
    free = axes.index(FREE)
    rest = elements // known if known else 0
    return tuple(rest if place == free else 1 if axis == FREE else axis for place, axis in enumerate(axes))


def _floats(signature: Signature) -> list[TensorSpec]:
    return [spec for spec in signature.outputs if spec.datatype.name in {"FP16", "FP32", "FP64"}]


def _only(signature: Signature, found: Sequence[TensorSpec], names: Sequence[str], what: str) -> str:
    """Return the output with one of the names, or the only one."""
    named = [spec for spec in found if spec.name in names]
    for candidates in (named, found):
        if len(candidates) == 1:
            return candidates[0].name
    raise InvalidRequest(f"signature {signature.name} has no single output of floats {what}: {signature}")


def _output(request: InferenceRequest, model: ModelInfo, result: InferenceResult) -> list[list[float]]:
    """Return the wanted output's values, row by row."""
    [name] = request.header.outputs
    place = next(place for place, spec in enumerate(model.signature.outputs) if spec.name == name)
    array = np.frombuffer(numbers(result.outputs[place]), model.signature.outputs[place].datatype.numpy)
    rows: list[list[float]] = array.reshape(result.rows, -1).tolist()
    return rows
