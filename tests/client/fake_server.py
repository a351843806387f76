"""A small server of the Open Inference Protocol on a real socket, which does as a test tells it."""

# ruff: noqa: N802, ARG002 - the methods are the protocol's, and not each looks at all it is given

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from horngate_protos import open_inference_pb2 as oip
from horngate_protos.datatypes import BY_NAME

SERVICE = "inference.GRPCInferenceService"
MNIST_INPUTS = (("images", "UINT8", (-1, 28, 28)),)
MNIST_OUTPUTS = (("probabilities", "FP32", (-1, 10)), ("classes", "INT64", (-1,)))

Specs = tuple[tuple[str, str, tuple[int, ...]], ...]
Arrays = dict[str, Any]


@dataclass(frozen=True)
class Failure:
    """A refusal to give instead of an answer."""

    code: grpc.StatusCode
    details: str = "scripted"
    pushback: str | None = None


EXPLAIN_INPUTS = (*MNIST_INPUTS, ("target", "INT64", (-1,)))
EXPLAIN_OUTPUTS = (
    ("attributions", "FP32", (-1, 28, 28)), ("baseline_score", "FP32", (-1,)), ("gap", "FP32", (-1,)),
    ("score", "FP32", (-1,)), ("target", "INT64", (-1,)),
)  # fmt: skip


def explain(inputs: Arrays) -> Arrays:
    """Stand in for the signature of that name: every lit pixel speaks for the class, unless that is another one."""
    images, target = inputs["images"], inputs["target"].copy()
    predicted: Any = classify(inputs)["classes"]
    target[target < 0] = predicted[target < 0]
    scores = np.equal(target, predicted).astype(np.float32)
    sign = 2 * scores - 1
    return {
        "attributions": (images > 128).astype(np.float32) * sign[:, None, None],
        "baseline_score": scores / 10,
        "gap": np.where(np.equal(target, 9), 0.5, 0.001).astype(np.float32),
        "score": scores,
        "target": target,
    }


def classify(inputs: Arrays) -> Arrays:
    """Stand in for the reference model: the class of an image is its first pixel modulo ten."""
    images = inputs["images"]
    classes = images.reshape(len(images), -1)[:, 0].astype(np.int64) % 10
    return {"probabilities": np.eye(10, dtype=np.float32)[classes], "classes": classes}


