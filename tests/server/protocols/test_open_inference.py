"""The Open Inference Protocol's decoder and encoder, against protobuf's own."""

from contextlib import suppress
from dataclasses import replace
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from horngate_protos.datatypes import BY_NAME, DATATYPES
from horngate_protos.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from horngate_protos.tensorflow_serving_pb2 import PredictResponse
from horngate_server.core.codec import Codec
from horngate_server.core.errors import InvalidRequest
from horngate_server.core.inference import Header, InferenceRequest, InferenceResult, ModelInfo, Outputs, numbers
from horngate_server.core.signature import Signature, TensorSpec
from horngate_server.engine.batch_queue import Work
from horngate_server.engine.batch_runner import BatchReport
from horngate_server.engine.validation import Plan
from horngate_server.protocols.open_inference import INFER
from horngate_server.protocols.open_inference.decode import decode
from horngate_server.protocols.open_inference.encode import encode
from horngate_server.protocols.open_inference.header import InferHeader
from horngate_server.protocols.open_inference.json import decode_json
from horngate_server.protocols.tensorflow_serving import PREDICT
from horngate_server.services.responses import write, write_whole
from support.in_process import SIGNATURE, FakeReply, request

INFO = ModelInfo("m", "3", SIGNATURE)
RESULT = InferenceResult(
    rows=2,
    shapes=[(2, 2), (2,)],
    outputs=[np.arange(4, dtype=np.int64).tobytes(), memoryview(np.array([0.5, 1.5], np.float32).tobytes())],
    queue_s=0.001,
    compute_s=0.002,
)


AXES = st.lists(st.integers(0, 2**31 - 1), max_size=4).filter(lambda axes: prod(axis or 1 for axis in axes) < 2**31)
"""Shapes that a tensor can have."""


@pytest.mark.slow
@given(
    model=st.text(max_size=20),
    version=st.text(max_size=5),
    identity=st.text(max_size=200),
    tensors=st.lists(
        st.tuples(st.text(max_size=9), AXES, st.binary(max_size=300)),
        min_size=1,
        max_size=4,
    ),
    outputs=st.lists(st.text(max_size=9), max_size=3),
)
def test_every_raw_request_is_read_as_protobuf_reads_it(
    model: str, version: str, identity: str, tensors: list[tuple[str, list[int], bytes]], outputs: list[str]
) -> None:
    """The walk over the bytes finds what protobuf's parser finds, whatever the values."""
    message = ModelInferRequest(model_name=model, model_version=version, id=identity)
    for name, shape, data in tensors:
        message.inputs.add(name=name, datatype="UINT8", shape=shape)
        message.raw_input_contents.append(data)
    for name in outputs:
        message.outputs.add(name=name)
    read = decode(message.SerializeToString())
    assert (read.header.model, read.header.version, read.id) == (model, version, identity)
    assert [(t.name, list(t.shape)) for t in read.header.inputs] == [(name, shape) for name, shape, _ in tensors]
    assert [bytes(numbers(data)) for data in read.data] == [data for _, _, data in tensors]
    assert list(read.header.outputs) == outputs


@given(st.binary(max_size=400))
def test_no_bytes_at_all_crash_the_decoder(message: bytes) -> None:
    """Any bytes are either a request or an InvalidRequest."""
    with suppress(InvalidRequest):
        decode(message)


@given(st.data())
def test_damaged_requests_are_read_or_refused_and_never_crash(data: st.DataObject) -> None:
    """Flipping bytes of a valid request gives a request or an InvalidRequest."""
    message = bytearray(request({"x": np.ones((2, 2), np.int32)}, id="some id").SerializeToString())
    for place in data.draw(st.lists(st.integers(0, len(message) - 1), max_size=3)):
        message[place] = data.draw(st.integers(0, 255))
    with suppress(InvalidRequest):
        decode(bytes(message))


