"""TensorFlow Serving's Predict: the decoder and encoder, against protobuf's own."""

from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from horngate_protos.datatypes import BY_NAME, DATATYPES
from horngate_protos.tensorflow_pb2 import TensorProto, TensorShapeProto
from horngate_protos.tensorflow_serving_pb2 import PredictRequest, PredictResponse
from horngate_server.core.errors import InvalidRequest, LabelNotFound, MessageTooLarge, RequestError
from horngate_server.core.inference import Header, InferenceRequest, InferenceResult, ModelInfo, numbers
from horngate_server.core.signature import Signature, TensorSpec
from horngate_server.engine.validation import arrange, plan
from horngate_server.protocols.tensorflow_serving import decode, encode


def proto(array: np.ndarray, *, typed: int | None = None) -> TensorProto:
    """Make a TensorProto with its content, or with so many values in its typed list."""
    datatype = next(each for each in DATATYPES if each.numpy == array.dtype and each.name != "BF16")
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=axis) for axis in array.shape])
    made = TensorProto(dtype=datatype.tensorflow, tensor_shape=shape)
    if typed is None:
        made.tensor_content = array.tobytes()
    else:
        values = array.view(np.uint16) if datatype.name == "FP16" else array
        getattr(made, datatype.values).extend(values.reshape(-1)[:typed].tolist())
    return made


def request(**inputs: TensorProto) -> PredictRequest:
    """Make a PredictRequest for the model m."""
    made = PredictRequest()
    made.model_spec.name = "m"
    for name, tensor in inputs.items():
        made.inputs[name].CopyFrom(tensor)
    return made


AXES = st.lists(st.integers(0, 2**31 - 1), max_size=4).filter(lambda axes: prod(axis or 1 for axis in axes) < 2**31)
"""Shapes that a tensor can have."""


@given(
    model=st.text(min_size=1, max_size=20),
    signature=st.text(max_size=5),
    version=st.none() | st.integers(-(2**63), 2**63 - 1) | st.text("abc", min_size=1, max_size=5),
    inputs=st.dictionaries(
        st.text(max_size=9), st.tuples(AXES, st.binary(min_size=1, max_size=300)),
        min_size=1, max_size=4,
    ),
    outputs=st.lists(st.text(max_size=9), max_size=3),
)  # fmt: skip
def test_every_request_is_read_as_protobuf_reads_it(
    model: str,
    signature: str,
    version: int | str | None,
    inputs: dict[str, tuple[list[int], bytes]],
    outputs: list[str],
) -> None:
    """The walk over the bytes finds what protobuf's parser finds, whatever the values; twice, as callers repeat."""
    message = PredictRequest(output_filter=outputs)
    message.model_spec.name = model
    message.model_spec.signature_name = signature
    if isinstance(version, int):
        message.model_spec.version.value = version
    elif version is not None:
        message.model_spec.version_label = version
    for name, (shape, data) in inputs.items():
        axes = TensorShapeProto(dim=[TensorShapeProto.Dim(size=axis) for axis in shape])
        message.inputs[name].CopyFrom(TensorProto(dtype=4, tensor_shape=axes, tensor_content=data))
    for kept in (bytes, memoryview):
        read = decode(kept(message.SerializeToString()))
        assert (read.header.model, read.header.signature) == (model, signature)
        assert read.header.version == ("" if version is None else str(version))
        found = zip(read.header.inputs, read.data, strict=True)
        assert {t.name: (list(t.shape), bytes(numbers(data))) for t, data in found} == inputs
        assert list(read.header.outputs) == outputs


@given(st.lists(st.tuples(st.integers(1, 3), st.sampled_from("xy"), st.sampled_from("mn")), max_size=20))
def test_a_remembered_head_never_stands_for_another(asked: list[tuple[int, str, str]]) -> None:
    """Requests that are as long as an earlier one, but say something else, are read for what they say."""
    for rows, name, model in asked:
        x = np.full((rows, 2), rows, np.int32)
        message = request(**{name: proto(x)})
        message.model_spec.name = model
        read = decode(message.SerializeToString())
        assert (read.header.model, read.header.inputs[0].name, read.header.inputs[0].shape) == (model, name, (rows, 2))
        assert bytes(numbers(read.data[0])) == x.tobytes()


