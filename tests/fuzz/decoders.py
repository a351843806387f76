"""Fuzzes everything that reads a caller's bytes, in one process: decode, fit, plan, arrange, and write an answer.

    python tests/fuzz/decoders.py [--seconds 60] [--runs 5000000]

atheris guides it by coverage, with mutations that know protobuf's structure. Whatever comes in, what comes out is a
request or an error of the request's; and where protobuf's own parser reads a message, the fast paths read the same.
"""

import argparse
import resource
import sys
import tempfile
from contextlib import suppress
from math import prod
from pathlib import Path
from random import Random
from typing import Any

import atheris

with atheris.instrument_imports(include=["horngate_server.protocols", "horngate_server.admission"]):
    from horngate_server.admission import arrange, plan
    from horngate_server.protocols import Codec, examples, open_inference, tensorflow_serving
    from horngate_server.protocols.open_inference.json import JSON, decode_json

from google.protobuf.message import DecodeError

from fuzz.mutations import mutate, mutate_json
from fuzz.seeds import CORPUS, METHODS, corpus
from horngate_protos.datatypes import BY_NAME, BYTES
from horngate_protos.open_inference_pb2 import ModelInferRequest
from horngate_protos.tensorflow_serving_pb2 import PredictRequest
from horngate_server.errors import RequestError
from horngate_server.protocols.strings import pack
from horngate_server.request import Data, Header, InferenceRequest, InferenceResult, ModelInfo
from horngate_server.signature import Signature, TensorSpec

MAX_ROWS = 64
GROWTH_BYTES = 256 << 20
"""More memory than this is a finding: messages have 16 KiB."""


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
SEEDS = corpus()


def one(data: bytes) -> None:
    """Do what the server does with a message; anything but an answer or a RequestError is a finding."""
    if not data:
        return
    method, message = METHODS[data[0] % len(METHODS)], data[1:]
    codec = CODECS[method]
    with suppress(RequestError):
        request = decode_json(message, "m", "") if method == "json" else codec.decode(message)
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


def mutated(data: bytes, max_size: int, seed: int) -> bytes:
    """Return a neighbour of an input (atheris's custom mutator)."""
    random = Random(seed)
    if not data or random.random() < 0.02:
        return bytes(atheris.Mutate(data, max_size))
    number = data[0] % len(METHODS)
    method = METHODS[number]
    if method == "json":
        return bytes([number]) + mutate_json(data[1:], random)[: max_size - 1]
    return bytes([number]) + mutate(data[1:], random, SEEDS[method])[: max_size - 1]


def main() -> None:
    """Fuzz until the time or the runs are over; the corpus grows in a folder that is thrown away."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=0, help="0: until the runs are over")
    parser.add_argument("--runs", type=int, default=-1, help="-1: until the time is over")
    parser.add_argument("--keep", type=Path, help="a folder for what was found to be interesting")
    parser.add_argument("--prove", action="store_true", help="break a decoder first: this run must find it")
    parser.add_argument("--seed", type=int, default=0, help="0: another one every time")
    asked = parser.parse_args()
    if asked.prove:
        tensorflow_serving._whole_header = _broken
    # Not libFuzzer's own limit: that is the peak since before exec, our parent's memory included.
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + GROWTH_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with tempfile.TemporaryDirectory() as scratch:
        found = asked.keep or Path(scratch)
        found.mkdir(exist_ok=True)
        atheris.Setup(
            [
                sys.argv[0], str(found), str(CORPUS), f"-max_total_time={asked.seconds}", f"-runs={asked.runs}",
                f"-seed={asked.seed}", "-max_len=16384", "-timeout=10", "-rss_limit_mb=0", "-print_final_stats=1",
                f"-artifact_prefix={found}/",
            ],
            one,
            custom_mutator=mutated,
        )  # fmt: skip
        atheris.Fuzz()


# --- private ------------------------------------------------------------------------------------------


def _broken(message: bytes, view: memoryview, spans: list[Any]) -> Header:
    """Do what `tensorflow_serving._whole_header` does, but believe that no input comes twice."""
    names = [str(view[span.name], "utf-8", "replace") for span in spans]
    return tensorflow_serving._header(tensorflow_serving._from_bytes(message), names)


def _result(info: ModelInfo, rows: int) -> InferenceResult:
    """Return what a model could answer with: zeros, and strings that are no text."""
    shapes = [(rows, *spec.row) if spec.shape else () for spec in info.signature.outputs]
    data: list[Data] = [
        [b"\xff\0"] * prod(shape) if spec.datatype is BYTES else bytes(spec.size(shape))
        for spec, shape in zip(info.signature.outputs, shapes, strict=True)
    ]
    return InferenceResult(rows, shapes, data, 0.0, 0.0)


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


if __name__ == "__main__":
    main()
