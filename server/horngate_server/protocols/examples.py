"""TensorFlow Serving's Classify and Regress: rows that come as tensorflow.Example, and scores or values back.

Any signature can be asked; `features` says how examples become its inputs.

Classify answers with all classes of the output with the scores, by the names that the output ``classes`` of strings
gives them, else by the model's labels; Regress with the only value that the model has for a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from horngate_protos.datatypes import BYTES
from horngate_protos.tensorflow_serving_pb2 import (
    Class,
    ClassificationRequest,
    ClassificationResponse,
    Classifications,
    Input,
    RegressionRequest,
    RegressionResponse,
)
from horngate_server.core.codec import Codec
from horngate_server.core.errors import InvalidRequest, ModelFailed
from horngate_server.core.inference import Header, InferenceRequest, InferenceResult, InputHeader, ModelInfo
from horngate_server.core.signature import Signature, TensorSpec
from horngate_server.protocols.features import Rows, serialized, takes_examples, tensor
from horngate_server.protocols.model_spec import read_spec, write_spec
from horngate_server.protocols.tensorflow_serving import PROTOCOL
from horngate_server.protocols.wire import check_parsed

SCORES = ("scores", "probabilities")
"""What the output with the scores is called; where none is, it is the only one of floats with a value per class."""
VALUES = ("outputs",)
"""The same for the output with the value; where none is, it is the only one of floats with one value per row."""
CLASSES = "classes"
"""What an output of strings is called that names the classes of every row."""
MOST_EXAMPLES = 1 << 16
"""Each is looked at by itself, and may be empty."""
_Array = NDArray[np.generic]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ExamplesHeader(Header):
    """A `Header` before its signature is known.

    Attributes:
        rows: the examples.
    """

    rows: Rows


def decode_classify(message: bytes | memoryview) -> InferenceRequest:
    """Read a ClassificationRequest (`Codec.decode`)."""
    return _decode(message, ClassificationRequest)


def decode_regress(message: bytes | memoryview) -> InferenceRequest:
    """Read a RegressionRequest (`Codec.decode`)."""
    return _decode(message, RegressionRequest)


def check_count(count: int) -> None:
    """Refuse more than `MOST_EXAMPLES`.

    Raises:
        InvalidRequest: there are more.
    """
    if count > MOST_EXAMPLES:
        raise InvalidRequest(f"{count} examples; expected at most {MOST_EXAMPLES} in a request")


def fit_classify(request: InferenceRequest, signature: Signature) -> InferenceRequest:
    """Make tensors of the examples, and ask for the scores, and for the classes' names (`Codec.fit`)."""
    scores = [spec for spec in _floats(signature) if len(spec.row) == 1]
    names = [spec.name for spec in signature.outputs if _names_classes(spec)]
    if names and not scores:
        return _fit(request, signature, tuple(names))
    score = _only(signature, scores, SCORES, "[rows, classes], as Classify answers with")
    return _fit(request, signature, (score, *names))


def fit_regress(request: InferenceRequest, signature: Signature) -> InferenceRequest:
    """Make tensors of the examples, and ask for the values (`Codec.fit`)."""
    values = [spec for spec in _floats(signature) if spec.row in {(), (1,)}]
    return _fit(request, signature, (_only(signature, values, VALUES, "[rows], as Regress answers with"),))


def encode_classify(request: InferenceRequest, model: ModelInfo, result: InferenceResult) -> bytes:
    """Write a ClassificationResponse: all classes, in their order (`Codec.encode`)."""
    response = ClassificationResponse()
    response.model_spec.MergeFromString(write_spec(model.name, model.version, model.signature.name))
    outputs = [_rows_of(name, request, model, result) for name in request.header.outputs]
    names = next((_text(rows) for rows in outputs if rows.dtype.hasobject), None)
    # Without scores they are 0, as TensorFlow Serving's are.
    scores = next(
        (rows.tolist() for rows in outputs if not rows.dtype.hasobject), [[0.0] * len(n) for n in names or ()]
    )
    for place, row in enumerate(scores):
        labels = names[place] if names else [*model.labels, *map(str, range(len(model.labels), len(row)))][: len(row)]
        if len(labels) != len(row):
            raise ModelFailed(f"the model returned {len(labels)} names of classes for {len(row)} scores")
        classes = [Class(label=label, score=score) for label, score in zip(labels, row, strict=True)]
        response.result.classifications.append(Classifications(classes=classes))
    return response.SerializeToString()