def test_contents_are_views_and_equal_headers_one_object() -> None:
    """What callers repeat is parsed once; what differs is not copied."""
    first, second = (decode(request(x=proto(np.full(4, n, np.int32))).SerializeToString()) for n in (1, 2))
    assert first.header is second.header
    assert isinstance(first.data[0], memoryview)


def test_unusual_forms_are_read_too() -> None:
    """Inputs before the model's name, a name twice, fields that nobody sends: protobuf's parser says what they mean."""
    x, y = proto(np.array([1], np.int32)), proto(np.array([2], np.int32))
    spec = PredictRequest(model_spec=request().model_spec).SerializeToString()
    inputs = [PredictRequest(inputs={"x": each}).SerializeToString() for each in (x, y)]
    read = decode(inputs[0] + spec)
    assert (read.header.model, bytes(numbers(read.data[0]))) == ("m", x.tensor_content)
    read = decode(spec + inputs[0] + inputs[1])  # the last one of a key counts
    assert [bytes(numbers(data)) for data in read.data] == [y.tensor_content]
    odd = TensorProto.FromString(x.SerializeToString())
    odd.version_number = 7
    assert bytes(numbers(decode(request(x=odd).SerializeToString()).data[0])) == x.tensor_content


VALUES = {"b": [True, False, True, True], "u": [0, 1, 2, 200], "i": [-100, 0, 1, 100], "f": [-1.5, 0.0, 0.25, 1e3]}
NAMES = [each.name for each in DATATYPES if each.name != "BF16"]


@pytest.mark.parametrize("name", NAMES)
def test_typed_lists_carry_every_datatype(name: str) -> None:
    """Values in a typed list arrive as the bytes of a tensor_content."""
    datatype = BY_NAME[name]
    array = np.array(VALUES[datatype.numpy.kind], datatype.numpy)
    read = decode(request(x=proto(array, typed=4)).SerializeToString())
    assert (read.header.inputs[0].datatype, read.data[0]) == (name, array.tobytes())


@pytest.mark.parametrize("given_values", [1, 2, 3, 4])
def test_a_list_shorter_than_its_shape_repeats_its_last_value(given_values: int) -> None:
    """TensorFlow's own rule: one value may stand for a whole constant tensor."""
    info = ModelInfo("m", "1", Signature("s", (TensorSpec("x", BY_NAME["FP32"], (-1, 2)),), ()))
    array = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    read = decode(request(x=proto(array, typed=given_values)).SerializeToString())
    [data] = arrange(read, plan(read.header, info, 10))
    whole = array.reshape(-1)[:given_values].tolist() + [float(given_values)] * (4 - given_values)
    assert np.frombuffer(numbers(data), np.float32).tolist() == whole


def test_a_short_list_cannot_stand_for_more_than_the_signature_bounds() -> None:
    """With an axis of any length, a message of a few bytes must not become gigabytes."""
    info = ModelInfo("m", "1", Signature("s", (TensorSpec("x", BY_NAME["FP32"], (-1, -1)),), ()))
    for axis, refused in ((8, False), (2**30, True)):
        message = request(x=proto(np.ones(1, np.float32), typed=1))
        message.inputs["x"].tensor_shape.dim[0].size = 1
        message.inputs["x"].tensor_shape.dim.add(size=axis)
        read = decode(message.SerializeToString())
        planned = plan(read.header, info, 10)
        if refused:
            with pytest.raises(MessageTooLarge, match="1 values for 1073741824 elements"):
                arrange(read, planned)
        else:
            assert len(arrange(read, planned)[0]) == 4 * axis


