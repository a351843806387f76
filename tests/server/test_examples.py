"""Classify and Regress: examples to tensors, and scores and values back."""

from typing import Any

import numpy as np
import pytest

from horngate_protos.datatypes import BY_NAME
from horngate_protos.tensorflow_pb2 import Example
from horngate_protos.tensorflow_serving_pb2 import (
    ClassificationRequest,
    ClassificationResponse,
    RegressionRequest,
    RegressionResponse,
)
from horngate_server.admission import arrange, plan
from horngate_server.errors import InvalidRequest
from horngate_server.protocols.examples import CLASSIFY, REGRESS
from horngate_server.request import InferenceResult, ModelInfo, numbers
from horngate_server.signature import Signature, TensorSpec

INPUTS = (TensorSpec("image", BY_NAME["UINT8"], (-1, 2, 2)), TensorSpec("size", BY_NAME["FP32"], (-1,)))
SCORES, SURE = TensorSpec("probabilities", BY_NAME["FP32"], (-1, 3)), TensorSpec("sure", BY_NAME["FP32"], (-1,))
INFO = ModelInfo("m", "3", Signature("s", INPUTS, (SCORES, SURE)), ("zero", "one"))


def example(**features: Any) -> Example:
    """Make an example: bytes, whole numbers or floats by feature."""
    made = Example()
    for name, values in features.items():
        feature = made.features.feature[name]
        if isinstance(values, bytes):
            feature.bytes_list.value.append(values)
        elif all(isinstance(value, int) for value in values):
            feature.int64_list.value.extend(values)
        else:
            feature.float_list.value.extend(values)
    return made


def classify(*examples: Example, context: Example | None = None, signature: str = "") -> bytes:
    """Make a ClassificationRequest."""
    made = ClassificationRequest()
    made.model_spec.name = "m"
    made.model_spec.signature_name = signature
    if context is not None:
        made.input.example_list_with_context.context.CopyFrom(context)
        made.input.example_list_with_context.examples.extend(examples)
    else:
        made.input.example_list.examples.extend(examples)
    return made.SerializeToString()


def fitted(message: bytes, info: ModelInfo = INFO) -> list[list[Any]]:
    """Return the tensors that a classification is computed from."""
    assert CLASSIFY.fit is not None
    request = CLASSIFY.fit(CLASSIFY.decode(message), info.signature)
    data = arrange(request, plan(request.header, info, 100))
    return [
        np.frombuffer(numbers(each), spec.datatype.numpy).reshape(tensor.shape).tolist()
        for each, spec, tensor in zip(data, info.signature.inputs, request.header.inputs, strict=True)
    ]


def test_every_kind_of_feature_becomes_a_row() -> None:
    """Whole numbers, floats, and a row's own bytes; features that are no inputs do not matter."""
    first = example(image=[1, 2, 3, 4], size=[0.5], more=b"?")
    second = example(image=bytes([5, 6, 7, 8]), size=[2])
    images, sizes = fitted(classify(first, second))
    assert images == [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
    assert sizes == [0.5, 2.0]


def test_the_context_is_every_examples_unless_it_has_its_own() -> None:
    """ExampleListWithContext: features of the context fill what is missing."""
    rows = [example(image=[1, 2, 3, 4]), example(image=[5, 6, 7, 8], size=[9.5])]
    assert fitted(classify(*rows, context=example(size=[1.5])))[1] == [1.5, 9.5]


def test_an_axis_of_any_length_is_as_long_as_the_elements_make_it() -> None:
    """All examples of a request must agree."""
    info = ModelInfo("m", "1", Signature("s", (TensorSpec("x", BY_NAME["INT32"], (-1, 2, -1)),), (SCORES,)))
    assert fitted(classify(example(x=[1, 2, 3, 4, 5, 6])), info) == [[[[1, 2, 3], [4, 5, 6]]]]
    with pytest.raises(InvalidRequest, match="not as many elements in every example"):
        fitted(classify(example(x=[1, 2]), example(x=[1, 2, 3, 4])), info)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        pytest.param(classify(), "Input is empty", id="empty"),
        pytest.param(b"\xff\xff", "not a ClassificationRequest", id="garbage"),
        pytest.param(classify(example(image=[1, 2, 3, 4])), "example 0, feature 'size' is missing", id="missing"),
        pytest.param(
            classify(example(image=[1, 2, 3], size=[1.5])), r"3 elements; expected those of \[2, 2\]", id="few"
        ),
        pytest.param(classify(example(image=[1, 2, 3, 256], size=[1])), "out of UINT8's range", id="range"),
        pytest.param(classify(example(image=[0.5] * 4, size=[1])), "float_list; expected bytes_list", id="kind"),
        pytest.param(classify(example(image=b"123", size=[1])), "3 elements", id="few-bytes"),
        pytest.param(classify(example(image=b"1234", size=b"123")), "0.75 elements", id="part-of-an-element"),
    ],
)
def test_examples_that_do_not_fit_are_refused_with_the_reason(message: bytes, said: str) -> None:
    """Which example, which feature, what was expected and what came."""
    with pytest.raises(InvalidRequest, match=said):
        fitted(message)


