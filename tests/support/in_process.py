"""A server without a wire: the real service, line and executor around a fake model, and replies that can be awaited."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, Self

import numpy as np
from prometheus_client import CollectorRegistry

from horngate_protos.datatypes import BY_NAME, BY_NUMPY
from horngate_protos.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from horngate_server.core.inference import ModelInfo
from horngate_server.core.methods import INFER
from horngate_server.core.model import Array
from horngate_server.core.request_context import RequestContext
from horngate_server.core.rpc import Answer, Call, CallOptions, Status
from horngate_server.core.signature import Batching, Signature, TensorSpec
from horngate_server.engine.batch_queue import BatchQueue
from horngate_server.engine.batching import ladder
from horngate_server.engine.cost_model import CostModel
from horngate_server.engine.executor import Executor
from horngate_server.engine.routing import Models, Servable
from horngate_server.lifecycle.readiness import Readiness
from horngate_server.protocols.codecs import CODECS
from horngate_server.services.inference import InferenceService
from horngate_server.telemetry.metrics import Metrics
from horngate_server.telemetry.request_record import RequestObserver
from horngate_server.telemetry.request_telemetry import CompletedRequests, RequestTelemetry
from horngate_server.telemetry.statistics import Statistics

SIGNATURE = Signature(
    "serving_default",
    (TensorSpec("x", BY_NAME["INT32"], (-1, 2)),),
    (TensorSpec("double", BY_NAME["INT64"], (-1, 2)), TensorSpec("total", BY_NAME["FP32"], (-1,))),
)
WAIT_S = 20.0


class Clock:
    """Time that moves when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Feed:
    signature: Signature
    arrays: list[Array]


def double(inputs: Sequence[Array]) -> list[Array]:
    """What the fake model computes: every element doubled, and every row's sum."""
    return [inputs[0].astype(np.int64) * 2, inputs[0].astype(np.float32).sum(axis=1)]


class FakeModel:
    """Doubles its input. Tests hold it back (``gate``), watch it (``ran``, ``began``) or replace ``compute``."""

    def __init__(self, signature: Signature = SIGNATURE) -> None:
        self.signature = signature
        self.signatures = {signature.name: signature}
        self.compute: Callable[[Sequence[Array]], Sequence[Array]] = double
        self.gate = threading.Event()
        self.gate.set()
        self.began = threading.Semaphore(0)
        self.ran: list[Array] = []
        self.closed = False

    def feed(self, signature: Signature, shapes: Sequence[tuple[int, ...]]) -> Feed:
        return Feed(
            signature, [np.full(s, 99, spec.datatype.numpy) for s, spec in zip(shapes, signature.inputs, strict=True)]
        )

    def run(self, feed: object) -> Sequence[Array]:
        assert isinstance(feed, Feed)
        self.ran += [array.copy() for array in feed.arrays[:1]]
        self.began.release()
        assert self.gate.wait(WAIT_S)
        return self.compute(feed.arrays)

    def close(self) -> None:
        self.closed = True


@dataclass(eq=False)
class FakeReply:
    """One caller: it can go away, and it can wait for its answer."""

    answers: list[bytes | Status] = field(default_factory=list)
    gone: bool = False
    _answered: threading.Event = field(default_factory=threading.Event)

    def done(self) -> bool:
        return self.gone

    def give(self, answer: bytes | Status) -> None:
        self.answers.append(answer)
        self._answered.set()

    @property
    def answered(self) -> bool:
        return self._answered.is_set()

    def status(self) -> str:
        """Wait, and return how the call ended."""
        answer = self._wait()
        return answer.name if isinstance(answer, Status) else "OK"

    def message(self) -> str:
        """Wait for an error, and return its text."""
        answer = self._wait()
        assert isinstance(answer, Status), "an answer came where an error was expected"
        return answer.message

    def response(self) -> ModelInferResponse:
        """Wait for an answer, and return it."""
        answer = self._wait()
        assert isinstance(answer, bytes), answer
        return ModelInferResponse.FromString(answer)

    def output(self, name: str) -> Array:
        """Wait for an answer, and return one of its tensors."""
        response = self.response()
        for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True):
            if tensor.name == name:
                return np.frombuffer(raw, BY_NAME[tensor.datatype].numpy).reshape(tuple(tensor.shape))
        raise KeyError(name)

    def _wait(self) -> bytes | Status:
        assert self._answered.wait(WAIT_S), "no answer came"
        return self.answers[0]


