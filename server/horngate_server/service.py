"""Where calls become work and outcomes become answers: the middle of the path, free of any transport.

`accept` runs on the transport's thread: decode, admit, enqueue. `_finish` runs on an executor's: encode, count, hand
back. Everything that is counted is counted there, on the way out.
"""

import logging
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

from google.protobuf.message import DecodeError

from horngate_protos import __version__
from horngate_protos import open_inference_pb2 as oip
from horngate_server import health as health_room
from horngate_server import reflection
from horngate_server.admin import Admin
from horngate_server.admission import arrange
from horngate_server.errors import (
    CallerGone,
    DeadlineExpired,
    InvalidRequest,
    ModelFailed,
    NotImplementedHere,
    NotReady,
    QueueFull,
    RequestError,
)
from horngate_server.executor import BatchReport, Clock, Executor, Outcome
from horngate_server.health import Health
from horngate_server.metrics import Metrics
from horngate_server.protocols import open_inference
from horngate_server.queue import Work
from horngate_server.refusals import Refusals
from horngate_server.request import InferenceResult, ModelInfo, WholeResults
from horngate_server.served import Models
from horngate_server.status import OK, status_of
from horngate_server.transports import Answer, Call, Deliver, Status, Stream

log = logging.getLogger(__name__)

OPEN_INFERENCE = "inference.GRPCInferenceService"
MODEL_INFER = f"/{OPEN_INFERENCE}/ModelInfer"
PROTOCOL = "open_inference"
UNKNOWN = "unknown"
"""The model label of requests for models that do not exist: a caller must not be able to make time series."""

_ADMIN_METHODS = tuple(
    f"/{OPEN_INFERENCE}/{each}" for each in ("RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload")
)

_REASONS: dict[type[RequestError], str] = {
    CallerGone: "cancelled",
    DeadlineExpired: "deadline",
    NotReady: "not_ready",
    QueueFull: "queue_full",
}