def encode_regress(request: InferenceRequest, model: ModelInfo, result: InferenceResult) -> bytes:
    """Write a RegressionResponse (`Codec.encode`)."""
    response = RegressionResponse()
    response.model_spec.MergeFromString(write_spec(model.name, model.version, model.signature.name))
    for row in _rows_of(request.header.outputs[0], request, model, result).tolist():
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
    check_count(len(examples))
    header = ExamplesHeader(
        model=asked.model,
        version=asked.version,
        inputs=(),
        signature=asked.signature,
        rows=Rows(examples, given.example_list_with_context.context),
    )
    return InferenceRequest(header, "", ())


def _fit(request: InferenceRequest, signature: Signature, outputs: tuple[str, ...]) -> InferenceRequest:
    header = request.header
    assert isinstance(header, ExamplesHeader)
    if takes_examples(signature, header.rows):
        tensors = [serialized(signature.inputs[0], header.rows)]
    else:
        tensors = [tensor(spec, header.rows) for spec in signature.inputs]
    inputs = tuple(each for each, _ in tensors)
    fitted = _header(header.model, header.version, header.signature, inputs, outputs)
    return InferenceRequest(fitted, request.id, [data for _, data in tensors])


@lru_cache(maxsize=512)
def _header(
    model: str, version: str, signature: str, inputs: tuple[InputHeader, ...], outputs: tuple[str, ...]
) -> Header:
    """Return one object for one header: what is worked out of it is remembered."""
    return Header(model, version, inputs, outputs, signature)


def _floats(signature: Signature) -> list[TensorSpec]:
    """Return the outputs of floats that have a first axis, which counts rows."""
    return [spec for spec in signature.outputs if spec.shape and spec.datatype.name in {"FP16", "FP32", "FP64"}]


def _names_classes(spec: TensorSpec) -> bool:
    return spec.name == CLASSES and spec.datatype is BYTES and spec.shape is not None and len(spec.shape) == 2


def _only(signature: Signature, found: Sequence[TensorSpec], names: Sequence[str], what: str) -> str:
    """Return the output with one of the names, or the only one."""
    named = [spec for spec in found if spec.name in names]
    for candidates in (named, found):
        if len(candidates) == 1:
            return candidates[0].name
    raise InvalidRequest(f"signature {signature.name} has no single output of floats {what}: {signature}")


def _rows_of(name: str, request: InferenceRequest, model: ModelInfo, result: InferenceResult) -> _Array:
    """Return a wanted output, row by row.

    Raises:
        ModelFailed: it has not as many rows as there are examples.
    """
    place = next(place for place, spec in enumerate(model.signature.outputs) if spec.name == name)
    data, shape = result.outputs[place], result.shapes[place]
    examples = request.header.inputs[0].shape[0]
    if not shape or shape[0] != examples:
        raise ModelFailed(f"the model returned shape {list(shape)} for output {name!r}; expected {examples} rows")
    if isinstance(data, list):
        elements = np.empty(len(data), object)
        elements[:] = data
        return elements.reshape(examples, -1)
    return np.frombuffer(data, model.signature.outputs[place].datatype.numpy).reshape(examples, -1)


def _text(rows: _Array) -> list[list[str]]:
    """Return strings as text; protobuf's strings hold nothing else."""
    return [[element.decode("utf-8", "replace") for element in row] for row in rows.tolist()]
