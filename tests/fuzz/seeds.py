"""Valid messages of every method that computes: what fuzzing begins with. ``seeds.py`` writes them to corpus/."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import Message

from horngate_protos.datatypes import BY_NUMPY
from horngate_protos.open_inference_pb2 import ModelInferRequest
from horngate_protos.tensorflow_pb2 import Example, TensorProto, TensorShapeProto
from horngate_protos.tensorflow_serving_pb2 import ClassificationRequest, PredictRequest, RegressionRequest
from horngate_protos.wire import varint

CORPUS = Path(__file__).parent / "corpus"
METHODS = ("infer", "predict", "classify", "regress", "json")
"""A corpus entry's first byte is a place in here; the message follows."""


def seeds(model: str, name: str, array: np.ndarray) -> Mapping[str, list[bytes]]:
    """Return messages that ask a model for one input's answer, by method, in every form that its protocol has."""
    datatype = BY_NUMPY[array.dtype]
    infers = []
    for typed in (False, True):
        for extra in (False, True):
            infer = ModelInferRequest(model_name=model)
            tensor = infer.inputs.add(name=name, datatype=datatype.name, shape=array.shape)
            if typed:
                assert datatype.contents
                getattr(tensor.contents, datatype.contents).extend(array.reshape(-1).tolist())
            else:
                infer.raw_input_contents.append(array.tobytes())
            if extra:
                infer.id = "an id"
                infer.model_version = "1"
                infer.parameters["priority"].uint64_param = 2
                infer.parameters["timeout"].int64_param = 30_000_000
                infer.parameters["horngate_timing"].bool_param = True
                infer.outputs.add(name="probabilities").parameters["classification"].int64_param = 2
            infers.append(infer.SerializeToString(deterministic=True))
    predicts = []
    for form in ("content", "typed", "constant", "everything"):
        predict = PredictRequest()
        predict.model_spec.name = model
        proto = TensorProto(
            dtype=datatype.tensorflow,
            tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=axis) for axis in array.shape]),
        )
        if form in {"content", "everything"}:
            proto.tensor_content = array.tobytes()
        else:
            values = array.reshape(-1).tolist()
            getattr(proto, datatype.values).extend(values[:1] if form == "constant" else values)
        predict.inputs[name].CopyFrom(proto)
        if form == "everything":
            predict.model_spec.version.value = 1
            predict.model_spec.signature_name = "serving_default"
            predict.output_filter.append("probabilities")
        predicts.append(predict.SerializeToString(deterministic=True))
    example = Example()
    example.features.feature[name].int64_list.value.extend(array[0].reshape(-1).tolist())
    raw = Example()
    raw.features.feature[name].bytes_list.value.append(array[0].tobytes())
    classify, regress = ClassificationRequest(), RegressionRequest()
    for request in (classify, regress):
        request.model_spec.name = model
        request.input.example_list.examples.extend([example, raw])
    with_context = ClassificationRequest()
    with_context.model_spec.CopyFrom(classify.model_spec)
    with_context.input.example_list_with_context.context.CopyFrom(example)
    with_context.input.example_list_with_context.examples.add()
    body = {
        "id": "an id",
        "parameters": {"priority": 2, "timeout": 30_000_000},
        "inputs": [{"name": name, "shape": list(array.shape), "datatype": datatype.name, "data": array.tolist()}],
        "outputs": [{"name": "probabilities", "parameters": {"classification": 2}}],
    }
    return {
        "infer": infers,
        "predict": predicts,
        "classify": [
            classify.SerializeToString(deterministic=True),
            with_context.SerializeToString(deterministic=True),
        ],
        "regress": [regress.SerializeToString(deterministic=True)],
        "json": [json.dumps(body).encode()],
    }