def test_tensors_are_views_of_the_message() -> None:
    """Raw data are not copied: they share the message's memory."""
    message = request({"x": np.ones((2, 2), np.int32)}).SerializeToString()
    (data,) = decode(message).data
    assert isinstance(data, memoryview)
    assert data.obj is message


def test_equal_headers_are_one_object_whatever_the_id_and_the_data() -> None:
    """What callers repeat is parsed once."""
    headers = [
        decode(request({"x": np.full((2, 2), n, np.int32)}, id=str(n)).SerializeToString()).header for n in (1, 2)
    ]
    assert headers[0] is headers[1]


def test_fields_in_an_unusual_order_are_read_too() -> None:
    """Protobuf allows any order of fields: data before the header gives the same request."""
    head = ModelInferRequest(model_name="m")
    head.inputs.add(name="x", datatype="UINT8", shape=[1])
    data = ModelInferRequest(raw_input_contents=[b"\7"])
    read = decode(data.SerializeToString() + head.SerializeToString())
    assert (read.header.model, [bytes(numbers(d)) for d in read.data]) == ("m", [b"\7"])


@given(
    sizes=st.lists(st.integers(1, 3), min_size=1, max_size=30),
    kinds=st.lists(
        st.sampled_from(["same", "id", "outputs", "typed", "timing", "top", "predict", "filter"]),
        min_size=30,
        max_size=30,
    ),
)
def test_answers_written_together_equal_those_written_one_by_one(sizes: list[int], kinds: list[str]) -> None:
    """Whatever the neighbours, each request gets the bytes that it would have got alone."""
    made = {
        "same": InferHeader("m", "", ()),
        "outputs": InferHeader("m", "", (), outputs=("total",)),
        "typed": InferHeader("m", "", (), raw=False),
        "timing": InferHeader("m", "", (), timing=True),
        "top": InferHeader("m", "", (), outputs=("total",), top=(1,)),
        "predict": Header("m", "", ()),
        "filter": Header("m", "", (), outputs=("total",)),
    }
    # Requests with the same header have as many rows.
    headers = {(kind, size): replace(made.get(kind, made["same"])) for kind in {*kinds} for size in {*sizes}}
    asked = [
        InferenceRequest(headers[kind, size], "id" * (kind == "id"), ())
        for kind, size in zip(kinds, sizes, strict=False)
    ]
    rows = sum(sizes)
    arrays = (np.arange(rows * 2, dtype=np.int64), np.arange(rows, dtype=np.float32))
    outputs = Outputs([(2,), ()], [array.data.cast("B") for array in arrays], [16, 4])
    waited = [0.001 * n for n in range(len(sizes))]
    works = [
        Work(
            FakeReply(),
            INFER if isinstance(each.header, InferHeader) else PREDICT,
            each,
            Plan(INFO, size, (0,), (), (), ("", False, ())),
            (),
            0.0,
            0.0,
        )
        for each, size in zip(asked, sizes, strict=True)
    ]
    together = write_whole(BatchReport(INFO, works, outputs, 0.0, rows, rows, 0.002, 0.002, []), waited)
    starts = np.cumsum([0, *sizes])
    alone = [
        write(each, InferenceResult(size, outputs.shapes_of(size), outputs.rows(start, start + size), wait, 0.002))
        for each, size, start, wait in zip(works, sizes, starts.tolist(), waited, strict=False)
    ]
    assert list(together) == alone


