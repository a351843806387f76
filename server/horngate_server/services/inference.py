"""Where calls become work and outcomes become answers: the middle of the path, free of any transport.

`accept` runs on the transport's thread: decode, admit, enqueue. `finish` runs on an executor's: encode, hand back, and
let telemetry count.
"""

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from math import inf
from types import MappingProxyType

from google.protobuf.message import DecodeError

from horngate_server.core.clock import Clock
from horngate_server.core.codec import Codec
from horngate_server.core.errors import InvalidRequest, ModelFailed, NotReady, RequestError
from horngate_server.core.inference import Header, InferenceResult, ModelInfo
from horngate_server.core.rpc import Answer, Call, Deliver, Status, Stream, deliver_own
from horngate_server.engine.batch_queue import Work
from horngate_server.engine.batch_runner import BatchReport, Outcome
from horngate_server.engine.executor import Executor
from horngate_server.engine.routing import Models
from horngate_server.engine.validation import arrange
from horngate_server.protocols.grpc_status import status_of
from horngate_server.services import responses
from horngate_server.telemetry.request_telemetry import CompletedRequests, RequestTelemetry

log = logging.getLogger(__name__)

SMALL_BYTES = 1 << 20
"""What a call that computes nothing may say."""
UNKNOWN = "unknown"
"""The model label of requests for models that do not exist: a caller must not be able to make time series."""

Handler = Callable[[bytes], bytes]
"""Answers a call that needs no computing. Raises RequestError, or DecodeError for a message that is none."""
Deferred = Callable[[bytes, Callable[[bytes | RequestError], None]], None]
"""Sees to it that a call is answered later, from any thread; the same errors at once."""