def odd_seeds(strings: str, parsing: str, odd: str, pairs: str) -> Mapping[str, list[bytes]]:
    """Return messages with strings, serialized examples, complex numbers, scalars and half floats, by method.

    Args:
        strings: a model that takes BYTES ``words`` [rows, 2].
        parsing: a model that takes serialized examples as ``inputs``.
        odd: a model that takes a scalar BOOL ``flag`` and FP16 ``half`` of any shape.
        pairs: a model that takes COMPLEX64 ``c`` [rows].
    """
    words = [b"good", "film \u00e9".encode(), b"", b"\xff\0"]
    infers = []
    for typed in (False, True):
        infer = ModelInferRequest(model_name=strings)
        tensor = infer.inputs.add(name="words", datatype="BYTES", shape=[2, 2])
        if typed:
            tensor.contents.bytes_contents.extend(words)
        else:
            infer.raw_input_contents.append(b"".join(len(each).to_bytes(4, "little") + each for each in words))
        infers.append(infer)
    several = ModelInferRequest(model_name=odd)
    several.inputs.add(name="flag", datatype="BOOL")
    several.inputs.add(name="half", datatype="FP16", shape=[1, 3])
    several.raw_input_contents.extend([b"\1", bytes(6)])
    two = TensorShapeProto(dim=[TensorShapeProto.Dim(size=2), TensorShapeProto.Dim(size=2)])
    contents = b"".join(varint(len(each)) for each in words) + b"".join(words)
    tensors = (
        {"words": TensorProto(dtype=7, tensor_shape=two, string_val=words)},
        {"words": TensorProto(dtype=7, tensor_shape=two, string_val=words[:1])},
        {"words": TensorProto(dtype=7, tensor_shape=two, tensor_content=contents)},
        {
            "flag": TensorProto(dtype=10, tensor_shape=TensorShapeProto(), bool_val=[True]),
            "half": TensorProto(dtype=19, tensor_shape=two, half_val=[0x3C00]),
        },
        {
            "flag": TensorProto(dtype=10),
            "half": TensorProto(dtype=19, tensor_shape=TensorShapeProto(), tensor_content=b"\0\x3c"),
        },
        {"c": TensorProto(dtype=8, tensor_shape=TensorShapeProto(dim=two.dim[:1]), scomplex_val=[1, 2, 3, 4])},
        {"c": TensorProto(dtype=8, tensor_shape=TensorShapeProto(dim=two.dim[:1]), tensor_content=bytes(16))},
    )
    predicts = []
    for inputs in tensors:
        predict = PredictRequest(inputs=inputs)
        predict.model_spec.name = strings if "words" in inputs else pairs if "c" in inputs else odd
        predicts.append(predict)
    example, context = Example(), Example()
    example.features.feature["words"].bytes_list.value.extend(words[:2])
    context.features.feature["size"].float_list.value.append(0.5)
    classify, with_context = ClassificationRequest(), ClassificationRequest()
    classify.model_spec.name = strings
    classify.input.example_list.examples.append(example)
    with_context.model_spec.name = parsing
    with_context.input.example_list_with_context.context.CopyFrom(context)
    with_context.input.example_list_with_context.examples.extend([example, Example()])
    regress = RegressionRequest(model_spec=with_context.model_spec, input=with_context.input)
    tensor_of = {"name": "words", "shape": [2, 2], "datatype": "BYTES"}
    bodies: list[dict[str, Any]] = [
        {**tensor_of, "data": [["good", "\u00e9"], [{"b64": "/w=="}, ""]]},
        {**tensor_of, "data": ["Z29vZA=="] * 4, "parameters": {"content_type": "base64"}},
        {"name": "x", "shape": [4], "datatype": "FP32", "data": [0.5, "NaN", "-Infinity", 1e38]},
    ]
    written: dict[str, list[Message]] = {
        "infer": [*infers, several], "predict": [*predicts], "classify": [classify, with_context], "regress": [regress],
    }  # fmt: skip
    return {
        method: [each.SerializeToString(deterministic=True) for each in some] for method, some in written.items()
    } | {"json": [json.dumps({"inputs": [body]}).encode() for body in bodies]}


SMALL = np.arange(4, dtype=np.int32).reshape(2, 2)
"""What the decoders' first model takes, as ``x``."""


def corpus() -> Mapping[str, list[bytes]]:
    """Return what fuzzing the decoders begins with."""
    first, more = seeds("m", "x", SMALL), odd_seeds("s", "e", "o", "c")
    return {method: first[method] + more[method] for method in METHODS}


def main() -> None:
    """Write the corpus's first entries."""
    CORPUS.mkdir(exist_ok=True)
    for number, method in enumerate(METHODS):
        for place, message in enumerate(corpus()[method]):
            (CORPUS / f"{method}-{place}").write_bytes(bytes([number]) + message)


if __name__ == "__main__":
    main()
