"""One thread that owns one model: it takes a batch, runs it, answers everyone in it, and goes on."""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from horngate_server.batch import Outputs, join, outputs
from horngate_server.costs import Costs
from horngate_server.errors import DeadlineExpired, ModelFailed, NotReady, RequestError
from horngate_server.model import Array, Model
from horngate_server.queue import Batch, Line, Slice, Work
from horngate_server.request import InferenceResult, ModelInfo

log = logging.getLogger(__name__)

Clock = Callable[[], float]


class Outcome(NamedTuple):
    """How one request ended: with its rows, or with an error."""

    work: Work
    result: InferenceResult | RequestError


@dataclass(frozen=True, slots=True)
class BatchReport:
    """One batch, for the metrics.

    Attributes:
        rows: rows that were asked for.
        padded_rows: rows that were computed.
        seconds: from taking it until its outputs were there.
        arrays: the model's outputs, padding included.
    """

    rows: int
    padded_rows: int
    seconds: float
    arrays: Sequence[Array]


Finish = Callable[[ModelInfo, Sequence[Outcome], BatchReport | None], None]


class Executor:
    """The owner of a model, its waiting line and its lock.

    Args:
        info: which model it is.
        model: computes; only this executor's thread calls it after `start`.
        line: where requests wait.
        costs: what batches cost.
        finish: takes the outcomes of a batch; every submitted work appears in exactly one call.
        clock: monotonic seconds.
        on_death: called with the exception should the loop itself fail; the process cannot serve then.
    """

    def __init__(
        self,
        info: ModelInfo,
        model: Model,
        line: Line,
        costs: Costs,
        finish: Finish,
        *,
        clock: Clock,
        on_death: Callable[[BaseException], None],
    ) -> None:
        self.info = info
        self.costs = costs
        self._model = model
        self._line = line
        self._finish = finish
        self._clock = clock
        self._on_death = on_death
        self._changed = threading.Condition()
        self._closed = False
        self._idle = False
        self._thread = threading.Thread(target=self._run, name=f"executor-{info.name}-{info.version}")

    @property
    def queue_rows(self) -> int:
        """Rows that wait."""
        return self._line.rows

    @property
    def capacity_rows(self) -> int:
        """Rows that may wait."""
        return self._line.capacity_rows

    def start(self) -> None:
        """Begin to compute."""
        self._thread.start()

    def submit(self, works: Sequence[Work]) -> Sequence[Outcome]:
        """Put works in the line; return at once those that are refused, with the reason. Callable from any thread."""
        refused = []
        with self._changed:
            for work in works:
                try:
                    self._admit(work)
                except RequestError as error:
                    refused.append(Outcome(work, error))
            if self._idle:
                self._changed.notify()
        return refused

    def stop(self, timeout_s: float) -> bool:
        """Refuse new work, compute what waits, and end. False if that took too long: the rest is answered then."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            with self._changed:
                left = [Outcome(work, NotReady("the server stopped before its turn")) for work in self._line.drain()]
            self._finish(self.info, left, None)
            return False
        return True

    def close(self) -> None:
        """Close the model; after `stop`."""
        self._model.close()

    # --- private --------------------------------------------------------------------------------------

    def _admit(self, work: Work) -> None:
        """Add to the line, or raise why not. Holds the lock."""
        if self._closed:
            raise NotReady(f"model {self.info.name} version {self.info.version} is draining")
        waiting = self._line.rows
        remaining = work.deadline - work.arrived
        needed = self.costs.wait(waiting) + self.costs.least(work.plan.rows)
        if needed > remaining:
            raise DeadlineExpired(
                f"cannot be met: {waiting} rows wait, which takes {needed:.3f} s; the deadline is in {remaining:.3f} s"
            )
        self._line.put(work, retry_after_s=self.costs.wait(waiting))

    def _run(self) -> None:
        try:
            while (batch := self._next()) is not None:
                self._compute(batch)
        except BaseException as error:  # the loop must not end without anybody being told
            log.critical("the executor of model %s died", self.info.name, exc_info=True)
            with self._changed:
                self._closed = True
                left = [Outcome(work, ModelFailed("the executor died. This is a bug.")) for work in self._line.drain()]
            self._finish(self.info, left, None)
            self._on_death(error)

    def _next(self) -> Batch | None:
        """Wait until a batch is due and take it; None once stopped and empty."""
        with self._changed:
            while True:
                due = self._line.due()
                if due is None:
                    if self._closed:
                        return None
                    timeout = None
                else:
                    now = self._clock()
                    if due <= now or self._closed:
                        return self._line.take(now)
                    timeout = due - now
                self._idle = True
                self._changed.wait(timeout)
                self._idle = False

    def _compute(self, batch: Batch) -> None:
        """Run one batch and answer it; whatever the model does, the loop goes on."""
        ended = [Outcome(work, reason) for work, reason in batch.dropped]
        report = None
        if batch.slices:
            began = self._clock()
            try:
                results, report = self._results(batch, began)
                ended += results
            except ModelFailed as error:
                log.error("model %s failed on a batch of %d rows: %s", self.info.name, batch.rows, error)
                ended += self._failures(batch, error)
            except Exception as error:
                log.exception("model %s: unexpected failure on a batch of %d rows", self.info.name, batch.rows)
                ended += self._failures(batch, ModelFailed(f"{type(error).__name__}: {error}. This is a bug."))
        self._finish(self.info, ended, report)

    def _results(self, batch: Batch, began: float) -> tuple[list[Outcome], BatchReport]:
        rung = self.costs.rung(batch.rows)
        feed = join(batch, self._model, rung)
        run_at = self._clock()
        arrays = self._model.run(feed)
        computed = outputs(arrays, self.info.signature, rung)
        now = self._clock()
        self.costs.measured(rung, now - run_at)
        ended = []
        row = 0
        for part in batch.slices:
            rows = part.stop - part.start
            outcome = _advance(part, computed, row, began=began, now=now)
            row += rows
            if outcome is not None:
                ended.append(outcome)
        return ended, BatchReport(batch.rows, rung, now - began, arrays)

    def _failures(self, batch: Batch, error: ModelFailed) -> list[Outcome]:
        """Answer everyone in a failed batch, once; what is left of them in the line is over."""
        failed = []
        for part in batch.slices:
            if not part.progress.over:
                part.progress.over = True
                failed.append(Outcome(part.progress.work, error))
        return failed


def _advance(part: Slice, computed: Outputs, row: int, *, began: float, now: float) -> Outcome | None:
    """Give a request its rows of a batch; its outcome once it has them all, or once nobody waits for it."""
    progress = part.progress
    if progress.over:
        return None
    work = progress.work
    if not part.start:
        progress.started = began
    progress.compute_s += now - began
    if (reason := work.abandoned(now)) is not None:
        progress.over = True
        return Outcome(work, reason)
    mine = computed.rows(row, row + part.stop - part.start)
    if part.stop - part.start < work.plan.rows:
        progress.parts.append((computed.shapes, mine))
        if part.stop < work.plan.rows:
            return None
        if any(shapes != computed.shapes for shapes, _ in progress.parts):
            progress.over = True
            return Outcome(work, ModelFailed("the model's output shapes vary from batch to batch; send fewer rows"))
        mine = [b"".join(pieces) for pieces in zip(*(data for _, data in progress.parts), strict=True)]
    progress.over = True
    return Outcome(
        work,
        InferenceResult(
            rows=work.plan.rows,
            shapes=computed.shapes,
            outputs=mine,
            queue_s=progress.started - work.arrived,
            compute_s=progress.compute_s,
        ),
    )
