"""From a batch to what everyone in it gets: run it; where it fails, run its parts until who is at fault is alone."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple

from horngate_server.core.errors import InputRefused, ModelFailed, NotInRows, OutOfMemory, RequestError
from horngate_server.core.inference import InferenceResult, ModelInfo, Outputs
from horngate_server.core.model import Array, Model
from horngate_server.core.rate_limited_log import RateLimitedLog
from horngate_server.engine.batch_queue import Batch, Slice, Work
from horngate_server.engine.batching import join, joined, outputs
from horngate_server.engine.cost_model import CostModel
from horngate_server.engine.lengths import apart

log = logging.getLogger(__name__)


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


class BatchRunner:
    """Runs one model's batches; its executor calls it, one batch at a time.

    Args:
        model: computes.
        costs: learns what runs cost.
        clock: monotonic seconds.
        pad: compute batches of the ladder's sizes only.
        shrink: called with the rows that batches may have from now on, after a larger one found no memory.
        not_in_rows: functions that were taken to answer row by row, and did not: their requests run alone from then on.
    """

    def __init__(
        self,
        model: Model,
        costs: CostModel,
        clock: Callable[[], float],
        *,
        pad: bool,
        shrink: Callable[[int], None],
        not_in_rows: set[str],
    ) -> None:
        self._model = model
        self._costs = costs
        self._clock = clock
        self._pad = pad
        self._shrink = shrink
        self._limited_log = RateLimitedLog(log, clock)
        self._not_in_rows = not_in_rows

    def run(self, batch: Batch) -> Iterator[tuple[Sequence[Outcome], BatchReport | None]]:
        """Compute a batch, in parts where it fails as one; yield what came of each, as soon as it has.

        Everyone in it appears once: in an outcome, or whole in a report.
        """
        assert batch.info is not None
        stack = self._begin(batch)
        began, first = self._clock(), len(stack) == 1
        while stack:
            part = stack.pop()
            if not first:  # it has waited for others' runs
                began = self._clock()
                part, gone = _without_abandoned(part, began)
                if gone:
                    yield gone, None
                if not part.rows:
                    continue
            first = False
            ended: tuple[Sequence[Outcome], BatchReport | None]
            try:
                ended = self._results(part, began)
            except RequestError as error:
                if parts := self._apart(part, error):
                    stack += reversed(parts)
                    continue
                ended = self._failures(part, error.bare()), None
            except Exception as error:  # noqa: BLE001 - whatever it is, it is logged, and the neighbours get answers
                self._limited_log.note(
                    "bug", logging.ERROR, "model %s: unexpected failure", batch.info.name, exc_info=True
                )
                if len(parts := part.parts()) > 1:
                    stack += reversed(parts)
                    continue
                ended = _failures(part, ModelFailed(f"{type(error).__name__}: {error}. This is a bug.")), None
            yield ended

    # --- private --------------------------------------------------------------------------------------

    def _begin(self, batch: Batch) -> list[Batch]:
        """Return what to run for a batch, the first last: all of it, unless its rows are known to need runs alone."""
        assert batch.info is not None
        if batch.alone or batch.info.signature.function not in self._not_in_rows:
            return [*reversed(apart(batch))]
        return [*reversed(_alone(batch))]

    def _results(self, batch: Batch, began: float) -> tuple[Sequence[Outcome], BatchReport]:
        """Run a batch.

        Raises:
            RequestError: the model's failure.
        """
        info = batch.info
        assert info is not None
        signature = info.signature
        rung = self._costs.rung(batch.rows)
        rows = rung if self._pad and not batch.alone else batch.rows
        feed = join(batch, signature, self._model, rows)
        run_at = self._clock()
        arrays = self._model.run(feed)
        computed = outputs(arrays, info, rows, alone=batch.alone, padded=batch if info.batching.padding else None)
        now = self._clock()
        self._costs.measured(batch.kind, rung, now - run_at, now, rows)
        ended = []
        row = batch.rows - sum(part.stop - part.start for part in batch.slices)
        for part in batch.slices:
            outcome = _advance(part, computed, row, began=began, now=now)
            row += part.stop - part.start
            if outcome is not None:
                ended.append(outcome)
        return ended, BatchReport(
            info, batch.whole, computed, began, batch.rows, rows, now - began, now - run_at, arrays
        )

    def _apart(self, batch: Batch, error: RequestError) -> Sequence[Batch]:
        """Return what to run in a failed batch's place, in order; nothing where its one request is at fault."""
        assert batch.info is not None
        signature = batch.info.signature
        if signature.writes:  # it may have changed what the model remembers: a second run would do so again
            return ()
        if isinstance(error, NotInRows) and not batch.alone:
            self._not_in_rows.add(signature.function)
            log.warning(
                "model %s version %s, signature %s, is not batched any more: %s",
                batch.info.name, batch.info.version, signature.name, str(error),
            )  # fmt: skip
            return _alone(batch)
        if isinstance(error, OutOfMemory) and batch.rows > 1 and not batch.alone:
            self._shrink(batch.rows // 2)
            self._limited_log.note(
                "memory", logging.WARNING, "model %s: a batch of %d rows found no memory, and is tried in halves: %s",
                batch.info.name, batch.rows, str(error),
            )  # fmt: skip
            return batch.halves()
        parts = batch.parts()
        return parts if len(parts) > 1 else ()

    def _failures(self, batch: Batch, error: RequestError) -> list[Outcome]:
        """Answer everyone in a failed batch, once, and say so in the log."""
        assert batch.info is not None
        kind, level = ("input", logging.WARNING) if isinstance(error, InputRefused) else ("failed", logging.ERROR)
        self._limited_log.note(
            kind, level, "model %s version %s failed on a batch of %d rows: %s",
            batch.info.name, batch.info.version, batch.rows, str(error),
        )  # fmt: skip
        return _failures(batch, error)


# --- private ------------------------------------------------------------------------------------------


def _alone(batch: Batch) -> list[Batch]:
    """Return a run of its own for each request; one that was to be cut into slices starts over, whole."""
    works = list(batch.whole)
    works += [part.progress.work for part in batch.slices if part.progress.ends()]
    return [Batch.alone_of(work) for work in works]


def _without_abandoned(batch: Batch, now: float) -> tuple[Batch, list[Outcome]]:
    """Return a batch of those who still wait, and the outcomes of the others."""
    gone: list[Outcome] = []
    left: list[Work | Slice] = []
    for work in batch.whole:
        if work.is_abandoned(now):
            gone.append(Outcome(work, work.abandoned(now)))
        else:
            left.append(work)
    for part in batch.slices:
        progress = part.progress
        if progress.over:
            continue
        if progress.work.is_abandoned(now):
            if progress.ends():
                gone.append(Outcome(progress.work, progress.work.abandoned(now)))
        else:
            left.append(part)
    return (batch.of(left) if len(left) < len(batch.whole) + len(batch.slices) else batch), gone


def _failures(batch: Batch, error: RequestError) -> list[Outcome]:
    """Answer everyone in a batch with an error, once; what is left of them in the line is over."""
    failed = [Outcome(work, error) for work in batch.whole]
    failed += [Outcome(part.progress.work, error) for part in batch.slices if part.progress.ends()]
    return failed


def _advance(part: Slice, computed: Outputs, row: int, *, began: float, now: float) -> Outcome | None:
    """Give a large request its rows of a batch; its outcome once it has them all, or once nobody waits for it."""
    progress, work, rows = part.progress, part.progress.work, part.stop - part.start
    shapes = computed.shapes_of(work.plan.rows, row)
    with progress.lock:
        if progress.over:
            return None
        progress.started = min(progress.started or began, began)
        progress.compute_s += now - began
        progress.computed += rows
        progress.parts.append((part.start, shapes, computed.rows(row, row + rows)))
        gone = work.is_abandoned(now)
        progress.over = gone or progress.computed == work.plan.rows
        if not progress.over:
            return None
    if gone:
        return Outcome(work, work.abandoned(now))
    progress.parts.sort(key=itemgetter(0))
    if any(each != shapes for _, each, _ in progress.parts):
        return Outcome(work, ModelFailed("the model's output shapes vary from batch to batch; send fewer rows"))
    pieces = zip(*(data for _, _, data in progress.parts), strict=True)
    mine = [
        joined(each) if size is not None else each[0] for each, size in zip(pieces, computed.row_sizes, strict=True)
    ]
    return Outcome(
        work,
        InferenceResult(
            rows=work.plan.rows,
            shapes=shapes,
            outputs=mine,
            queue_s=progress.started - work.arrived,
            compute_s=progress.compute_s,
        ),
    )