class Service:
    """Answers every call exactly once (`transports.Service`).

    Args:
        models: what is served.
        health: who says whether traffic is welcome.
        metrics: counts.
        deliver: the transport's way back.
        clock: monotonic seconds, the same that deadlines are on.
    """

    def __init__(self, *, models: Models, health: Health, metrics: Metrics, deliver: Deliver, clock: Clock) -> None:
        self._models = models
        self._health = health
        self._metrics = metrics
        self._deliver = deliver
        self._clock = clock
        self._refusals = Refusals(clock)
        self._arrivals: threading.Event | None = None
        self._handlers: Mapping[str, Callable[[bytes], bytes]] = {
            f"/{OPEN_INFERENCE}/ServerLive": self._server_live,
            f"/{OPEN_INFERENCE}/ServerReady": self._server_ready,
            f"/{OPEN_INFERENCE}/ModelReady": self._model_ready,
            f"/{OPEN_INFERENCE}/ServerMetadata": self._server_metadata,
            f"/{OPEN_INFERENCE}/ModelMetadata": self._model_metadata,
            health_room.CHECK: health.check,
            **dict.fromkeys(_ADMIN_METHODS, _not_admitted),
        }
        self._deferred: Mapping[str, Callable[[bytes, Callable[[bytes | RequestError], None]], None]] = {}
        self.methods = frozenset([*self._handlers, MODEL_INFER])
        self.streams: Mapping[str, Stream] = {
            health_room.WATCH: health.watch,
            **reflection.streams([OPEN_INFERENCE, health_room.SERVICE]),
        }

    def admit(self, admin: Admin) -> None:
        """Answer an administrator's calls too."""
        index, load, unload = _ADMIN_METHODS
        self._handlers = {**self._handlers, index: admin.index}
        self._deferred = {load: admin.load, unload: admin.unload}

    def accept(self, calls: Sequence[Call]) -> None:
        """Answer what can be answered at once; put the rest in line."""
        if self._arrivals is not None:
            self._arrivals.set()
        answers: list[Answer] = []
        infers = []
        for call in calls:
            if call.method == MODEL_INFER:
                infers.append(call)
            elif call.method in self._deferred:
                self._defer(call)
            else:
                answers.append((call.reply, self._answer(call)))
        if answers:
            self._deliver(answers)
        if infers:
            self._infer(infers)

    def wait_until_quiet(self, silence_s: float, at_most_s: float) -> None:
        """Wait until no call has come for so long: closing the port under callers would cancel what is on its way."""
        self._arrivals = threading.Event()
        ends = self._clock() + at_most_s
        while (left := ends - self._clock()) > 0:
            self._arrivals.clear()
            if not self._arrivals.wait(min(silence_s, left)):
                return

    def finish(self, info: ModelInfo, outcomes: Sequence[Outcome], report: BatchReport | None) -> None:
        """Answer outcomes of an executor (`executor.Finish`)."""
        now = self._clock()
        answers: list[Answer] = []
        queue_s: list[float] = []
        works = [work for work, _ in outcomes]
        for work, result in outcomes:
            if isinstance(result, InferenceResult):
                queue_s.append(result.queue_s)
                answers.append((work.reply, self._encoded(work, info, result)))
            else:
                answers.append((work.reply, self._refusal(result)))
        if report is not None:
            works += report.whole
            waited = [report.began - work.arrived for work in report.whole]
            answers += self._whole_answers(info, report, waited, now)
            queue_s += waited
        self._deliver(answers)
        if report is not None:
            self._metrics.batch(info, report, queue_s)
        codes = Counter(answer.name for _, answer in answers if isinstance(answer, Status))
        codes[OK] += len(answers) - codes.total()
        self._metrics.ended(info.name, PROTOCOL, +codes, [now - work.arrived for work in works])

    # --- private --------------------------------------------------------------------------------------

    def _whole_answers(
        self, info: ModelInfo, report: BatchReport, queue_s: Sequence[float], now: float
    ) -> Sequence[Answer]:
        """Encode the answers of those that were whole in a batch, all at once; who has gone gets a reason instead."""
        whole = report.whole
        results = WholeResults(
            [work.request for work in whole],
            [work.plan.rows for work in whole],
            report.outputs,
            queue_s,
            report.seconds,
        )
        try:
            encoded = open_inference.encode_whole(info, results)
        except Exception as error:
            log.exception("cannot encode the answers of model %s", info.name)
            failed = ModelFailed(f"{type(error).__name__}: {error}. This is a bug.")
            return [(work.reply, self._refusal(failed)) for work in whole]
        return [
            (work.reply, self._refusal(work.abandoned(now)) if work.is_abandoned(now) else answer)
            for work, answer in zip(whole, encoded, strict=True)
        ]

    def _encoded(self, work: Work, info: ModelInfo, result: InferenceResult) -> bytes | Status:
        try:
            return open_inference.encode(work.request, info, result)
        except Exception as error:  # one answer's failure must not take its neighbours along
            log.exception("cannot encode an answer of model %s", info.name)
            return self._refusal(ModelFailed(f"{type(error).__name__}: {error}. This is a bug."))

    def _infer(self, calls: Sequence[Call]) -> None:
        """Decode and admit inference calls; enqueue them per model, all at once."""
        now = self._clock()
        self._metrics.began(len(calls))
        works: dict[Executor, list[Work]] = defaultdict(list)
        for call in calls:
            model = UNKNOWN
            try:
                request = open_inference.decode(call.message)
                served = self._models.get(request.header.model, request.header.version)
                model = served.info.name
                planned = served.plan(request.header)
                data = arrange(request, planned, served.info.signature)
            except RequestError as error:
                self._refuse(call, model, error)
            except Exception as error:  # an unforeseen message must not take its neighbours along
                log.exception("cannot take in a request of %d bytes", len(call.message))
                self._refuse(call, model, ModelFailed(f"{type(error).__name__}: {error}. This is a bug."))
            else:
                works[served.executor].append(Work(call.reply, request, planned, data, now, call.deadline))
        self._submit(works)

    def _submit(self, works: Mapping[Executor, Sequence[Work]]) -> None:
        """Enqueue, and answer those that are refused; who came a moment too late for a version goes to the next one."""
        late: dict[Executor, list[Work]] = defaultdict(list)
        for executor, submitted in works.items():
            refused = executor.submit(submitted)
            ended = [each for each in refused if not isinstance(each.result, NotReady)]
            for each in refused:
                if isinstance(each.result, NotReady):
                    ended += self._readmitted(executor, each, late)
            if ended:
                self.finish(executor.info, ended, None)
        if late:
            self._submit(late)

    def _readmitted(self, left: Executor, outcome: Outcome, late: dict[Executor, list[Work]]) -> Sequence[Outcome]:
        """Plan a request anew that came too late for its version; its outcome where nobody else answers."""
        work = outcome.work
        header = work.request.header
        try:
            served = self._models.get(header.model, header.version)
            if served.executor is left:
                return [outcome]  # the server is stopping
            planned = served.plan(header)
            data = arrange(work.request, planned, served.info.signature)
        except RequestError as error:
            return [Outcome(work, error)]
        late[served.executor].append(work._replace(plan=planned, data=data))
        return []

    def _refuse(self, call: Call, model: str, error: RequestError) -> None:
        """Answer a call that never became work."""
        status = self._refusal(error)
        self._deliver([(call.reply, status)])
        self._metrics.ended(model, PROTOCOL, {status.name: 1}, [0.0])

    def _refusal(self, error: RequestError) -> Status:
        """Note an error, and say how its call ends."""
        reason = _REASONS.get(type(error))
        if reason is not None:
            self._metrics.refused(reason, 1)
            if reason != "cancelled":
                self._refusals.note(reason, str(error))
        return status_of(error)

    def _answer(self, call: Call) -> bytes | Status:
        """Answer a call that needs no model's computing."""
        try:
            return self._handlers[call.method](bytes(call.message))
        except DecodeError as error:
            return status_of(InvalidRequest(f"not the message that {call.method} takes: {error}"))
        except RequestError as error:
            return status_of(error)
        except Exception as error:
            log.exception("%s failed", call.method)
            return status_of(ModelFailed(f"{type(error).__name__}: {error}. This is a bug."))

    def _defer(self, call: Call) -> None:
        """Let somebody else answer, in their own time."""

        def done(answer: bytes | RequestError) -> None:
            self._deliver([(call.reply, status_of(answer) if isinstance(answer, RequestError) else answer)])

        try:
            self._deferred[call.method](bytes(call.message), done)
        except DecodeError as error:
            done(InvalidRequest(f"not the message that {call.method} takes: {error}"))
        except RequestError as error:
            done(error)

    def _server_live(self, _message: bytes) -> bytes:
        return oip.ServerLiveResponse(live=True).SerializeToString()

    def _server_ready(self, _message: bytes) -> bytes:
        return oip.ServerReadyResponse(ready=self._health.serving()).SerializeToString()

    def _model_ready(self, message: bytes) -> bytes:
        request = oip.ModelReadyRequest.FromString(message)
        served = self._models.get(request.name, request.version)
        return oip.ModelReadyResponse(ready=self._health.serving(served.info.name)).SerializeToString()

    def _server_metadata(self, _message: bytes) -> bytes:
        return oip.ServerMetadataResponse(
            name="horngate",
            version=__version__,
            extensions=["binary_tensor_data", "parameters", *(["model_repository"] if self._deferred else [])],
        ).SerializeToString()

    def _model_metadata(self, message: bytes) -> bytes:
        request = oip.ModelMetadataRequest.FromString(message)
        served = self._models.get(request.name, request.version)
        tensor = oip.ModelMetadataResponse.TensorMetadata
        signature = served.info.signature
        return oip.ModelMetadataResponse(
            name=served.info.name,
            versions=self._models.versions(served.info.name),
            platform=served.platform,
            inputs=[tensor(name=s.name, datatype=s.datatype.name, shape=s.shape) for s in signature.inputs],
            outputs=[tensor(name=s.name, datatype=s.datatype.name, shape=s.shape) for s in signature.outputs],
        ).SerializeToString()


# --- private ------------------------------------------------------------------------------------------


def _not_admitted(_message: bytes) -> bytes:
    raise NotImplementedHere("this server takes no administrator's calls; start it with --admin")
