"""Strings (BYTES), scalars and odd shapes over the Open Inference Protocol, in protobuf and in JSON."""

import json
import tracemalloc
from base64 import b64encode
from collections.abc import Callable
from math import inf, prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from horngate_protos.datatypes import BY_NAME
from horngate_protos.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from horngate_protos.wire import varint
from horngate_server.core.errors import InvalidRequest
from horngate_server.core.inference import InferenceRequest, InferenceResult, ModelInfo
from horngate_server.core.signature import Signature, TensorSpec
from horngate_server.protocols import json_reader
from horngate_server.protocols.open_inference.decode import _known, decode
from horngate_server.protocols.open_inference.encode import encode
from horngate_server.protocols.open_inference.header import InferHeader
from horngate_server.protocols.open_inference.json import JsonHeader, decode_json, encode_json
from horngate_server.protocols.strings import MOST_STRINGS
from horngate_server.protocols.wire import PARSED_BYTES

STRINGS = st.lists(st.binary(max_size=300) | st.text(max_size=30).map(str.encode), max_size=20)


def asking(elements: list[bytes], *, typed: bool = False, shape: list[int] | None = None) -> ModelInferRequest:
    """Make a request with strings, raw as tritonclient makes them."""
    message = ModelInferRequest(model_name="m")
    tensor = message.inputs.add(name="x", datatype="BYTES", shape=[len(elements)] if shape is None else shape)
    if typed:
        tensor.contents.bytes_contents.extend(elements)
    else:
        array = np.array(elements, object).reshape(len(elements))
        message.raw_input_contents.append(serialize_byte_tensor(array).item() if elements else b"")
    return message


def answer(
    datatype: str, data: Any, shape: tuple[int, ...], header: InferHeader | None = None
) -> tuple[InferenceRequest, ModelInfo, InferenceResult]:
    """Return what an answer with one output is written of."""
    info = ModelInfo("m", "1", Signature("s", (), (TensorSpec("y", BY_NAME[datatype], None),)))
    asked = InferenceRequest(header or JsonHeader("m", "", ()), "", ())
    return asked, info, InferenceResult(1, [shape], [data], 0.0, 0.0)


@given(elements=STRINGS, typed=st.booleans())
def test_strings_are_read_as_tritons_client_writes_them_and_the_other_way_round(
    elements: list[bytes], typed: bool
) -> None:
    """Raw and typed; the answer comes as the request did."""
    read = decode(asking(elements, typed=typed).SerializeToString())
    assert read.data == [elements]
    assert isinstance(read.header, InferHeader)
    told = ModelInferResponse.FromString(encode(*answer("BYTES", elements, (len(elements),), read.header)))
    assert (told.outputs[0].datatype, list(told.outputs[0].shape)) == ("BYTES", [len(elements)])
    if read.header.raw:
        assert deserialize_bytes_tensor(told.raw_output_contents[0]).tolist() == elements
    else:
        assert list(told.outputs[0].contents.bytes_contents) == elements


def test_strings_beside_numbers_are_read_apart() -> None:
    """Each input in its own way, numbers still as views of the message."""
    message = asking([b"a", b""])
    message.inputs.add(name="n", datatype="INT8", shape=[3])
    message.raw_input_contents.append(b"\1\2\3")
    words, counts = decode(message.SerializeToString()).data
    assert words == [b"a", b""]
    assert isinstance(counts, memoryview)
    assert bytes(counts) == b"\1\2\3"


def _raw(content: bytes, shape: list[int]) -> ModelInferRequest:
    message = asking([], shape=shape)
    message.raw_input_contents[0] = content
    return message


