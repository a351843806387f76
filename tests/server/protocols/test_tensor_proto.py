"""TensorProto: read and written as TensorFlow itself reads and writes it."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from horngate_protos.datatypes import BY_NAME, BY_TENSORFLOW, BYTES, COMPLEX, Datatype
from horngate_protos.tensorflow_pb2 import TensorProto, TensorShapeProto
from horngate_protos.tensorflow_serving_pb2 import PredictRequest, PredictResponse
from horngate_protos.wire import varint
from horngate_server.core.errors import InvalidRequest
from horngate_server.core.inference import Data, Header, InferenceRequest, InferenceResult, ModelInfo
from horngate_server.core.signature import Signature, TensorSpec
from horngate_server.engine.validation import arrange, plan
from horngate_server.protocols.tensor_proto import data_of, shape_of
from horngate_server.protocols.tensorflow_serving import decode, encode
from horngate_server.protocols.wire import PARSED_BYTES

READER = Path(__file__).parents[2] / "support/tensorflow_reader.py"
Read = Callable[[TensorProto], Any]


@pytest.fixture(scope="module")
def tensorflow() -> Iterator[Read]:
    """TensorFlow's own reader, in a process of its own; it starts once."""
    with subprocess.Popen(
        [sys.executable, READER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        talk = (process.stdin, process.stdout)

        def read(tensor: TensorProto) -> Any:
            talk[0].write(tensor.SerializeToString().hex() + "\n")
            talk[0].flush()
            return json.loads(talk[1].readline())

        yield read
        process.stdin.close()
        assert process.wait(30) == 0


def in_hex(data: Data) -> Any:
    """Return elements as the reader writes them."""
    return [each.hex() for each in data] if isinstance(data, list) else bytes(data).hex()


def numbers_of(datatype: Datatype) -> st.SearchStrategy[Any]:
    """Values of a list that hold a datatype's elements."""
    if datatype.values == "bool_val":
        return st.booleans()
    if datatype.values == "half_val":
        return st.integers(0, 0xFFFF)
    if datatype.numpy.kind in "iu":
        limits = np.iinfo(datatype.numpy.name)
        return st.integers(int(limits.min), int(limits.max))
    wide = datatype.name in {"FP64", "COMPLEX128"}
    return st.floats(width=64 if wide else 32, allow_nan=False)


@st.composite
def tensors(draw: st.DrawFn) -> TensorProto:
    """Tensors of every type, in every form: whole or short lists, contents, none of them."""
    datatype = draw(st.sampled_from(list(BY_NAME.values())))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    elements = prod(shape)
    tensor = TensorProto(
        dtype=datatype.tensorflow, tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=n) for n in shape])
    )
    count = draw(st.sampled_from([0, 1, elements])) if elements else 0
    if datatype is BYTES:
        strings = draw(st.lists(st.binary(max_size=200), min_size=count, max_size=count))
        if count == elements and draw(st.booleans()):
            tensor.tensor_content = b"".join(map(varint, map(len, strings))) + b"".join(strings)
        else:
            tensor.string_val.extend(strings)
    elif count == elements and draw(st.booleans()):
        size = elements * datatype.numpy.itemsize
        content = draw(st.binary(min_size=size, max_size=size))
        tensor.tensor_content = bytes(each & 1 for each in content) if datatype.name == "BOOL" else content
    else:
        count *= 2 if datatype.numpy.kind == "c" else 1
        getattr(tensor, datatype.values).extend(draw(st.lists(numbers_of(datatype), min_size=count, max_size=count)))
    return tensor


def decoded(tensor: TensorProto) -> tuple[str, list[int], Any]:
    """Send a tensor to a model that takes just its shape; return what the model is given."""
    request = PredictRequest(inputs={"x": tensor})
    request.model_spec.name = "m"
    read = decode(request.SerializeToString())
    [header] = read.header.inputs
    spec = TensorSpec("x", BY_TENSORFLOW[tensor.dtype], header.shape)
    [data] = arrange(read, plan(read.header, ModelInfo("m", "1", Signature("s", (spec,), ())), 100))
    return header.datatype, list(header.shape), in_hex(data)


@settings(max_examples=400)
@given(tensor=tensors())
def test_every_tensor_is_read_as_tensorflow_reads_it(tensorflow: Read, tensor: TensorProto) -> None:
    """Whatever its type and its form: the same shape, the same elements, missing ones as TensorFlow fills them."""
    expected = tensorflow(tensor)
    found = (BY_TENSORFLOW[tensor.dtype].name, expected["shape"], expected["data"])
    assert decoded(tensor) == found
    assert decoded(TensorProto.FromString(bytes.fromhex(expected["written"]))) == found, "as TensorFlow's Python has it"