@pytest.mark.parametrize("codec", [INFER, PREDICT], ids=["infer", "predict"])
def test_strings_are_cut_by_rows_and_outputs_without_rows_go_to_every_request(codec: Codec) -> None:
    """Each request gets the strings of its rows, and all of what has no rows, as often as it is answered."""
    specs = (TensorSpec("label", BY_NAME["BYTES"], (-1,)), TensorSpec("mean", BY_NAME["FP32"], ()))
    info = ModelInfo("m", "1", Signature("s", (), specs))
    labels = [b"a", b"bb", b"", b"\xff", b"e", b"f"]
    mean = np.float32(0.5).tobytes()
    outputs = Outputs([(), ()], [labels, memoryview(mean)], [1, None], uniform=False)
    header = InferHeader("m", "", ()) if codec is INFER else Header("m", "", ())
    asked = InferenceRequest(header, "", ())
    plan = Plan(info, 1, (0,), (), (), ("", False, ()))
    works = [Work(FakeReply(), codec, asked, plan, (), 0.0, 0.0) for _ in labels]
    report = BatchReport(info, works, outputs, 0.0, len(labels), 8, 0.002, 0.002, [])
    for label, answer in zip(labels, write_whole(report, [0.0] * len(labels)), strict=True):
        assert isinstance(answer, bytes)
        if codec is INFER:
            told = ModelInferResponse.FromString(answer)
            assert [list(each.shape) for each in told.outputs] == [[1], []]
            assert list(told.raw_output_contents) == [len(label).to_bytes(4, "little") + label, mean]
        else:
            answers = PredictResponse.FromString(answer).outputs
            assert list(answers["label"].string_val) == [label]
            assert (len(answers["mean"].tensor_shape.dim), answers["mean"].tensor_content) == (0, mean)


@given(st.lists(st.tuples(st.integers(1, 3), st.text("ab", max_size=2), st.sampled_from("mn")), max_size=20))
def test_a_remembered_head_never_stands_for_another(asked: list[tuple[int, str, str]]) -> None:
    """Requests that are as long as an earlier one, but say something else, are read for what they say."""
    for rows, identity, model in asked:
        x = np.full((rows, 2), rows, np.int32)
        for kept in (bytes, memoryview):
            read = decode(kept(request({"x": x}, model=model, id=identity).SerializeToString()))
            assert (read.header.model, read.id, read.header.inputs[0].shape) == (model, identity, (rows, 2))
            assert bytes(numbers(read.data[0])) == x.tobytes()


VALUES = {"b": [True, False, True, True], "u": [0, 1, 2, 200], "i": [-100, 0, 1, 100], "f": [-1.5, 0.0, 0.25, 1e3]}


@pytest.mark.parametrize("name", [each.name for each in DATATYPES if each.contents])
def test_typed_contents_carry_every_datatype_both_ways(name: str) -> None:
    """Values sent typed arrive as the bytes that they would have been raw, and typed requests get typed answers."""
    datatype = BY_NAME[name]
    assert datatype.contents
    values = VALUES[datatype.numpy.kind]
    message = ModelInferRequest(model_name="m")
    tensor = message.inputs.add(name="x", datatype=name, shape=[4])
    getattr(tensor.contents, datatype.contents).extend(values)
    read = decode(message.SerializeToString())
    array = np.array(values, datatype.numpy)
    assert read.data[0] == array.tobytes()
    assert isinstance(read.header, InferHeader)
    assert not read.header.raw
    info = ModelInfo("m", "1", Signature("s", (), (TensorSpec("y", datatype, (-1,)),)))
    result = InferenceResult(rows=4, shapes=[(4,)], outputs=[array.tobytes()], queue_s=0, compute_s=0)
    answer = ModelInferResponse.FromString(encode(read, info, result))
    assert list(getattr(answer.outputs[0].contents, datatype.contents)) == array.tolist()
    assert not answer.raw_output_contents


@pytest.mark.parametrize("name", ["FP16", "BF16"])
def test_half_floats_answer_raw_even_to_typed_requests(name: str) -> None:
    """FP16 and BF16 have no typed list: an answer that holds one is raw as a whole."""
    typed = InferenceRequest(InferHeader("m", "", (), raw=False), "", ())
    info = ModelInfo("m", "1", Signature("s", (), (TensorSpec("y", BY_NAME[name], (-1,)),)))
    result = InferenceResult(rows=1, shapes=[(1,)], outputs=[b"\0\1"], queue_s=0, compute_s=0)
    answer = ModelInferResponse.FromString(encode(typed, info, result))
    assert answer.raw_output_contents == [b"\0\1"]


