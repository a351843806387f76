"""What must hold of everything that reads a caller's bytes: decode, fit, plan, arrange, and write an answer.

Whatever comes in, what comes out is a request or an error of the request's; and where protobuf's own parser reads a
message, the fast paths read the same.
"""

from contextlib import suppress
from math import prod
from unittest.mock import patch

from google.protobuf.message import DecodeError

from fuzz.seeds import METHODS
from horngate_protos.datatypes import BY_NAME, BYTES
from horngate_protos.open_inference_pb2 import ModelInferRequest
from horngate_protos.tensorflow_serving_pb2 import PredictRequest
from horngate_server.core.codec import Codec
from horngate_server.core.errors import RequestError
from horngate_server.core.inference import Data, InferenceRequest, InferenceResult, ModelInfo
from horngate_server.core.signature import Signature, TensorSpec
from horngate_server.engine.validation import arrange, plan
from horngate_server.protocols import examples, json_reader, open_inference, tensorflow_serving
from horngate_server.protocols.open_inference.json import JSON, decode_json
from horngate_server.protocols.strings import pack

MAX_ROWS = 64


def _info(inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> ModelInfo:
    return ModelInfo("m", "1", Signature("serving_default", inputs, outputs), ("zero", "one"))


_SCORES = TensorSpec("probabilities", BY_NAME["FP32"], (-1, 3))
_CLASSES = TensorSpec("classes", BY_NAME["BYTES"], (-1, 3))
INFOS = {
    "m": _info((TensorSpec("x", BY_NAME["INT32"], (-1, 2)),), (TensorSpec("double", BY_NAME["FP32"], (-1,)), _SCORES)),
    "s": _info((TensorSpec("words", BY_NAME["BYTES"], (-1, 2)),), (_CLASSES, _SCORES)),
    "e": _info(
        (TensorSpec("inputs", BY_NAME["BYTES"], (-1,)),), (_CLASSES, TensorSpec("outputs", BY_NAME["FP32"], (-1,)))
    ),
    "o": _info(
        (
            TensorSpec("flag", BY_NAME["BOOL"], ()),
            TensorSpec("half", BY_NAME["FP16"], None),
        ),
        (TensorSpec("all", BY_NAME["INT64"], None), TensorSpec("one", BY_NAME["BYTES"], ())),
    ),
    "c": _info((TensorSpec("c", BY_NAME["COMPLEX64"], (-1,)),), (TensorSpec("y", BY_NAME["COMPLEX128"], None),)),
}
"""By a request's model: numbers, strings, serialized examples, what has no rows, complex numbers."""
CODECS: dict[str, Codec] = {
    "infer": open_inference.INFER,
    "predict": tensorflow_serving.PREDICT,
    "classify": examples.CLASSIFY,
    "regress": examples.REGRESS,
    "json": JSON,
}


def one(data: bytes) -> None:
    """Do what the server does with a message; anything but an answer or a RequestError is a finding."""
    if not data:
        return
    method, message = METHODS[data[0] % len(METHODS)], data[1:]
    codec = CODECS[method]
    with suppress(RequestError):
        request = _read_json(message) if method == "json" else codec.decode(message)
        _compare(method, message, request)
        info = INFOS.get(request.header.model, INFOS["m"])
        if method == "json" and any(each.datatype == BYTES.name for each in request.header.inputs):
            info = INFOS["s"]
        if codec.fit is not None:
            request = codec.fit(request, info.signature)
        request.header.check(info.signature)
        planned = plan(request.header, info, MAX_ROWS)
        filled = arrange(request, planned)
        assert [len(each) for each in filled] == list(planned.sizes)
        codec.encode(request, info, _result(info, planned.rows))


# --- private ------------------------------------------------------------------------------------------


def _result(info: ModelInfo, rows: int) -> InferenceResult:
    """Return what a model could answer with: zeros, and strings that are no text."""
    shapes = [(rows, *spec.row) if spec.shape else () for spec in info.signature.outputs]
    data: list[Data] = [
        [b"\xff\0"] * prod(shape) if spec.datatype is BYTES else bytes(spec.size(shape))
        for spec, shape in zip(info.signature.outputs, shapes, strict=True)
    ]
    return InferenceResult(rows, shapes, data, 0.0, 0.0)


def _read_json(message: bytes) -> InferenceRequest:
    """Read JSON as a small body and as a large one: the same comes out, or both are refused."""
    read: list[InferenceRequest | RequestError] = []
    for whole_bytes in (json_reader.WHOLE_BYTES, 0):
        with patch.object(json_reader, "WHOLE_BYTES", whole_bytes):
            try:
                read.append(decode_json(message, "m", ""))
            except RequestError as error:
                read.append(error)
    small, large = read
    if isinstance(small, RequestError):
        assert isinstance(large, RequestError), (small, large)
        raise small
    deep = isinstance(large, RequestError) and "recursion" in str(large)  # json's own parser goes deeper
    assert deep or repr(small) == repr(large), (small, large)
    return small


def _compare(method: str, message: bytes, request: InferenceRequest) -> None:
    """Hold what was read against protobuf's own parser."""
    header = request.header
    if method == "infer":
        theirs = ModelInferRequest.FromString(message)
        assert (header.model, header.version, request.id) == (theirs.model_name, theirs.model_version, theirs.id)
        assert [(t.name, t.datatype, t.shape) for t in header.inputs] == [
            (t.name, t.datatype, tuple(t.shape)) for t in theirs.inputs
        ]
        assert [t for t in header.outputs] == [t.name for t in theirs.outputs]  # noqa: C416 - a list beside a list
        if theirs.raw_input_contents:
            assert [pack(d) if isinstance(d, list) else bytes(d) for d in request.data] == list(
                theirs.raw_input_contents
            )
        for tensor, data in zip(theirs.inputs, request.data, strict=True):
            assert isinstance(data, list) == (tensor.datatype == BYTES.name)
            assert not isinstance(data, list) or len(data) == prod(tensor.shape)
            assert theirs.raw_input_contents or not isinstance(data, list) or data == tensor.contents.bytes_contents
    elif method == "predict":
        with suppress(DecodeError):
            told = PredictRequest.FromString(message)
            assert (header.model, header.signature) == (told.model_spec.name, told.model_spec.signature_name)
            assert sorted(t.name for t in header.inputs) == sorted(told.inputs)
            assert list(header.outputs) == list(told.output_filter)
            for given, data in zip(header.inputs, request.data, strict=True):
                proto = told.inputs[given.name]
                assert given.shape == tuple(dim.size for dim in proto.tensor_shape.dim)
                if isinstance(data, list):
                    assert len(data) == max(prod(given.shape), len(proto.string_val) * (not proto.tensor_content))
                    assert proto.tensor_content or data[: len(proto.string_val)] == proto.string_val
                else:
                    assert not proto.tensor_content or bytes(data) == proto.tensor_content