def test_a_short_list_cannot_stand_for_more_than_a_message_could_hold() -> None:
    """A value may stand for many rows of an image, but not for gigabytes of them."""
    info = ModelInfo("m", "1", Signature("s", (TensorSpec("x", BY_NAME["FP32"], (-1, 224, 224, 3)),), ()))
    for rows, refused in ((2, False), (8_192, True)):
        message = request(x=proto(np.ones(1, np.float32), typed=1))
        message.inputs["x"].tensor_shape.CopyFrom(
            TensorShapeProto(dim=[TensorShapeProto.Dim(size=axis) for axis in (rows, 224, 224, 3)])
        )
        read = decode(message.SerializeToString())
        planned = plan(read.header, info, 16_384)
        if refused:
            with pytest.raises(MessageTooLarge, match="expected all of them, or a tensor of at most 67108864 bytes"):
                arrange(read, planned)
        else:
            assert len(arrange(read, planned)[0]) == 4 * 224 * 224 * 3 * rows


def test_an_answer_holds_every_output_as_content_and_who_computed_it() -> None:
    """Outputs by name with type and shape; name, number and signature in the model_spec."""
    specs = (TensorSpec("a", BY_NAME["FP32"], (-1, 3)), TensorSpec("b", BY_NAME["INT64"], (-1,)))
    info = ModelInfo("m", "3", Signature("s", (), specs))
    arrays = [np.arange(6, dtype=np.float32).reshape(2, 3), np.array([5, 6])]
    result = InferenceResult(2, [(2, 3), (2,)], [each.tobytes() for each in arrays], 0.0, 0.0)
    for wanted in ((), ("b",)):
        asked = InferenceRequest(Header("m", "", (), outputs=wanted), "", ())
        answer = PredictResponse.FromString(encode(asked, info, result))
        assert (answer.model_spec.name, answer.model_spec.version.value, answer.model_spec.signature_name) == (
            "m", 3, "s",
        )  # fmt: skip
        assert sorted(answer.outputs) == list(wanted or ("a", "b"))
        for name, tensor in answer.outputs.items():
            array = arrays["ab".index(name)]
            assert tensor.tensor_content == array.tobytes()
            assert tuple(dim.size for dim in tensor.tensor_shape.dim) == array.shape
            assert prod(array.shape) * array.itemsize == len(tensor.tensor_content)


def _without_name() -> PredictRequest:
    made = request()
    made.model_spec.name = ""
    return made


def _labelled(label: str) -> PredictRequest:
    made = request()
    made.model_spec.version_label = label
    return made


def _rankless() -> PredictRequest:
    tensor = proto(np.ones(1, np.int32))
    tensor.tensor_shape.unknown_rank = True
    return request(x=tensor)


def _overflowing() -> PredictRequest:
    tensor = proto(np.ones(1, np.uint8), typed=0)
    tensor.int_val.append(256)
    return request(x=tensor)


@pytest.mark.parametrize(
    ("message", "error", "said"),
    [
        pytest.param(b"\xff\xff", InvalidRequest, "not a PredictRequest", id="garbage"),
        pytest.param(PredictRequest(), InvalidRequest, "Missing ModelSpec", id="no-spec"),
        pytest.param(_without_name(), InvalidRequest, "ModelSpec has no name", id="no-name"),
        pytest.param(_labelled("3"), LabelNotFound, "numbers are versions", id="label-is-a-number"),
        pytest.param(_labelled(""), LabelNotFound, "Unrecognized servable version label", id="empty-label"),
        pytest.param(_rankless(), InvalidRequest, "'x' has a tensor_shape of unknown rank", id="unknown-rank"),
        pytest.param(_overflowing(), InvalidRequest, "a value in int_val out of UINT8's range", id="overflow"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_with_the_reason(
    message: PredictRequest | bytes, error: type[RequestError], said: str
) -> None:
    """The error says what was expected and what came."""
    with pytest.raises(error, match=said):
        decode(message if isinstance(message, bytes) else message.SerializeToString())