@pytest.mark.parametrize(
    ("message", "said"),
    [
        pytest.param(_raw(b"\1\0\0\0a", [2]), r"1 strings; expected those of the shape \[2\]", id="too-few"),
        pytest.param(_raw(b"\1\0\0\0a\1\0", [2]), "string 1 begins with 2 bytes; expected a length of four", id="cut"),
        pytest.param(
            _raw(b"\5\0\0\0abc", [1]),
            "string 0 has a length of 5 bytes; expected at most the 3 that are left",
            id="past",
        ),
        pytest.param(_raw(b"\1\0\0\0abc", [1]), "2 bytes behind its last string; expected 1 strings", id="trailing"),
        pytest.param(_raw(b"\xff\xff\xff\xff", [1]), "a length of 4294967295 bytes", id="4GiB"),
        pytest.param(_raw(b"a", [0]), "1 bytes behind its last string; expected 0 strings", id="none"),
        pytest.param(
            asking([b"a", b"b"], typed=True, shape=[3]), r"2 strings; expected 3 for the shape \[3\]", id="typed"
        ),
        pytest.param(asking([], shape=[MOST_STRINGS + 1]), "1048577 strings; expected at most 1048576", id="many"),
        pytest.param(asking([], shape=[-1]), r"shape \[-1\]; expected axes from 0 to 2147483647", id="negative"),
        pytest.param(asking([], shape=[1, 1 << 40, 0]), "expected axes from 0 to 2147483647", id="long-axis"),
        pytest.param(asking([], shape=[1 << 62]), "expected axes from 0 to 2147483647", id="longer-axis"),
        pytest.param(
            asking([], shape=[1 << 20, 1 << 20, 0]), "product of its axes of at most 2147483647", id="product"
        ),
        pytest.param(asking([], shape=[1] * 65), "65 axes; expected at most 64", id="axes"),
    ],
)
def test_strings_that_do_not_fit_are_refused_with_the_reason(message: ModelInferRequest, said: str) -> None:
    """What was expected and what came, before anything is as large as the shape says."""
    content = message.SerializeToString()
    tracemalloc.start()
    with pytest.raises(InvalidRequest, match=said):
        decode(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("shape", [[1, 1 << 40, 0], [-1, 2], [1 << 62, 2], [1] * 65])
@pytest.mark.parametrize("datatype", ["FP32", "BYTES", "NONSENSE"])
def test_shapes_that_no_tensor_has_are_refused_whatever_the_type(datatype: str, shape: list[int]) -> None:
    """In protobuf, raw and typed, and in JSON."""
    message = ModelInferRequest(model_name="m")
    message.inputs.add(name="x", datatype=datatype, shape=shape)
    body = {"inputs": [{"name": "x", "datatype": datatype, "shape": shape, "data": []}]}
    with pytest.raises(InvalidRequest, match="input 'x' has"):
        decode(message.SerializeToString())
    message.raw_input_contents.append(b"")
    with pytest.raises(InvalidRequest, match="input 'x' has"):
        decode(message.SerializeToString())
    with pytest.raises(InvalidRequest, match="input 'x' has"):
        decode_json(json.dumps(body).encode(), "m", "")


def test_the_strings_of_all_inputs_count_together() -> None:
    """Many inputs are no way around the bound."""
    message = ModelInferRequest(model_name="m")
    for name in "ab":
        message.inputs.add(name=name, datatype="BYTES", shape=[MOST_STRINGS // 2 + 1])
        message.raw_input_contents.append(b"")
    with pytest.raises(InvalidRequest, match="the request has 1048578 strings; expected at most 1048576"):
        decode(message.SerializeToString())


def test_strings_are_never_remembered() -> None:
    """Two messages of one length, twice: each is read for what it says."""
    known = dict(_known)
    for word in (b"one", b"two", b"one"):
        assert decode(asking([word]).SerializeToString()).data == [[word]]
    assert _known == known


def test_a_large_typed_message_may_have_as_many_bytes_of_strings_as_there_is_room_for() -> None:
    """Strings are as large in memory as on the wire; small fields without end are not."""
    message = asking([bytes(PARSED_BYTES), b"a"], typed=True)
    assert decode(message.SerializeToString()).data == [[bytes(PARSED_BYTES), b"a"]]
    head = b"\x2a" + varint(2 * PARSED_BYTES + 2)
    for small in (b"\x0a\0", b"\x2a\0"):  # a name again and again, contents again and again
        with pytest.raises(InvalidRequest, match="larger tensors travel in raw_input_contents"):
            decode(head + b"\x0a\0" + small * PARSED_BYTES)


@pytest.mark.parametrize(
    ("inputs", "outputs", "said"),
    [
        ("COMPLEX64", "FP32", "input 'x' is COMPLEX64, which the Open Inference Protocol has no datatype for"),
        ("FP32", "COMPLEX128", "output 'y' is COMPLEX128.*; expected TensorFlow Serving's Predict"),
        ("FP32", "BYTES", "output 'y' is BYTES; expected classification of an output of numbers"),
    ],
)
def test_what_the_protocol_cannot_carry_of_a_signature_is_refused(inputs: str, outputs: str, said: str) -> None:
    """Complex numbers, and the highest ones of strings."""
    signature = Signature("s", (TensorSpec("x", BY_NAME[inputs], (-1,)),), (TensorSpec("y", BY_NAME[outputs], (-1,)),))
    with pytest.raises(InvalidRequest, match=said):
        InferHeader("m", "", (), outputs=("y",), top=(3,)).check(signature)


# --- JSON ---


def told(datatype: str, data: Any, shape: tuple[int, ...]) -> Any:
    """Return the only output of an answer in JSON, as a parser that knows no NaN reads it."""

    def no_constant(name: str) -> Any:
        raise AssertionError(name)

    body = encode_json(*answer(datatype, data, shape))
    return json.loads(body, parse_constant=no_constant)["outputs"][0]


def given_json(datatype: str, data: str, shape: list[int] | None = None, **parameters: Any) -> Any:
    """Read a tensor whose data are this JSON."""
    count = len(json.loads(data)) if shape is None else None
    head = json.dumps({"name": "x", "datatype": datatype, "shape": shape or [count], "parameters": parameters})
    return decode_json(f'{{"inputs": [{head[:-1]}, "data": {data}}}]}}'.encode(), "m", "").data[0]


@given(STRINGS)
def test_strings_go_through_json_unchanged(elements: list[bytes]) -> None:
    """Text as text, what is no UTF-8 as base64; a request takes what an answer has."""
    output = told("BYTES", elements, (len(elements),))
    assert given_json("BYTES", json.dumps(output["data"])) == elements
    for element, written in zip(elements, output["data"], strict=True):
        assert written == {"b64": b64encode(element).decode()} or written == element.decode()


@pytest.mark.parametrize("large", [False, True])
def test_numbers_among_jsons_strings_are_refused(large: bool) -> None:
    """In a body of any size."""
    strings = ['"a"'] * (json_reader.WHOLE_BYTES if large else 1)
    with pytest.raises(InvalidRequest, match="input 'x' has 1 among its data; expected strings"):
        given_json("BYTES", f"[{', '.join([*strings, '1', '2', *strings])}]")


def test_a_tensors_strings_may_all_be_base64() -> None:
    """As KServe's and MLServer's callers say it."""
    assert given_json("BYTES", '["/w==", ""]', content_type="base64") == [b"\xff", b""]
    assert given_json("BYTES", '["/w=="]', content_type="str") == [b"/w=="]


FLOATS = ("FP16", "FP32", "FP64")


@pytest.mark.parametrize("datatype", FLOATS)
def test_what_is_no_number_goes_through_valid_json(datatype: str) -> None:
    """NaN and the infinities are strings in an answer, as in protobuf's JSON; a request may leave out the quotes."""
    kind = BY_NAME[datatype].numpy
    values = np.array([np.nan, inf, -inf, 0.5], kind)
    written = told(datatype, values.tobytes(), (4,))["data"]
    assert written == ["NaN", "Infinity", "-Infinity", 0.5]
    for data in (json.dumps(written), "[NaN, Infinity, -Infinity, 0.5]"):
        np.testing.assert_array_equal(np.frombuffer(given_json(datatype, data), kind), values)


def test_bf16_answers_are_the_numbers_that_they_are() -> None:
    """The sixteen bits are the upper half of a float's."""
    bits = (np.array([1.5, np.nan], np.float32).view(np.uint32) >> 16).astype(np.uint16)
    assert told("BF16", bits.tobytes(), (2,))["data"] == [1.5, "NaN"]


@pytest.mark.parametrize(
    ("datatype", "data", "said"),
    [
        ("FP16", "[1, 65520]", "65520 among its data, which FP16 cannot hold"),
        ("FP32", "[1, 1e39]", r"1e\+39 among its data, which FP32 cannot hold"),
        ("FP32", "[-1e39, NaN]", r"-1e\+39 among its data, which FP32 cannot hold"),
        ("FP64", "[1e309]", "the body has the number 1e309; expected none beyond what 64 bits hold"),
        ("FP64", "[1" + "0" * 400 + "]", "10000.* among its data, which FP64 cannot hold"),
        ("UINT8", "[0, 256]", "256 among its data, which UINT8 cannot hold"),
        ("INT8", "[-129]", "-129 among its data, which INT8 cannot hold"),
        ("INT64", "[9223372036854775808]", "9223372036854775808 among its data, which INT64 cannot hold"),
        ("UINT64", "[-1]", "-1 among its data, which UINT64 cannot hold"),
        ("INT32", '["NaN"]', "a string among its data, which is not INT32's"),
        ("FP32", '["nan"]', "a string among its data, which is not FP32's"),
        ("FP32", "[null]", "null among its data, which is not FP32's"),
        ("BYTES", "[1]", r'1 among its data; expected strings, or {"b64": "..."} for bytes'),
        ("BYTES", "[NaN]", "NaN among its data; expected strings"),
        ("BYTES", '[{"b64": "a"}]', "'a' among its data; expected base64"),
        ("BYTES", '[{"b64": "ö"}]', "'ö' among its data; expected base64"),
        ("BYTES", '[{"b64": "", "x": 1}]', "an object among its data; expected strings"),
        ("COMPLEX64", "[1]", "datatype 'COMPLEX64'; expected one of BOOL"),
        ("BF16", "[1]", "datatype 'BF16'; expected one of BOOL"),
    ],
)
def test_values_that_a_datatype_has_not_are_refused(datatype: str, data: str, said: str) -> None:
    """None of them becomes another value; the value at fault is named."""
    with pytest.raises(InvalidRequest, match=said):
        given_json(datatype, data, [2] if "," in data and "b64" not in data else [1])


@pytest.mark.parametrize("shape", [(), (2, 0), (2, 3)])
@pytest.mark.parametrize("write", [encode, encode_json])
def test_an_answers_shapes_are_the_models(write: Callable[..., bytes], shape: tuple[int, ...]) -> None:
    """A scalar, an empty one, one without a batch."""
    data = np.arange(prod(shape), dtype=np.float32).tobytes()
    body = write(*answer("FP32", data, shape))
    if write is encode:
        response = ModelInferResponse.FromString(body)
        assert tuple(response.outputs[0].shape) == shape
        assert response.raw_output_contents == [data]
    else:
        output = json.loads(body)["outputs"][0]
        assert (tuple(output["shape"]), output["data"]) == (shape, np.frombuffer(data, np.float32).tolist())


@pytest.mark.parametrize(
    ("declared", "shape", "expected"),
    [
        pytest.param((-1, 3), (2, 3), (2, 2), id="rows"),
        pytest.param((-1,), (2,), (2, 1), id="a-value-a-row"),
        pytest.param((6,), (6,), (1, 2), id="a-vector"),
        pytest.param((), (), (1, 1), id="a-scalar"),
        pytest.param(None, (2, 3), (2, 2), id="unknown-rank"),
    ],
)
def test_classes_are_of_each_row_or_of_the_whole(
    declared: tuple[int, ...] | None, shape: tuple[int, ...], expected: tuple[int, int]
) -> None:
    """An output without rows is a single one."""
    info = ModelInfo("m", "1", Signature("s", (), (TensorSpec("y", BY_NAME["FP32"], declared),)))
    header = JsonHeader("m", "", (), outputs=("y",), top=(2,))
    data = np.arange(prod(shape), dtype=np.float32).tobytes()
    result = InferenceResult(1, [shape], [data], 0.0, 0.0)
    response = ModelInferResponse.FromString(encode(InferenceRequest(header, "", ()), info, result))
    assert tuple(response.outputs[0].shape) == expected
    assert len(deserialize_bytes_tensor(response.raw_output_contents[0])) == prod(expected)