@settings(max_examples=100)
@given(tensor=tensors())
def test_tensorflow_reads_every_answer(tensorflow: Read, tensor: TensorProto) -> None:
    """Numbers as contents, complex ones and strings in their lists: TensorFlow finds what the model returned."""
    shape = shape_of("x", tensor)
    datatype = BY_TENSORFLOW[tensor.dtype]
    data = data_of("x", tensor)
    if len(data) != TensorSpec("x", datatype, None).size(shape):
        data = [b"a\0"] * prod(shape) if datatype is BYTES else bytes(prod(shape) * datatype.numpy.itemsize)
    info = ModelInfo("m", "1", Signature("s", (), (TensorSpec("y", datatype, None),)))
    result = InferenceResult(1, [shape], [data], 0.0, 0.0)
    answer = PredictResponse.FromString(encode(InferenceRequest(Header("m", "", ()), "", ()), info, result))
    told = answer.outputs["y"]
    assert bool(told.tensor_content) == (bool(prod(shape)) and datatype is not BYTES and datatype not in COMPLEX)
    read = tensorflow(told)
    assert (read["shape"], read["data"]) == (list(shape), in_hex(data))


def strings(count: int, **fields: Any) -> TensorProto:
    """Make a vector of strings."""
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=count)])
    return TensorProto(dtype=BYTES.tensorflow, tensor_shape=shape, **fields)


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        pytest.param(
            strings(2, tensor_content=b"\3\1ab"), "4 bytes of tensor_content; expected the lengths", id="short"
        ),
        pytest.param(strings(1, tensor_content=b"\1ab"), "3 bytes of tensor_content", id="long"),
        pytest.param(strings(9, tensor_content=b"\1\1"), "the lengths of 9 strings", id="few-lengths"),
        pytest.param(strings(1, tensor_content=b"\xff" * 9), "the lengths of 1 strings", id="endless-length"),
        pytest.param(strings((1 << 20) + 1), "1048577 strings; expected at most 1048576", id="too-many"),
        pytest.param(strings(1000, string_val=[bytes(5000)]), "no more than 4194304 bytes", id="too-much-filling"),
        pytest.param(strings(-1), "axes from 0 to 2147483647", id="negative"),
        pytest.param(strings(1 << 40), "axes from 0 to 2147483647", id="long-axis"),
        pytest.param(
            TensorProto(dtype=8, scomplex_val=[1.0]), "1 values in scomplex_val; expected pairs", id="half-a-number"
        ),
    ],
)
def test_a_tensor_that_makes_no_sense_is_refused_with_the_reason(tensor: TensorProto, said: str) -> None:
    """What was expected and what came; nothing is made as large as a shape says."""
    with pytest.raises(InvalidRequest, match=said):
        decoded(tensor)


def test_more_strings_than_the_shape_has_are_refused() -> None:
    """TensorFlow would drop what is too much."""
    with pytest.raises(InvalidRequest, match="3 strings; expected 2"):
        decoded(strings(2, string_val=[b"a", b"b", b"c"]))


def test_wrong_types_are_called_by_tensorflows_names() -> None:
    """Callers of TensorFlow Serving's API know no others, and no numbers."""
    signature = Signature("s", (TensorSpec("x", BY_NAME["FP32"], (-1,)),), ())
    for number, name in ((7, "DT_STRING"), (11, "DT_QINT8"), (101, "DT_FLOAT_REF"), (99, "DataType 99")):
        request = PredictRequest(inputs={"x": TensorProto(dtype=number, tensor_content=b"1234")})
        request.model_spec.name = "m"
        if number == BYTES.tensorflow:
            request.inputs["x"].CopyFrom(strings(1, string_val=[b"a"]))
        with pytest.raises(InvalidRequest, match=f"input 'x' is {name}.*; expected DT_FLOAT"):
            decode(request.SerializeToString()).header.check(signature)


def test_a_large_message_may_have_as_many_bytes_of_strings_as_there_is_room_for() -> None:
    """Strings are as large in memory as on the wire; only numbers in lists, and many fields, are not."""
    request = PredictRequest(inputs={"x": strings(2, string_val=[bytes(PARSED_BYTES), b"a"])})
    request.model_spec.name = "m"
    [found] = decode(request.SerializeToString()).data
    assert found == [bytes(PARSED_BYTES), b"a"]
    request.inputs["y"].int_val.extend([1] * (PARSED_BYTES + 1))
    with pytest.raises(InvalidRequest, match="larger tensors travel in tensor_content"):
        decode(request.SerializeToString())


@pytest.mark.parametrize("field", [b"\x08\0", b"\x1a\0", b"\x12\2\x0a\0"])
def test_many_small_fields_are_refused_before_they_are_parsed(field: bytes) -> None:
    """Counting them takes no longer than finding a thousand."""
    with pytest.raises(InvalidRequest, match="larger tensors travel in tensor_content"):
        decode(field * (PARSED_BYTES // len(field) + 1))


def test_strings_are_never_remembered() -> None:
    """Two messages of one length: each is read for what it says, and no header holds the strings of another."""
    for word in (b"one", b"two"):
        for fields in ({"string_val": [word]}, {"tensor_content": b"\3" + word}):
            request = PredictRequest(inputs={"x": strings(1, **fields)})
            request.model_spec.name = "m"
            assert decode(request.SerializeToString()).data == [[word]]
