"""Classify and Regress: examples to tensors, and scores and values back."""

from math import prod
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
from horngate_server.core.errors import InvalidRequest, ModelFailed
from horngate_server.core.inference import InferenceResult, ModelInfo, numbers, strings
from horngate_server.core.signature import Feature as GraphFeature
from horngate_server.core.signature import Signature, TensorSpec
from horngate_server.engine.validation import arrange, plan
from horngate_server.protocols.examples import CLASSIFY, REGRESS

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


WORDS = TensorSpec("words", BY_NAME["BYTES"], (-1, 2))


def test_features_of_strings_are_an_inputs_strings() -> None:
    """All strings of the list, as many as a row has; numbers are no strings."""
    info = ModelInfo("m", "1", Signature("s", (WORDS,), (SCORES,)))
    assert CLASSIFY.fit is not None
    rows = [Example(), Example()]
    for row, words in zip(rows, ([b"a", b"\xff"], [b"", b"b"]), strict=True):
        row.features.feature["words"].bytes_list.value.extend(words)
    request = CLASSIFY.fit(CLASSIFY.decode(classify(*rows)), info.signature)
    assert request.header.inputs[0].shape == (2, 2)
    assert arrange(request, plan(request.header, info, 100)) == [[b"a", b"\xff", b"", b"b"]]
    for wrong, said in (
        (example(words=b"a"), r"1 elements; expected those of \[2\]"),
        (example(words=[1, 2]), "int64_list; expected bytes_list for BYTES"),
    ):
        with pytest.raises(InvalidRequest, match=said):
            CLASSIFY.fit(CLASSIFY.decode(classify(wrong)), info.signature)


def parsing(name: str = "inputs", *, features: bool = False, outputs: tuple[TensorSpec, ...] = (SCORES,)) -> ModelInfo:
    """Return a model whose graph parses examples itself."""
    parsed = (GraphFeature("size", 1, 1),) if features else ()
    spec = TensorSpec(name, BY_NAME["BYTES"], (-1,), features=parsed)
    return ModelInfo("m", "3", Signature("s", (spec,), outputs))


@pytest.mark.parametrize(
    ("info", "whole"),
    [
        pytest.param(parsing(), True, id="inputs"),
        pytest.param(parsing("examples"), True, id="examples"),
        pytest.param(parsing("x", features=True), True, id="seen-in-the-graph"),
        pytest.param(parsing("size"), False, id="a-feature"),
    ],
)
def test_a_graph_that_parses_examples_is_given_them_whole(info: ModelInfo, whole: bool) -> None:
    """Serialized, one string for each; an input of strings that is called otherwise takes the feature of its name."""
    assert CLASSIFY.fit is not None
    rows = [example(size=b"a"), example(size=b"b", more=[1])]
    request = CLASSIFY.fit(CLASSIFY.decode(classify(*rows)), info.signature)
    assert [(each.datatype, each.shape) for each in request.header.inputs] == [("BYTES", (2,))]
    [data] = arrange(request, plan(request.header, info, 100))
    if whole:
        assert [Example.FromString(each) for each in strings(data)] == rows
    else:
        assert data == [b"a", b"b"]


def test_an_input_called_as_examples_are_takes_a_feature_of_its_name() -> None:
    """A model of texts may call its input so, and its callers know that they send a feature."""
    assert CLASSIFY.fit is not None
    message = classify(example(inputs=b"some text"))
    assert CLASSIFY.fit(CLASSIFY.decode(message), parsing().signature).data == [[b"some text"]]
    [data] = CLASSIFY.fit(CLASSIFY.decode(message), parsing(features=True).signature).data
    assert Example.FromString(strings(data)[0]) == example(inputs=b"some text")


