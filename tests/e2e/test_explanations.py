"""Explanations through a real server: the same by every protocol, and nobody's predictions wait for them."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from horngate_client import Client, InvalidRequest
from horngate_protos import tensorflow_serving_pb2 as tfs
from support.process import ServerProcess

IMAGES = np.random.default_rng(1).integers(0, 256, (5, 28, 28), np.uint8)
PREDICT = "/tensorflow.serving.PredictionService/Predict"


@pytest.fixture(scope="module")
def server(trained: Path, transport: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The trained model, served."""
    with ServerProcess(trained.parent.parent, tmp_path_factory.mktemp("scratch"), "--transport", transport) as running:
        yield running


def test_every_protocol_gives_the_same_attributions(server: ServerProcess) -> None:
    """The Open Inference Protocol by gRPC and in JSON, and TensorFlow Serving's: bit for bit, and again."""
    with Client(server.grpc) as client:
        found = client.explain(IMAGES, 2)
        again = client.explain(IMAGES, 2)
        assert [each.name for each in client.model().signatures] == ["serving_default", "explain"]
        np.testing.assert_allclose(found.scores, client.predict(IMAGES).probabilities[:, 2], atol=1e-5)
    missed = found.scores - found.baseline_scores - found.attributions.sum((1, 2))
    np.testing.assert_allclose(np.abs(missed), found.gaps, atol=1e-5)
    np.testing.assert_array_equal(found.attributions, again.attributions)
    by_json, by_tensorflow = _by_json(server), _by_tensorflow_serving(server)
    np.testing.assert_array_equal(by_json, found.attributions)
    np.testing.assert_array_equal(by_tensorflow, found.attributions)


def test_a_target_that_no_class_has_is_the_callers_mistake(server: ServerProcess) -> None:
    """In the model's own words; neighbours are answered."""
    with Client(server.grpc) as client, pytest.raises(InvalidRequest, match="expected the number of a class"):
        client.explain(IMAGES, 10)


def test_the_load_report_says_that_explanations_are_computed_aside(server: ServerProcess) -> None:
    """By TensorFlow, whichever engine predicts."""
    with urllib.request.urlopen(f"{server.http}/models", timeout=30) as answer:
        (version,) = json.loads(answer.read())
    report = version["report"]
    assert report["batching"]["explain"] == {"mode": "rows", "why": "asked for", "aside": True}
    assert report["batching"]["serving_default"]["aside"] is False
    assert report["engines"]["explain"] == "tensorflow"
    assert report["verification"].startswith("verified")


def _by_json(server: ServerProcess) -> np.ndarray:
    body = {
        "parameters": {"signature": "explain"},
        "inputs": [
            {"name": "images", "datatype": "UINT8", "shape": [5, 28, 28], "data": IMAGES.reshape(-1).tolist()},
            {"name": "target", "datatype": "INT64", "shape": [5], "data": [2] * 5},
        ],
        "outputs": [{"name": "attributions"}],
    }
    request = urllib.request.Request(f"{server.http}/v2/models/mnist/infer", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=30) as answer:
        (output,) = json.loads(answer.read())["outputs"]
    return np.array(output["data"], np.float32).reshape(output["shape"])


def _by_tensorflow_serving(server: ServerProcess) -> np.ndarray:
    request = tfs.PredictRequest()
    request.model_spec.name = "mnist"
    request.model_spec.signature_name = "explain"
    for name, array, number in (("images", IMAGES, 4), ("target", np.full(5, 2), 9)):
        tensor = request.inputs[name]
        tensor.dtype = number
        for size in array.shape:
            tensor.tensor_shape.dim.add(size=size)
        tensor.tensor_content = array.tobytes()
    with grpc.insecure_channel(server.grpc) as channel:
        predict: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(PREDICT)
        answer = tfs.PredictResponse.FromString(predict(request.SerializeToString(), timeout=30))
    output = answer.outputs["attributions"]
    return np.frombuffer(output.tensor_content, np.float32).reshape([each.size for each in output.tensor_shape.dim])