class InferenceService:
    """Answers every call exactly once (`rpc.Service`).

    Args:
        codecs: of the methods that compute.
        models: what is served.
        telemetry: is told how every request ended.
        deliver: the transport's way back.
        clock: monotonic seconds, the same that deadlines are on.
        may_compute: whether the threads that hand calls over may compute short batches (`rpc.Transport.may_compute`).
    """

    def __init__(
        self,
        *,
        codecs: Mapping[str, Codec],
        models: Models,
        telemetry: RequestTelemetry,
        deliver: Deliver,
        clock: Clock,
        may_compute: bool = True,
    ) -> None:
        self._codecs = codecs
        self._models = models
        self._telemetry = telemetry
        self._transport = deliver
        self._clock = clock
        self._may_compute = may_compute
        self._arrivals: threading.Event | None = None
        self._handlers: dict[str, Handler] = {}
        self._deferred: dict[str, Deferred] = {}
        self.streams: dict[str, Stream] = {}

    @property
    def methods(self) -> frozenset[str]:
        """The unary methods' full names."""
        return frozenset([*self._codecs, *self._handlers, *self._deferred])

    def add(
        self,
        handlers: Mapping[str, Handler] = MappingProxyType({}),
        deferred: Mapping[str, Deferred] = MappingProxyType({}),
        streams: Mapping[str, Stream] = MappingProxyType({}),
    ) -> None:
        """Answer these methods too, before the transport starts."""
        self._handlers.update(handlers)
        self._deferred.update(deferred)
        self.streams.update(streams)

    def accept(self, calls: Sequence[Call]) -> None:
        """Answer what can be answered at once; put the rest in line."""
        if self._arrivals is not None:
            self._arrivals.set()
        answers: list[Answer] = []
        infers = []
        codecs = self._codecs
        for call in calls:
            if call.method in codecs or call.decoded is not None:
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
        self._end(info, outcomes, report)

    # --- private --------------------------------------------------------------------------------------

    def _deliver(self, answers: Sequence[Answer]) -> None:
        """Hand answers back: to whoever awaits them, or to the transport."""
        others = deliver_own(answers)
        if others:
            self._transport(others)

    def _end(
        self, info: ModelInfo, outcomes: Sequence[Outcome], report: BatchReport | None, *, refused: bool = False
    ) -> None:
        """Answer outcomes; of those that were refused on the spot, no time counts that they took."""
        now = self._clock()
        answers: list[Answer] = []
        queue_s: list[float] = []
        works = [work for work, _ in outcomes]
        for work, result in outcomes:
            if isinstance(result, InferenceResult):
                queue_s.append(result.queue_s)
                answers.append((work.reply, self._written(work, result)))
            else:
                answers.append((work.reply, self._refusal(result, work.codec.protocol)))
        if report is not None:
            works += report.whole
            waited = [report.began - work.arrived for work in report.whole]
            answers += self._whole_answers(report, waited, now)
            queue_s += waited
        completed = CompletedRequests(info, works, answers, outcomes, report, queue_s, now, refused=refused)
        with self._telemetry.answering:
            self._deliver(answers)
            self._telemetry.count(completed)
        self._telemetry.tell(completed)

    def _whole_answers(self, report: BatchReport, queue_s: Sequence[float], now: float) -> Sequence[Answer]:
        """Write the answers of those that were whole in a batch, all at once; who has gone gets a reason instead."""
        whole = report.whole
        try:
            written = responses.write_whole(report, queue_s)
        except Exception as error:
            log.exception("cannot encode the answers of model %s", report.info.name)
            failed = ModelFailed(f"{type(error).__name__}: {error}. This is a bug.")
            return [(work.reply, self._refusal(failed)) for work in whole]
        return [
            (
                work.reply,
                self._refusal(work.abandoned(now))
                if work.is_abandoned(now)
                else answer
                if isinstance(answer, bytes)
                else self._refusal(answer, work.codec.protocol),
            )
            for work, answer in zip(whole, written, strict=True)
        ]

    def _written(self, work: Work, result: InferenceResult) -> bytes | Status:
        try:
            return responses.write(work, result)
        except RequestError as error:
            return self._refusal(error, work.codec.protocol)
        except Exception as error:  # one answer's failure must not take its neighbours along
            log.exception("cannot encode an answer of model %s", work.plan.info.name)
            return self._refusal(ModelFailed(f"{type(error).__name__}: {error}. This is a bug."))

    def _infer(self, calls: Sequence[Call]) -> None:
        """Decode inference calls, unless that was done, and admit them; enqueue them per model, all at once."""
        now = self._clock()
        self._telemetry.began(len(calls))
        works: dict[Executor, list[Work]] = defaultdict(list)
        for call in calls:
            decoded = call.decoded
            codec = decoded[0] if decoded else self._codecs[call.method]
            model = UNKNOWN
            try:
                request = decoded[1] if decoded else codec.decode(call.message)
                header = request.header
                served = self._models.get(header.model, header.version)
                model = served.info.name
                if codec.fit is not None:
                    request = codec.fit(request, served.signature(header.signature).signature)
                if call.bulk:
                    request = request._replace(header=_as_bulk(request.header))
                header = request.header
                planned = served.plan(header)
                data = arrange(request, planned)
            except RequestError as error:
                self._refuse(call, codec, model, error)
            except Exception as error:  # an unforeseen message must not take its neighbours along
                log.exception("cannot take in a request of %d bytes", len(call.message))
                self._refuse(call, codec, model, ModelFailed(f"{type(error).__name__}: {error}. This is a bug."))
            else:
                deadline = call.deadline
                if header.timeout_s != inf:
                    deadline = min(deadline, now + header.timeout_s)
                origin = call.origin and call.origin._replace(decoded=self._clock())
                works[served.executor].append(Work(call.reply, codec, request, planned, data, now, deadline, origin))
        self._submit(works)

    def _submit(self, works: Mapping[Executor, Sequence[Work]]) -> None:
        """Enqueue, and answer those that are refused; who came a moment too late for a version goes to the next one."""
        late: dict[Executor, list[Work]] = defaultdict(list)
        for executor, submitted in works.items():
            refused = executor.submit(submitted, compute=self._may_compute)
            ended = [each for each in refused if not isinstance(each.result, NotReady)]
            for each in refused:
                if isinstance(each.result, NotReady):
                    ended += self._readmitted(executor, each, late)
            if ended:
                self._end(executor.info, ended, None, refused=True)
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
            data = arrange(work.request, planned)
        except RequestError as error:
            return [Outcome(work, error.bare())]
        late[served.executor].append(work._replace(plan=planned, data=data))
        return []

    def _refuse(self, call: Call, codec: Codec, model: str, error: RequestError) -> None:
        """Answer a call that never became work."""
        status = self._refusal(error, codec.protocol)
        self._deliver([(call.reply, status)])
        self._telemetry.not_admitted(call.origin, codec.protocol, model, status)

    def _refusal(self, error: RequestError, protocol: str = "") -> Status:
        """Note an error, and say how its call ends."""
        self._telemetry.failed(error)
        return status_of(error, protocol)

    def _answer(self, call: Call) -> bytes | Status:
        """Answer a call that needs no model's computing."""
        try:
            return self._handlers[call.method](_small(call))
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
            self._deferred[call.method](_small(call), done)
        except DecodeError as error:
            done(InvalidRequest(f"not the message that {call.method} takes: {error}"))
        except RequestError as error:
            done(error)
        except Exception as error:  # it must not take the calls of the same turn along
            log.exception("%s failed", call.method)
            done(ModelFailed(f"{type(error).__name__}: {error}. This is a bug."))


# --- private ------------------------------------------------------------------------------------------


def _small(call: Call) -> bytes:
    """Return the message of a call that has no tensors: what it becomes in memory is bounded by its size."""
    if len(call.message) > SMALL_BYTES:
        raise InvalidRequest(f"{len(call.message)} bytes for {call.method}; expected at most {SMALL_BYTES}")
    return bytes(call.message)


@lru_cache(maxsize=512)
def _as_bulk(header: Header) -> Header:
    """Return the header with the priority that the call's metadata gave it: one object for one."""
    return replace(header, bulk=True)