def test_a_classification_has_all_classes_by_their_labels() -> None:
    """Scores in the order of the classes; those without a label are called by their number."""
    assert CLASSIFY.fit is not None
    request = CLASSIFY.fit(CLASSIFY.decode(classify(*[example(image=b"1234", size=[1])] * 2)), INFO.signature)
    scores = np.array([[0.25, 0.5, 0.25], [1, 0, 0]], np.float32)
    result = InferenceResult(2, [(2, 3), (2,)], [scores.tobytes(), bytes(8)], 0.0, 0.0)
    answer = ClassificationResponse.FromString(CLASSIFY.encode(request, INFO, result))
    assert [[(each.label, each.score) for each in row.classes] for row in answer.result.classifications] == [
        [("zero", 0.25), ("one", 0.5), ("2", 0.25)],
        [("zero", 1.0), ("one", 0.0), ("2", 0.0)],
    ]
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("m", 3)


def test_a_regression_has_a_value_for_every_example() -> None:
    """The only output with one float per row is the value."""
    assert REGRESS.fit is not None
    made = RegressionRequest.FromString(classify(example(image=b"1234", size=[1])))
    request = REGRESS.fit(REGRESS.decode(made.SerializeToString()), INFO.signature)
    result = InferenceResult(1, [(1, 3), (1,)], [bytes(12), np.float32(1.5).tobytes()], 0.0, 0.0)
    answer = RegressionResponse.FromString(REGRESS.encode(request, INFO, result))
    assert [each.value for each in answer.result.regressions] == [1.5]


@pytest.mark.parametrize(
    ("outputs", "chosen"),
    [
        pytest.param([SCORES, TensorSpec("logits", BY_NAME["FP32"], (-1, 3))], "probabilities", id="by-name"),
        pytest.param([TensorSpec("logits", BY_NAME["FP32"], (-1, 3)), SURE], "logits", id="the-only-one"),
        pytest.param([SURE], None, id="none"),
        pytest.param([TensorSpec(name, BY_NAME["FP32"], (-1, 3)) for name in "ab"], None, id="two"),
    ],
)
def test_the_scores_are_the_output_that_is_called_so_or_the_only_one(
    outputs: list[TensorSpec], chosen: str | None
) -> None:
    """A signature without a single such output cannot classify, and says so."""
    assert CLASSIFY.fit is not None
    request = CLASSIFY.decode(classify(example(image=b"1234", size=[1])))
    signature = Signature("s", INPUTS, tuple(outputs))
    if chosen is None:
        with pytest.raises(InvalidRequest, match="signature s has no single output of floats"):
            CLASSIFY.fit(request, signature)
    else:
        assert CLASSIFY.fit(request, signature).header.outputs == (chosen,)


def test_a_context_cannot_stand_for_more_rows_than_there_is_memory_for() -> None:
    """A few kilobytes of empty examples and one large feature must not become gigabytes."""
    info = ModelInfo("m", "1", Signature("s", (TensorSpec("x", BY_NAME["UINT8"], (-1, -1)),), (SCORES,)))
    message = classify(*[Example()] * 5000, context=example(x=bytes(1 << 20)))
    with pytest.raises(InvalidRequest, match="more than 4194304 bytes in all examples together"):
        fitted(message, info)
