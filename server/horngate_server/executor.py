"""The owner of one model: it takes a batch, runs it, answers everyone in it, and goes on."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from horngate_server.batch import join, joined, outputs
from horngate_server.costs import Costs
from horngate_server.errors import DeadlineExpired, ModelFailed, NotReady, RequestError
from horngate_server.model import Array, Model
from horngate_server.queue import Batch, Line, Slice, Work
from horngate_server.request import InferenceResult, ModelInfo, Outputs

log = logging.getLogger(__name__)

Clock = Callable[[], float]

QUICK_S = 0.003
"""A batch expected to take no longer than this may hold up the thread that takes requests in."""


class Outcome(NamedTuple):
    """How one request ended that was not computed whole in one batch: with its rows, or with an error."""

    work: Work
    result: InferenceResult | RequestError


@dataclass(frozen=True, slots=True)
class BatchReport:
    """One batch that was computed.

    Attributes:
        info: the model, with the signature that answered.
        whole: the requests that were in it whole; its first rows are theirs, in this order.
        outputs: all rows, ready to be cut.
        began: when it was taken from the line.
        rows: rows that were asked for.
        padded_rows: rows that were computed.
        seconds: from taking it until its outputs were there.
        run_s: of these, in the model.
        arrays: the model's outputs, padding included.
    """

    info: ModelInfo
    whole: Sequence[Work]
    outputs: Outputs
    began: float
    rows: int
    padded_rows: int
    seconds: float
    run_s: float
    arrays: Sequence[Array]


Finish = Callable[[ModelInfo, Sequence[Outcome], BatchReport | None], None]


class Executor:
    """The owner of a model, its waiting line and its lock: one batch at a time, on its own thread or a submitter's.

    Args:
        info: which model it is.
        model: computes; only this executor calls it after `start`, one batch at a time.
        line: where requests wait.
        costs: what batches cost.
        finish: takes the outcomes of a batch and its report; every submitted work appears in exactly one of both, once.
        clock: monotonic seconds.
        pad: compute batches of the ladder's sizes only, so that no new shape is compiled or tuned under traffic.
        quick_s: batches expected to take no longer than this are computed by whoever submits their last request.
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
        pad: bool = True,
        quick_s: float = QUICK_S,
    ) -> None:
        self.info = info
        self.costs = costs
        self._model = model
        self._line = line
        self._finish = finish
        self._clock = clock
        self._on_death = on_death
        self._pad = pad
        self._quick_s = quick_s
        self._changed = threading.Condition()
        self._closed = False
        self._computing = False
        self._thread = threading.Thread(target=self._run, name=f"executor-{info.name}-{info.version}")

    @property
    def queue_rows(self) -> Mapping[str, int]:
        """Rows that wait, by priority."""
        bulk = self._line.bulk_rows
        return {"interactive": self._line.rows - bulk, "bulk": bulk}

    @property
    def capacity_rows(self) -> int:
        """Rows of each priority that may wait."""
        return self._line.capacity_rows

    @property
    def max_batch_rows(self) -> int:
        """Rows that are computed together at most."""
        return self._line.max_batch_rows

    @property
    def delay_s(self) -> float:
        """How long a request may be kept waiting for others."""
        return self._line.delay_s

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is computed, at this moment."""
        return not self._computing and not self._line

    def start(self) -> None:
        """Begin to compute."""
        self._thread.start()

    def submit(self, works: Sequence[Work]) -> Sequence[Outcome]:
        """Put works in the line; return those that are refused, with the reason. Callable from any thread.

        A batch that can start at once and is over soon is computed right here: waking another thread and being woken
        by the answers costs more than such a batch. What arrives meanwhile waits in the transport, and is the next.
        """
        refused = []
        batch = None
        with self._changed:
            for work in works:
                try:
                    self._admit(work)
                except RequestError as error:
                    refused.append(Outcome(work, error))
            if not self._computing and (due := self._line.due()) is not None:
                if due <= (now := self._clock()) and self._expected() <= self._quick_s:
                    self._computing = True
                    batch = self._line.take(now)
                else:
                    self._changed.notify()
        if batch is not None:
            self._guarded(lambda: self._compute(batch))
            with self._changed:
                self._computing = False
                if self._line or self._closed:
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

    def _expected(self) -> float:
        """Return the seconds that the next batch is likely to take."""
        first = self._line.first()
        return self.costs.expected(first.plan.info.signature.name, self._line.rows) if first else 0.0

    def _admit(self, work: Work) -> None:
        """Add to the line, or raise why not. Holds the lock."""
        if self._closed:
            raise NotReady(f"model {self.info.name} version {self.info.version} is draining")
        remaining = work.deadline - work.arrived
        if remaining < inf:
            waiting = self._line.ahead(work)
            needed = self.costs.wait(waiting) + self.costs.least(work.plan.info.signature.name, work.plan.rows)
            if needed > remaining:
                raise DeadlineExpired(
                    f"cannot be met: {waiting} rows wait, which takes {needed:.3f} s; "
                    f"the deadline is in {remaining:.3f} s"
                )
        self._line.put(work, self.costs.wait)

    def _run(self) -> None:
        def loop() -> None:
            while (batch := self._next()) is not None:
                self._compute(batch)
                with self._changed:
                    self._computing = False

        self._guarded(loop)

    def _guarded(self, run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as error:  # the loop must not end without anybody being told
            log.critical("the executor of model %s died", self.info.name, exc_info=True)
            with self._changed:
                self._closed = True
                left = [Outcome(work, ModelFailed("the executor died. This is a bug.")) for work in self._line.drain()]
            self._finish(self.info, left, None)
            self._on_death(error)

    def _next(self) -> Batch | None:
        """Wait until a batch is due and nobody computes, and take it; None once stopped and empty."""
        with self._changed:
            while True:
                timeout = None
                if not self._computing:
                    due = self._line.due()
                    if due is None:
                        if self._closed:
                            return None
                    else:
                        now = self._clock()
                        if due <= now or self._closed:
                            self._computing = True
                            return self._line.take(now)
                        timeout = due - now
                self._changed.wait(timeout)

    def _compute(self, batch: Batch) -> None:
        """Run one batch and answer it; whatever the model does, the loop goes on."""
        ended = [Outcome(work, reason) for work, reason in batch.dropped]
        report = None
        if batch.rows:
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
        assert batch.info is not None
        signature = batch.info.signature
        rung = self.costs.rung(batch.rows)
        rows = rung if self._pad else batch.rows
        feed = join(batch, signature, self._model, rows)
        run_at = self._clock()
        arrays = self._model.run(feed)
        computed = outputs(arrays, signature, rows)
        now = self._clock()
        self.costs.measured(signature.name, rung, now - run_at)
        ended = []
        row = batch.rows - sum(part.stop - part.start for part in batch.slices)
        for part in batch.slices:
            outcome = _advance(part, computed, row, began=began, now=now)
            row += part.stop - part.start
            if outcome is not None:
                ended.append(outcome)
        return ended, BatchReport(
            batch.info, batch.whole, computed, began, batch.rows, rows, now - began, now - run_at, arrays
        )

    def _failures(self, batch: Batch, error: ModelFailed) -> list[Outcome]:
        """Answer everyone in a failed batch, once; what is left of them in the line is over."""
        failed = [Outcome(work, error) for work in batch.whole]
        for part in batch.slices:
            if not part.progress.over:
                part.progress.over = True
                failed.append(Outcome(part.progress.work, error))
        return failed


def _advance(part: Slice, computed: Outputs, row: int, *, began: float, now: float) -> Outcome | None:
    """Give a large request its rows of a batch; its outcome once it has them all, or once nobody waits for it."""
    progress = part.progress
    if progress.over:
        return None
    work = progress.work
    if not part.start:
        progress.started = began
    progress.compute_s += now - began
    if work.is_abandoned(now):
        progress.over = True
        return Outcome(work, work.abandoned(now))
    progress.parts.append((computed, computed.rows(row, row + part.stop - part.start)))
    if part.stop < work.plan.rows:
        return None
    progress.over = True
    if any(outputs.shapes != computed.shapes for outputs, _ in progress.parts):
        return Outcome(work, ModelFailed("the model's output shapes vary from batch to batch; send fewer rows"))
    pieces = zip(*(data for _, data in progress.parts), strict=True)
    mine = [
        joined(each) if size is not None else each[0] for each, size in zip(pieces, computed.row_sizes, strict=True)
    ]
    return Outcome(
        work,
        InferenceResult(
            rows=work.plan.rows,
            shapes=computed.shapes_of(work.plan.rows),
            outputs=mine,
            queue_s=progress.started - work.arrived,
            compute_s=progress.compute_s,
        ),
    )
