"""Valid messages of every method that computes: what fuzzing begins with. ``seeds.py`` writes them to corpus/."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from horngate_protos.datatypes import BY_NUMPY
from horngate_protos.open_inference_pb2 import ModelInferRequest
from horngate_protos.tensorflow_pb2 import Example, TensorProto, TensorShapeProto
from horngate_protos.tensorflow_serving_pb2 import ClassificationRequest, PredictRequest, RegressionRequest

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


SMALL = np.arange(4, dtype=np.int32).reshape(2, 2)
"""What the decoders' model takes, as ``x``."""


def main() -> None:
    """Write the corpus's first entries."""
    CORPUS.mkdir(exist_ok=True)
    for number, method in enumerate(METHODS):
        for place, message in enumerate(seeds("m", "x", SMALL)[method]):
            (CORPUS / f"{method}-{place}").write_bytes(bytes([number]) + message)


if __name__ == "__main__":
    main()