def test_an_answer_names_the_model_the_version_the_id_and_every_output() -> None:
    """A response says who computed it, for which request, and what its bytes are."""
    asked = InferenceRequest(InferHeader("m", "", ()), "id-7", ())
    answer = ModelInferResponse.FromString(encode(asked, INFO, RESULT))
    assert (answer.model_name, answer.model_version, answer.id) == ("m", "3", "id-7")
    assert [(t.name, t.datatype, list(t.shape)) for t in answer.outputs] == [
        ("double", "INT64", [2, 2]),
        ("total", "FP32", [2]),
    ]
    assert answer.raw_output_contents == [bytes(numbers(data)) for data in RESULT.outputs]


def test_only_the_requested_outputs_come_back_in_the_requested_order() -> None:
    """Naming outputs leaves the others out."""
    asked = InferenceRequest(InferHeader("m", "", (), outputs=("total", "double")), "", ())
    answer = ModelInferResponse.FromString(encode(asked, INFO, RESULT))
    assert [t.name for t in answer.outputs] == ["total", "double"]
    assert answer.raw_output_contents == [bytes(numbers(RESULT.outputs[1])), bytes(numbers(RESULT.outputs[0]))]


def _mixed() -> ModelInferRequest:
    message = request({"x": np.ones((1, 2), np.int32)})
    message.inputs[0].contents.int_contents.extend([1, 1])
    return message


def _typed(datatype: str, **contents: list[object]) -> ModelInferRequest:
    message = ModelInferRequest(model_name="m")
    tensor = message.inputs.add(name="x", datatype=datatype, shape=[1])
    for name, values in contents.items():
        getattr(tensor.contents, name).extend(values)
    return message


def _signature(asked: str | int) -> ModelInferRequest:
    message = request({"x": np.ones((1, 2), np.int32)})
    if isinstance(asked, str):
        message.parameters["signature"].string_param = asked
    else:
        message.parameters["signature"].int64_param = asked
    return message


def _extra() -> ModelInferRequest:
    message = request({"x": np.ones((1, 2), np.int32)})
    message.raw_input_contents.append(b"more")
    return message


@pytest.mark.parametrize(
    ("message", "said"),
    [
        pytest.param(b"\xff\xff", "not a ModelInferRequest", id="garbage"),
        pytest.param(_mixed(), "raw_input_contents and typed contents in one request", id="mixed"),
        pytest.param(_extra(), "raw_input_contents has 2 entries for 1 inputs", id="extra-raw"),
        pytest.param(_typed("INT8", int_contents=[300]), "a value out of INT8's range", id="overflow"),
        pytest.param(_typed("INT8", fp32_contents=[1.0]), "expected its values in int_contents", id="wrong-list"),
        pytest.param(_signature(3), "parameter signature is int64_param; expected string_param", id="signature"),
        pytest.param(_typed("FP16"), "FP16, which only travels raw", id="half"),
        pytest.param(_typed("COMPLEX"), "datatype 'COMPLEX'; expected one of BOOL", id="unknown-datatype"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_with_the_reason(
    message: ModelInferRequest | bytes, said: str
) -> None:
    """The error says what was expected and what came."""
    with pytest.raises(InvalidRequest, match=said):
        decode(message if isinstance(message, bytes) else message.SerializeToString())


def test_a_request_names_the_signature_that_is_to_answer() -> None:
    """By a parameter; the default one answers who names none."""
    assert decode(_signature("explain").SerializeToString()).header.signature == "explain"
    assert not decode(request({"x": np.ones((1, 2), np.int32)}).SerializeToString()).header.signature
    body = b'{"parameters": {"signature": "explain"}, "inputs": []}'
    assert decode_json(body, "m", "").header.signature == "explain"