def test_serialized_examples_have_the_contexts_features_where_they_have_none() -> None:
    """As TensorFlow Serving merges them; not without bound."""
    assert REGRESS.fit is not None
    rows = [example(size=[1]), example(other=[2])]
    request = CLASSIFY.decode(classify(*rows, context=example(size=[7], more=[8])))
    [data] = REGRESS.fit(request, parsing(outputs=(SURE,)).signature).data
    assert [Example.FromString(each) for each in strings(data)] == [
        example(size=[1], more=[8]), example(size=[7], more=[8], other=[2]),
    ]  # fmt: skip
    many = CLASSIFY.decode(classify(*[Example()] * 5000, context=example(size=bytes(1 << 20))))
    with pytest.raises(InvalidRequest, match="bytes in all examples, the context in each; expected at most 4194304"):
        REGRESS.fit(many, parsing(outputs=(SURE,)).signature)


NAMES = TensorSpec("classes", BY_NAME["BYTES"], (-1, 3))


def test_an_output_of_names_labels_the_classes() -> None:
    """Row by row, in the model's order: its own labels count for more than the server's."""
    info = parsing(outputs=(NAMES, SCORES))
    assert CLASSIFY.fit is not None
    request = CLASSIFY.fit(CLASSIFY.decode(classify(Example(), Example())), info.signature)
    assert request.header.outputs == ("probabilities", "classes")
    scores = np.array([[0.25, 0.5, 0.25], [1, 0, 0]], np.float32).tobytes()
    names = [b"cat", b"dog", b"\xff", b"owl", b"cat", b"dog"]
    result = InferenceResult(2, [(2, 3), (2, 3)], [names, scores], 0.0, 0.0)
    answer = ClassificationResponse.FromString(CLASSIFY.encode(request, info, result))
    assert [[(each.label, each.score) for each in row.classes] for row in answer.result.classifications] == [
        [("cat", 0.25), ("dog", 0.5), ("\ufffd", 0.25)],
        [("owl", 1.0), ("cat", 0.0), ("dog", 0.0)],
    ]
    short = InferenceResult(2, [(2, 2), (2, 3)], [names[:4], scores], 0.0, 0.0)
    with pytest.raises(ModelFailed, match="2 names of classes for 3 scores"):
        CLASSIFY.encode(request, info, short)


def test_names_without_scores_are_a_classification_too() -> None:
    """Their scores are 0, as in TensorFlow Serving."""
    info = parsing(outputs=(NAMES,))
    assert CLASSIFY.fit is not None
    request = CLASSIFY.fit(CLASSIFY.decode(classify(Example())), info.signature)
    result = InferenceResult(1, [(1, 3)], [[b"cat", b"dog", b"owl"]], 0.0, 0.0)
    answer = ClassificationResponse.FromString(CLASSIFY.encode(request, info, result))
    assert [(each.label, each.score) for each in answer.result.classifications[0].classes] == [
        ("cat", 0), ("dog", 0), ("owl", 0),
    ]  # fmt: skip


def test_an_output_that_is_not_one_for_each_example_is_the_models_fault() -> None:
    """Nobody gets a value that is not theirs."""
    info = parsing(outputs=(TensorSpec("outputs", BY_NAME["FP32"], (-1,)),))
    assert REGRESS.fit is not None
    request = REGRESS.fit(CLASSIFY.decode(classify(Example(), Example())), info.signature)
    for shape in ((), (3,)):
        result = InferenceResult(2, [shape], [bytes(4 * prod(shape))], 0.0, 0.0)
        with pytest.raises(ModelFailed, match="for output 'outputs'; expected 2 rows"):
            REGRESS.encode(request, info, result)


def test_outputs_without_axes_are_no_scores_and_no_values() -> None:
    """Of unknown rank, or a scalar."""
    info = parsing(outputs=(TensorSpec("a", BY_NAME["FP32"], None), TensorSpec("b", BY_NAME["FP32"], ())))
    for codec in (CLASSIFY, REGRESS):
        assert codec.fit is not None
        with pytest.raises(InvalidRequest, match="no single output of floats"):
            codec.fit(CLASSIFY.decode(classify(Example())), info.signature)