OPTIONS = CallOptions(inf, False, lambda: None)
"""A stream's whose metadata ask for nothing."""


class InProcessServer:
    """The service with one model, ``m``; it computes on its own thread unless ``quick_s`` says otherwise."""

    def __init__(
        self,
        model: FakeModel | None = None,
        *,
        max_batch_rows: int = 8,
        queue_rows: int = 64,
        delay_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        quick_s: float = 0.0,
        may_compute: bool = True,
        pad: bool = True,
        observers: Sequence[RequestObserver] = (),
        batching: Batching | None = None,
        others: Sequence[FakeModel] = (),
        record: Callable[[CompletedRequests], None] | None = None,
    ) -> None:
        self.model = model or FakeModel()
        self.others = others
        self.clock = clock
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)
        self.readiness = Readiness()
        self.models = Models()
        self.died: list[BaseException] = []
        self.statistics = Statistics()
        self.service = InferenceService(
            codecs=CODECS,
            models=self.models,
            telemetry=RequestTelemetry(self.metrics, self.statistics, clock, observers, record=record),
            deliver=self.deliver,
            clock=clock,
            may_compute=may_compute,
        )
        self.queue = BatchQueue(capacity_rows=queue_rows, max_batch_rows=max_batch_rows, delay_s=delay_s)
        self.info = ModelInfo("m", "3", self.model.signature, batching=batching or Batching())
        self.executor = Executor(
            self.info,
            self.model,
            self.queue,
            CostModel(ladder(max_batch_rows)),
            self.service.finish,
            clock=clock,
            on_death=self.died.append,
            quick_s=quick_s,
            pad=pad,
            others=others,
        )
        self.models.route("m", Servable(self.info, self.executor))
        self.metrics.watch(lambda: [self.executor])

    def __enter__(self) -> Self:
        self.executor.start()
        return self

    def __exit__(self, *_: object) -> None:
        for model in (self.model, *self.others):
            model.gate.set()
        self.executor.stop(WAIT_S)
        self.executor.close()

    @staticmethod
    def deliver(answers: Sequence[Answer]) -> None:
        for reply, answer in answers:
            assert isinstance(reply, FakeReply)
            reply.give(answer)

    def send(
        self,
        message: bytes,
        *,
        method: str = INFER,
        deadline: float = inf,
        bulk: bool = False,
        origin: RequestContext | None = None,
    ) -> FakeReply:
        """Send the bytes of a ModelInferRequest, or of what another method takes."""
        reply = FakeReply()
        self.service.accept([Call(method, message, deadline, reply, bulk, origin)])
        return reply

    def ask(self, x: object, *, deadline: float = inf, **extra: Any) -> FakeReply:
        """Send rows for the input ``x``."""
        return self.send(request({"x": np.asarray(x, np.int32)}, **extra).SerializeToString(), deadline=deadline)

    def hold(self) -> FakeReply:
        """Occupy the model with one row until its gate opens; returns that row's caller."""
        self.model.gate.clear()
        reply = self.ask([[0, 0]])
        assert self.model.began.acquire(timeout=WAIT_S)
        return reply

    def sample(self, name: str, labels: Mapping[str, str] | None = None) -> float:
        """Read one number of the metrics; 0 where it does not exist yet."""
        return self.registry.get_sample_value(name, dict(labels or {})) or 0.0


def request(inputs: Mapping[str, Array], *, model: str = "m", **extra: Any) -> ModelInferRequest:
    """Build a ModelInferRequest with raw contents."""
    made = ModelInferRequest(model_name=model, **extra)
    for name, array in inputs.items():
        made.inputs.add(name=name, datatype=BY_NUMPY[array.dtype].name, shape=array.shape)
        made.raw_input_contents.append(array.tobytes())
    return made