@dataclass
class FakeServer:
    """What the server is, what it shall do, and what it saw.

    Attributes:
        failures: refusals for the next requests to ModelInfer, in order.
        name: the model that it has.
        others: further models that its index lists.
        recorded: requests that it hands out, of inputs of numbers.
        gate: held shut, it keeps every ModelInfer waiting.
        arrived: set when a ModelInfer came.
        seen: (method, request, metadata, seconds to the deadline) of every request.
    """

    inputs: Specs = MNIST_INPUTS
    outputs: Specs = MNIST_OUTPUTS
    model: Callable[[Arrays], Arrays] = classify
    typed: bool = False
    versions: list[str] = field(default_factory=lambda: ["1"])
    timing: tuple[int, int] | None = (200, 3000)
    ready: bool = True
    batching: str = ""
    explains: bool = True
    name: str = "mnist"
    others: tuple[str, ...] = ()
    recorded: list[Arrays] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    refuse_load: Failure | None = None
    token: str | None = None
    mangle: Callable[[Any], None] = lambda _: None
    gate: threading.Event = field(default_factory=threading.Event)
    arrived: threading.Event = field(default_factory=threading.Event)
    seen: list[tuple[str, Any, dict[str, Any], float]] = field(default_factory=list)
    address: str = ""
    most_at_once: int = 0
    _at_once: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, method: str = "ModelInfer") -> int:
        """Return how many requests of a method came."""
        return sum(name == method for name, *_ in self.seen)

    def requests(self, method: str = "ModelInfer") -> list[Any]:
        """Return the requests of a method."""
        return [request for name, request, *_ in self.seen if name == method]

    # --- the protocol ---

    def ServerLive(self, request: Any, context: Any) -> Any:
        return oip.ServerLiveResponse(live=True)

    def ServerReady(self, request: Any, context: Any) -> Any:
        return oip.ServerReadyResponse(ready=self.ready)

    def ModelReady(self, request: Any, context: Any) -> Any:
        self._known(request.name, context)
        return oip.ModelReadyResponse(ready=self.ready)

    def ServerMetadata(self, request: Any, context: Any) -> Any:
        return oip.ServerMetadataResponse(name="fake", version="0.0", extensions=["parameters"])

    def ModelMetadata(self, request: Any, context: Any) -> Any:
        self._known(request.name, context)
        tensor = oip.ModelMetadataResponse.TensorMetadata
        return oip.ModelMetadataResponse(
            name=self.name,
            versions=self.versions,
            platform="fake",
            inputs=[tensor(name=name, datatype=kind, shape=shape) for name, kind, shape in self.inputs],
            outputs=[tensor(name=name, datatype=kind, shape=shape) for name, kind, shape in self.outputs],
            horngate_batching=self.batching,
            horngate_signatures=[
                oip.ModelMetadataResponse.SignatureMetadata(
                    name="explain",
                    inputs=[tensor(name=name, datatype=kind, shape=shape) for name, kind, shape in EXPLAIN_INPUTS],
                    outputs=[tensor(name=name, datatype=kind, shape=shape) for name, kind, shape in EXPLAIN_OUTPUTS],
                )
            ]
            * self.explains,
            horngate_recorded=[self._recorded(each) for each in self.recorded if request.horngate_recorded],
        )

    def ModelInfer(self, request: Any, context: Any) -> Any:
        with self._lock:
            failure = self.failures.pop(0) if self.failures else None
            version = self.versions.pop(0) if len(self.versions) > 1 else self.versions[0]
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        self.arrived.set()
        self.gate.wait(30)
        with self._lock:
            self._at_once -= 1
        self._known(request.model_name, context)
        if failure:
            if failure.pushback is not None:
                context.set_trailing_metadata((("grpc-retry-pushback-ms", failure.pushback),))
            context.abort(failure.code, failure.details)
        response = self._answer(request, version)
        self.mangle(response)
        return response

    def RepositoryIndex(self, request: Any, context: Any) -> Any:
        entry = oip.RepositoryIndexResponse.ModelIndex
        return oip.RepositoryIndexResponse(
            models=[
                entry(
                    name=self.name, version="1", state="READY", horngate_state="ready", age_seconds=7300, rows=12345,
                    engine="litert", device="CPU", labels=["", "stable"], verification="verified (40 rows)",
                ),
                entry(name=self.name, version="2", state="READY", horngate_state="ready", shadow_rows=200,
                      shadow_agreed=199),
                entry(name=self.name, version="3", state="UNAVAILABLE", reason="it disagrees"),
                *(entry(name=name, version="1", state="READY") for name in self.others),
            ]
        )  # fmt: skip

    def RepositoryModelLoad(self, request: Any, context: Any) -> Any:
        if self.refuse_load:
            context.abort(self.refuse_load.code, self.refuse_load.details)
        if request.parameters["version"].int64_param == 3:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "version 3 cannot be served: it disagrees")
        return oip.RepositoryModelLoadResponse()

    # --- private ---

    def _recorded(self, arrays: Arrays) -> Any:
        request = oip.ModelInferRequest()
        for name, kind, _ in self.inputs:
            request.inputs.add(name=name, datatype=kind, shape=arrays[name].shape)
            request.raw_input_contents.append(arrays[name].tobytes())
        return request

    def _known(self, name: str, context: Any) -> None:
        if name != self.name:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no model is named {name!r}")

    def _answer(self, request: Any, version: str) -> Any:
        arrays = {
            tensor.name: _read(tensor, raw)
            for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
        }
        response = oip.ModelInferResponse(model_name=self.name, model_version=version, id=request.id)
        if self.timing and request.parameters["horngate_timing"].bool_param:
            response.parameters["horngate_queue_us"].int64_param = self.timing[0]
            response.parameters["horngate_compute_us"].int64_param = self.timing[1]
        asked = [output.name for output in request.outputs]
        explains = request.parameters["signature"].string_param == "explain"
        results = explain(arrays) if explains else self.model(arrays)
        for name, kind, _ in EXPLAIN_OUTPUTS if explains else self.outputs:
            if asked and name not in asked:
                continue
            tensor = response.outputs.add(name=name, datatype=kind, shape=results[name].shape)
            if self.typed and kind in BY_NAME:
                values = results[name].reshape(-1).tolist()
                getattr(tensor.contents, BY_NAME[kind].contents or "").extend(values)
            elif kind == "BYTES":
                items = results[name].reshape(-1).tolist()
                response.raw_output_contents.append(b"".join(len(i).to_bytes(4, "little") + i for i in items))
            else:
                response.raw_output_contents.append(np.ascontiguousarray(results[name]).tobytes())
        return response

    def _handler(self, method: str) -> "grpc.RpcMethodHandler[Any, Any]":
        function = getattr(self, method)

        def handle(request: Any, context: Any) -> Any:
            metadata = dict(context.invocation_metadata())
            with self._lock:
                self.seen.append((method, request, metadata, context.time_remaining()))
            if self.token and metadata.get("authorization") != f"Bearer {self.token}":
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "no or wrong token")
            return function(request, context)

        return grpc.unary_unary_rpc_method_handler(
            handle,
            request_deserializer=getattr(oip, f"{method}Request").FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )


METHODS = (
    "ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer", "RepositoryIndex",
    "RepositoryModelLoad",
)  # fmt: skip


@contextlib.contextmanager
def serve(server: FakeServer, *, address: str = "127.0.0.1:0", tls: Any = None) -> Iterator[FakeServer]:
    """Serve on a free port of this machine until the end of the block."""
    server.gate.set()
    pool = ThreadPoolExecutor(16)
    running = grpc.server(pool, options=[("grpc.so_reuseport", 0)])
    handlers = {name: server._handler(name) for name in METHODS}
    running.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = running.add_secure_port(address, tls) if tls else running.add_insecure_port(address)
    server.address = f"127.0.0.1:{port}"
    running.start()
    try:
        yield server
    finally:
        server.gate.set()
        running.stop(0).wait(5)
        pool.shutdown()


def _read(tensor: Any, raw: bytes) -> Any:
    shape = tuple(tensor.shape)
    if tensor.datatype == "BYTES":
        items, at = [], 0
        while at < len(raw):
            size = int.from_bytes(raw[at : at + 4], "little")
            items.append(raw[at + 4 : at + 4 + size])
            at += 4 + size
        return np.array(items, dtype=object).reshape(shape)
    return np.frombuffer(raw, BY_NAME[tensor.datatype].numpy).reshape(shape)
