"""What is told of requests, and to whom: metrics, statistics, the log of refusals, the access log, traces, a recorder.

All of them only listen. They are told after the callers have their answers, and what one of them raises goes to the
guard: no answer is lost or changed by it. Who asks for statistics waits until the answers that have left are counted.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from math import inf
from typing import NamedTuple, TypeVarTuple

from horngate_server.core.clock import Clock
from horngate_server.core.errors import CallerGone, DeadlineExpired, NotReady, QueueFull, RequestError
from horngate_server.core.inference import InferenceResult, ModelInfo
from horngate_server.core.observer_guard import ObserverGuard
from horngate_server.core.request_context import RequestContext
from horngate_server.core.rpc import Answer, Status
from horngate_server.engine.batch_queue import Work
from horngate_server.engine.batch_runner import BatchReport, Outcome
from horngate_server.protocols.grpc_status import OK
from horngate_server.telemetry.metrics import Metrics
from horngate_server.telemetry.refusal_log import RefusalLog
from horngate_server.telemetry.request_record import RequestObserver, RequestRecord
from horngate_server.telemetry.statistics import Statistics

Told = TypeVarTuple("Told")

_REASONS: dict[type[RequestError], str] = {
    CallerGone: "cancelled",
    DeadlineExpired: "deadline",
    NotReady: "not_ready",
    QueueFull: "queue_full",
}


class CompletedRequests(NamedTuple):
    """Requests that ended together: first those with an outcome of their own, then those whole in a batch.

    Columns, where an object for each request would read better: making those adds 14 % or more to what answering a
    batch takes.

    Attributes:
        info: the model.
        works: the requests.
        answers: theirs, in this order.
        outcomes: of the first of them.
        report: the batch that the others were in whole; None without one.
        queue_s: of those that were computed, the seconds from arrival to their first batch.
        now: when it was known how they ended, on the monotonic clock.
        refused: on the spot: no time counts that they took.
    """

    info: ModelInfo
    works: Sequence[Work]
    answers: Sequence[Answer]
    outcomes: Sequence[Outcome]
    report: BatchReport | None
    queue_s: Sequence[float]
    now: float
    refused: bool = False


class RequestTelemetry:
    """Tells all who listen. Callable from any thread.

    Args:
        metrics: counts.
        statistics: counts per version.
        clock: monotonic seconds, the same that deadlines are on.
        observers: tell about requests that came with an origin.
        guard: takes what goes wrong with any of them.
        record: is told of all that ended, if anybody records.
    """

    def __init__(
        self,
        metrics: Metrics,
        statistics: Statistics,
        clock: Clock,
        observers: Sequence[RequestObserver] = (),
        *,
        guard: ObserverGuard | None = None,
        record: Callable[[CompletedRequests], None] | None = None,
    ) -> None:
        self._metrics = metrics
        self._statistics = statistics
        self._clock = clock
        self._observers = observers
        self._guard = guard or ObserverGuard(clock)
        self._record = record
        self._refusals = RefusalLog(clock)

    def began(self, requests: int) -> None:
        """Count requests in."""
        self._guarded("metrics", self._metrics.began, requests)

    def failed(self, error: RequestError) -> None:
        """Note why a request gets no answer, where that has a reason to be counted by."""
        reason = _REASONS.get(type(error))
        if reason is None:
            return
        self._guarded("metrics", self._metrics.refused, reason, 1)
        if reason != "cancelled":
            self._refusals.note(reason, str(error))

    def not_admitted(self, origin: RequestContext | None, protocol: str, model: str, status: Status) -> None:
        """Tell about a request that never became work."""
        self._guarded("metrics", self._metrics.ended, model, protocol, {status.name: 1}, ())
        if origin is not None:
            now = self._clock()
            self._observe(
                RequestRecord(origin, protocol, model, "", 0, "", status.name, status.message, now, inf, inf, now)
            )

    @property
    def answering(self) -> AbstractContextManager[object]:
        """Hold up those who ask for statistics, while answers leave and until they are counted."""
        return self._statistics.answering

    def count(self, completed: CompletedRequests) -> None:
        """Count requests that were work, each once, and their batch."""
        seconds = [completed.now - work.arrived for work in completed.works]
        failed = {
            place: answer.name for place, (_, answer) in enumerate(completed.answers) if isinstance(answer, Status)
        }
        self._guarded("metrics", self._to_metrics, completed, seconds, failed)
        self._guarded("statistics", self._to_statistics, completed, seconds, [seconds[place] for place in failed])

    def tell(self, completed: CompletedRequests) -> None:
        """Tell who records, logs or traces about the same requests."""
        if self._record is not None:
            self._guarded("record", self._record, completed)
        if self._observers:
            for place, work in enumerate(completed.works):
                if work.origin is not None:
                    outcomes = completed.outcomes
                    how = outcomes[place].result if place < len(outcomes) else completed.report
                    answer = completed.answers[place][1]
                    self._observe(_record(work.origin, work, completed.info, answer, how, now=self._clock()))

    # --- private --------------------------------------------------------------------------------------

    def _to_metrics(self, completed: CompletedRequests, seconds: Sequence[float], failed: Mapping[int, str]) -> None:
        """Count requests out, each once: their seconds, if these count, and the codes of those that failed."""
        works, report = completed.works, completed.report
        codecs = {work.codec for work in works}
        for codec in codecs:
            mine: Sequence[int] = range(len(works))
            times = seconds
            if len(codecs) > 1:
                mine = [place for place in mine if works[place].codec is codec]
                times = [seconds[place] for place in mine]
            codes = Counter(failed.get(place, OK) for place in mine) if failed else {OK: len(mine)}
            self._metrics.ended(completed.info.name, codec.protocol, codes, () if completed.refused else times)
        if report is not None:
            self._metrics.batch(completed.info, report, completed.queue_s)

    def _to_statistics(self, completed: CompletedRequests, seconds: Sequence[float], failed_s: Sequence[float]) -> None:
        if completed.report is not None:
            self._statistics.batch(
                completed.info,
                completed.report,
                now=completed.now,
                write_s=self._clock() - completed.now,
                requests=len(seconds) - len(failed_s),
                success_s=sum(seconds) - sum(failed_s),
                queue_s=sum(completed.queue_s),
            )
        if failed_s:
            self._statistics.failed(completed.info, failed_s)

    def _observe(self, record: RequestRecord) -> None:
        """Tell the access log and the traces."""
        for tell in self._observers:
            self._guarded("telling", tell, record)

    def _guarded(self, observer: str, tell: Callable[[*Told], None], *told: *Told) -> None:
        try:
            tell(*told)
        except Exception as error:  # noqa: BLE001 - it only listens: whatever it is, the request gets its answer
            self._guard.failed(observer, error)


# --- private ------------------------------------------------------------------------------------------


def _record(
    origin: RequestContext,
    work: Work,
    info: ModelInfo,
    answer: bytes | Status,
    how: InferenceResult | BatchReport | RequestError | None,
    *,
    now: float,
) -> RequestRecord:
    """Return what there is to tell of a request, whether it was computed alone, in a batch, or not at all."""
    code, message = (answer.name, answer.message) if isinstance(answer, Status) else (OK, "")
    began = computed = inf
    if isinstance(how, BatchReport):
        began, computed = how.began, how.began + how.seconds
    elif isinstance(how, InferenceResult):
        began = work.arrived + how.queue_s
        computed = began + how.compute_s
    return RequestRecord(
        origin, work.codec.protocol, info.name, info.version, work.plan.rows, work.request.id, code, message,
        work.arrived, began, computed, now,
    )  # fmt: skip
