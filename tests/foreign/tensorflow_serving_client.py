"""A TensorFlow Serving caller: its own generated code, and TensorFlow's own tensors. Nothing of Horngate's.

    python tensorflow_serving_client.py HOST:PORT IMAGES.npy

Prints what came back as JSON; the test that runs it compares.
"""

import json
import sys
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf.wrappers_pb2 import Int64Value
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

channel = grpc.insecure_channel(sys.argv[1])
images = np.load(sys.argv[2])
prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
models = model_service_pb2_grpc.ModelServiceStub(channel)


def predict(tensor: Any = None, *, model: str = "mnist", name: str = "images", **spec: Any) -> Any:
    """Build a PredictRequest."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    for key, value in spec.items():
        if key == "version":
            request.model_spec.version.CopyFrom(Int64Value(value=value))
        else:
            setattr(request.model_spec, key, value)
    request.inputs[name].CopyFrom(tf.make_tensor_proto(images) if tensor is None else tensor)
    return request


def filtered(*names: str) -> Any:
    """Build a PredictRequest for some outputs."""
    request = predict()
    request.output_filter.extend(names)
    return request


def examples(kind: type, signature: str = "", feature: str = "images") -> Any:
    """Build a ClassificationRequest or a RegressionRequest for the first two images."""
    request = kind()
    request.model_spec.name = "mnist"
    request.model_spec.signature_name = signature
    for image in images[:2]:
        example = request.input.example_list.examples.add()
        example.features.feature[feature].int64_list.value.extend(image.reshape(-1).tolist())
    return request


def metadata(*fields: str, model: str = "mnist") -> Any:
    """Build a GetModelMetadataRequest."""
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    request.model_spec.name = model
    return request


def status(model: str = "mnist", version: int | None = None) -> Any:
    """Build a GetModelStatusRequest."""
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = model
    if version is not None:
        request.model_spec.version.value = version
    return request


def error(method: Any, request: Any) -> list[str]:
    """Return how a call failed."""
    try:
        method(request, timeout=20)
    except grpc.RpcError as failed:
        return [failed.code().name, failed.details() or ""]
    return ["OK", ""]


answer = prediction.Predict(predict(), timeout=20)
probabilities = tf.make_ndarray(answer.outputs["probabilities"])
typed = tf.make_tensor_proto(images[0, :, :].reshape(1, 28, 28))
typed.ClearField("tensor_content")
typed.int_val.extend(images[0].reshape(-1).tolist())
constant = tf.make_tensor_proto(np.zeros((2, 28, 28), np.uint8))
constant.ClearField("tensor_content")
constant.int_val.append(7)
sevens = tf.make_tensor_proto(np.full((2, 28, 28), 7, np.uint8))
signatures = get_model_metadata_pb2.SignatureDefMap()
told = prediction.GetModelMetadata(metadata("signature_def"), timeout=20)
told.metadata["signature_def"].Unpack(signatures)
signature = signatures.signature_def["serving_default"]
version = answer.model_spec.version.value
bad_shape = tf.make_tensor_proto(np.zeros((1, 28, 27), np.uint8))
bad_type = tf.make_tensor_proto(np.zeros((1, 28, 28), np.float32))
short = tf.make_tensor_proto(np.zeros((1, 28, 28), np.uint8))
short.tensor_content = b"\0" * 783
extra = predict()
extra.inputs["more"].CopyFrom(bad_shape)

print(
    json.dumps(
        {
            "classes": tf.make_ndarray(answer.outputs["classes"]).tolist(),
            "probabilities": probabilities.tobytes().hex(),
            "raw": bool(answer.outputs["probabilities"].tensor_content),
            "spec": [answer.model_spec.name, version, answer.model_spec.signature_name],
            "typed": tf.make_ndarray(prediction.Predict(predict(typed), timeout=20).outputs["probabilities"])
            .tobytes()
            .hex(),
            "constant": tf.make_ndarray(prediction.Predict(predict(constant), timeout=20).outputs["probabilities"])
            .tobytes()
            .hex(),
            "sevens": tf.make_ndarray(prediction.Predict(predict(sevens), timeout=20).outputs["probabilities"])
            .tobytes()
            .hex(),
            "filtered": sorted(prediction.Predict(filtered("classes"), timeout=20).outputs),
            "by version": list(
                prediction.Predict(predict(version=version), timeout=20).outputs["classes"].tensor_content
            )
            == list(answer.outputs["classes"].tensor_content),
            "classified": [
                [[each.label, each.score] for each in row.classes]
                for row in prediction.Classify(
                    examples(classification_pb2.ClassificationRequest), timeout=20
                ).result.classifications
            ],
            "signature": {
                "inputs": {
                    name: [info.dtype, [dim.size for dim in info.tensor_shape.dim], info.name]
                    for name, info in signature.inputs.items()
                },
                "outputs": sorted(signature.outputs),
                "method": signature.method_name,
                "model_spec": [told.model_spec.name, told.model_spec.version.value],
            },
            "status": [
                [each.version, each.state, each.status.error_code]
                for each in models.GetModelStatus(status(), timeout=20).model_version_status
            ],
            "errors": {
                "no model_spec": error(prediction.Predict, predict_pb2.PredictRequest()),
                "no name": error(prediction.Predict, predict(model="")),
                "unknown model": error(prediction.Predict, predict(model="nope")),
                "unknown version": error(prediction.Predict, predict(version=99)),
                "unknown label": error(prediction.Predict, predict(version_label="canary")),
                "unknown signature": error(prediction.Predict, predict(signature_name="nope")),
                "unknown input": error(prediction.Predict, predict(name="pixels")),
                "extra input": error(prediction.Predict, extra),
                "wrong shape": error(prediction.Predict, predict(bad_shape)),
                "wrong type": error(prediction.Predict, predict(bad_type)),
                "string": error(prediction.Predict, predict(tf.make_tensor_proto(["a"]))),
                "short content": error(prediction.Predict, predict(short)),
                "unknown output": error(prediction.Predict, filtered("nope")),
                "output twice": error(prediction.Predict, filtered("classes", "classes")),
                "no metadata field": error(prediction.GetModelMetadata, metadata()),
                "unknown metadata field": error(prediction.GetModelMetadata, metadata("nope")),
                "metadata of unknown model": error(prediction.GetModelMetadata, metadata("signature_def", model="x")),
                "status of unknown model": error(models.GetModelStatus, status("nope")),
                "status of unknown version": error(models.GetModelStatus, status(version=99)),
                "classify without a feature": error(
                    prediction.Classify, examples(classification_pb2.ClassificationRequest, feature="pixels")
                ),
                "classify nothing": error(
                    prediction.Classify,
                    classification_pb2.ClassificationRequest(model_spec=predict().model_spec),
                ),
                "classify unknown signature": error(
                    prediction.Classify, examples(classification_pb2.ClassificationRequest, "nope")
                ),
                "regress a classifier": error(prediction.Regress, examples(regression_pb2.RegressionRequest)),
                "multi-inference": error(prediction.MultiInference, inference_pb2.MultiInferenceRequest()),
                "reload": error(models.HandleReloadConfigRequest, model_management_pb2.ReloadConfigRequest()),
            },
        }
    )
)
