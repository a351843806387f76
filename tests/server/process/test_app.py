"""Lifecycle: the real transport and HTTP server around a model that becomes ready when the test says so."""

import threading
import urllib.error
import urllib.request
from contextlib import nullcontext, suppress
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from horngate_protos.open_inference_pb2 import ModelInferResponse, ServerReadyRequest, ServerReadyResponse
from horngate_server.core.device import Device
from horngate_server.core.settings import Settings
from horngate_server.process.app import App
from horngate_server.process.signals import Stop
from horngate_server.runtimes import tensorflow
from support.in_process import FakeModel, request

WAIT_S = 20.0


class SlowModel(FakeModel):
    """A fake with a device, as loading expects of a real one."""

    device = Device("CPU", "CPU:0", "a test's")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A model root whose one version looks like a SavedModel from outside."""
    (tmp_path / "models/m/3").mkdir(parents=True)
    (tmp_path / "models/m/3/saved_model.pb").write_bytes(b"")
    return tmp_path / "models"


@pytest.mark.slow
def test_not_serving_until_warm(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ports are open and live while the model loads, but every way to ask says not ready; then every way says ready."""
    release, reached = threading.Event(), threading.Event()
    model = SlowModel()

    def load(*_: object, **__: object) -> SlowModel:
        reached.set()
        assert release.wait(WAIT_S)
        return model

    monkeypatch.setattr(tensorflow, "load", load)
    monkeypatch.setattr(Stop, "on_signals", lambda *_: nullcontext())
    ports = root / "ports"
    app = App(Settings(models=root, grpc_port=0, http_port=0, port_file=ports, max_batch_rows=8, queue_rows=8))
    codes: list[int] = []
    running = threading.Thread(target=lambda: codes.append(app.run()))
    running.start()
    try:
        assert reached.wait(WAIT_S)
        grpc_port, http_port = (line.split()[1] for line in ports.read_text().splitlines())
        with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
            watch = channel.unary_stream(
                "/grpc.health.v1.Health/Watch",
                request_serializer=HealthCheckRequest.SerializeToString,
                response_deserializer=HealthCheckResponse.FromString,
            )(HealthCheckRequest(), timeout=WAIT_S)
            ready = channel.unary_unary(
                "/inference.GRPCInferenceService/ServerReady",
                request_serializer=ServerReadyRequest.SerializeToString,
                response_deserializer=ServerReadyResponse.FromString,
            )
            infer: grpc.UnaryUnaryMultiCallable[bytes, ModelInferResponse] = channel.unary_unary(
                "/inference.GRPCInferenceService/ModelInfer", response_deserializer=ModelInferResponse.FromString
            )
            message = request({"x": np.ones((1, 2), np.int32)}).SerializeToString()
            assert urllib.request.urlopen(f"http://127.0.0.1:{http_port}/livez", timeout=10).status == 200
            with pytest.raises(urllib.error.HTTPError, match="503") as not_ready:
                urllib.request.urlopen(f"http://127.0.0.1:{http_port}/readyz", timeout=10)
            not_ready.value.close()
            assert next(watch).status == HealthCheckResponse.NOT_SERVING
            assert not ready(ServerReadyRequest()).ready
            with pytest.raises(grpc.RpcError, match="model 'm' is loading") as loading_error:
                infer(message)
            assert loading_error.value.code() == grpc.StatusCode.UNAVAILABLE
            assert not model.ran

            release.set()
            assert next(watch).status == HealthCheckResponse.SERVING
            assert {1, 2, 4, 8} <= {len(batch) for batch in model.ran}
            assert urllib.request.urlopen(f"http://127.0.0.1:{http_port}/readyz", timeout=10).status == 200
            assert ready(ServerReadyRequest()).ready
            assert infer(message).outputs[0].name == "double"

            app._stop.set()
            assert next(watch).status == HealthCheckResponse.NOT_SERVING
            watch.cancel()
    finally:
        release.set()
        with suppress(OSError):  # closed: it has stopped already
            app._stop.set()
        running.join(WAIT_S)
    assert codes == [0]
    assert model.closed


def test_a_process_whose_executor_died_exits_1(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the loop of a model breaks, the server goes not ready, stops and says so with its exit code."""
    monkeypatch.setattr(tensorflow, "load", lambda *_, **__: SlowModel())
    monkeypatch.setattr(Stop, "on_signals", lambda *_: nullcontext())
    app = App(Settings(models=root, grpc_port=0, http_port=0, max_batch_rows=8, queue_rows=8))
    codes: list[int] = []
    running = threading.Thread(target=lambda: codes.append(app.run()))
    running.start()
    app._on_death(RuntimeError("broken"))
    running.join(WAIT_S)
    assert codes == [1]
