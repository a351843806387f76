"""A version that computes along: a share of the live batches, when nobody waits, and no one gets its answers.

It shows what a new version would have said. Batches are taken after their callers were answered; while the version
that answers has anything to do, they wait, and those that find no room are let go.
"""

import logging
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import NamedTuple

import numpy as np

from horngate_server.core.clock import Clock
from horngate_server.core.errors import ModelFailed, RequestError
from horngate_server.core.inference import Data, numbers, strings
from horngate_server.core.model import Array, Model
from horngate_server.core.observer_guard import ObserverGuard
from horngate_server.core.rate_limited_log import RateLimitedLog
from horngate_server.core.signature import Signature
from horngate_server.engine.batch_runner import BatchReport
from horngate_server.engine.class_scores import PROBABILITIES
from horngate_server.engine.executor import Executor
from horngate_server.runtimes.thread_priority import stand_back

log = logging.getLogger(__name__)

ROWS = 64
"""Rows of a batch that are computed at most: what a live request may have to wait for on a busy machine."""
WAITING = 4
"""Batches that wait for a quiet moment."""
RTOL, ATOL = 1e-3, 1e-4
"""How near two numbers are that count as the same, where there are no classes: as in a model's recorded answers."""
FAILURE_EVERY_S = 10.0
"""Between two log lines about batches that a shadow failed on."""
QUIET_S = 0.001
"""How long to wait before looking again whether the executor is idle."""


@dataclass(frozen=True, slots=True)
class ShadowReport:
    """How a shadow compares with the version that answers, over all rows that it computed.

    Attributes:
        rows: that both computed.
        agreed: of these, how many got the same class (or, without classes, the same output, within a tolerance).
        confidence: summed differences of the highest probability, the shadow's less the other's.
        seconds: summed time of the shadow's batches.
        live_seconds: summed time that the answering version took for as many rows.
        skipped: batches that found no room, or failed.
    """

    rows: int = 0
    agreed: int = 0
    confidence: float = 0.0
    seconds: float = 0.0
    live_seconds: float = 0.0
    skipped: int = 0


class _Sample(NamedTuple):
    """Rows of one batch, or one request that had a run of its own.

    Attributes:
        signature: the live version's.
        rows: how many.
        inputs: per input, its elements, in pieces.
        shapes: per input, the whole shape.
        place: of the output that is compared.
        answer: the live version's, as it came for these rows.
        in_rows: whether its first axis is the rows.
        seconds: that these rows took.
    """

    signature: Signature
    rows: int
    inputs: Sequence[Sequence[Data]]
    shapes: Sequence[tuple[int, ...]]
    place: int
    answer: Array
    in_rows: bool
    seconds: float


class Shadow:
    """Runs one version's model on another's traffic, on a thread of its own.

    Args:
        name: for the log: model and version.
        model: the shadow's; nobody else may use it until `stop` has returned.
        live: whose batches are sampled.
        share: of the batches, 0 to 1.
        clock: monotonic seconds.
        guard: takes what goes wrong that should not.
    """

    def __init__(
        self, name: str, model: Model, live: Executor, share: float, clock: Clock, *, guard: ObserverGuard | None = None
    ) -> None:
        self.live = live
        self.share = share
        self._name = name
        self._model = model
        self._clock = clock
        self._guard = guard or ObserverGuard(clock)
        self._limited_log = RateLimitedLog(log, clock, FAILURE_EVERY_S)
        self._credit = 0.0
        self._report = ShadowReport()
        self._waiting: deque[_Sample] = deque()
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"shadow-{name}", daemon=True)

    def start(self) -> None:
        """Begin to compute."""
        self._thread.start()

    def stop(self, timeout_s: float | None = None) -> bool:
        """End; the model is free afterwards, unless that took longer: then False."""
        self._stopping.set()
        with self._changed:
            self._changed.notify()
        self._thread.join(timeout_s and max(0.0, timeout_s))
        return not self._thread.is_alive()

    @property
    def report(self) -> ShadowReport:
        """How it compares so far."""
        return self._report

    def offer(self, report: BatchReport) -> None:
        """Let it have a batch that was answered; called by the live version's executor, and costs next to nothing."""
        self._credit += self.share
        if self._credit < 1 or not report.whole:
            self._credit = min(self._credit, 1.0)
            return
        self._credit -= 1
        with self._changed:
            if len(self._waiting) >= WAITING:
                self._skip()
                return
            self._waiting.append(_sample(report))
            self._changed.notify()

    # --- private --------------------------------------------------------------------------------------

    def _run(self) -> None:
        stand_back()
        while (sample := self._next()) is not None:
            try:
                self._compare(sample)
            except RequestError as error:
                self._limited_log.note(
                    "failed", logging.WARNING,
                    "shadow %s failed on a batch of %d rows: %s", self._name, sample.rows, error,
                )  # fmt: skip
                self._skip()
            except Exception as error:  # noqa: BLE001 - whatever it is, the next batch has its turn
                self._guard.failed("shadow", error)
                self._skip()

    def _next(self) -> _Sample | None:
        """Wait for a batch, and for the live version to be idle."""
        while True:
            with self._changed:
                while not self._waiting and not self._stopping.is_set():
                    self._changed.wait()
                if self._stopping.is_set():
                    return None
                if self.live.idle:
                    return self._waiting.popleft()
            self._stopping.wait(QUIET_S)  # its executor has no event for this: one would cost every batch

    def _compare(self, sample: _Sample) -> None:
        """Compute a batch, and add how it compares."""
        signature = self._model.signature
        if not signature.stands_in_for(sample.signature):
            raise ModelFailed(f"it is {signature}, and the live version is {sample.signature}")
        feed = self._model.feed(signature, sample.shapes)
        for memory, pieces in zip(feed.arrays, sample.inputs, strict=True):
            _write(memory, pieces)
        began = self._clock()
        answers = self._model.run(feed)
        seconds = self._clock() - began
        name = sample.signature.outputs[sample.place].name
        mine = answers[[spec.name for spec in signature.outputs].index(name)]
        if sample.answer.shape != mine.shape:
            raise ModelFailed(f"its {name} is {list(mine.shape)}, the live version's {list(sample.answer.shape)}")
        agreed, confidence = _agreement(sample, mine)
        before = self._report
        self._report = replace(
            before,
            rows=before.rows + sample.rows,
            agreed=before.agreed + agreed,
            confidence=before.confidence + confidence,
            seconds=before.seconds + seconds,
            live_seconds=before.live_seconds + sample.seconds,
        )

    def _skip(self) -> None:
        self._report = replace(self._report, skipped=self._report.skipped + 1)


# --- private ------------------------------------------------------------------------------------------


def _sample(report: BatchReport) -> _Sample:
    """Cut a batch's first rows; requests of it are taken as long as there is room. One with its own run stays whole."""
    signature = report.info.signature
    first = report.whole[0]
    works = []
    rows = 0
    for work in report.whole:
        if work.plan.shapes != first.plan.shapes:
            break  # it was padded, or the first one was
        works.append(work)
        rows += work.plan.rows
        if rows >= ROWS:
            break
    whole = first.plan.whole
    if not whole:
        rows = min(rows, ROWS)
    names = [spec.name for spec in signature.outputs]
    place = names.index(PROBABILITIES) if PROBABILITIES in names else 0
    answer = report.arrays[place]
    if report.outputs.lengths:
        answer = answer[tuple(map(slice, (len(answer), *report.outputs.shapes_of(rows)[place][1:])))]
    in_rows = not whole and answer.ndim > 0 and answer.shape[0] == report.padded_rows
    return _Sample(
        signature,
        rows,
        [[work.data[place] for work in works] for place in range(len(signature.inputs))],
        first.plan.shapes if whole else [(rows, *shape) for shape in first.plan.shapes],
        place,
        (answer[:rows] if in_rows else answer).copy(),
        in_rows,
        report.seconds * rows / max(rows, report.padded_rows),
    )


def _write(memory: Array, pieces: Sequence[Data]) -> None:
    """Fill a model's memory with the pieces of an input, as far as it goes."""
    if memory.dtype.hasobject:
        memory.reshape(-1)[:] = list(islice(chain.from_iterable(map(strings, pieces)), memory.size))
        return
    flat = memory.reshape(-1).view(np.uint8)
    flat[:] = np.frombuffer(b"".join(map(numbers, pieces)), np.uint8)[: flat.size]


def _agreement(sample: _Sample, mine: Array) -> tuple[int, float]:
    """Return how many rows got the same answer, and by how much the shadow was surer of their classes altogether."""
    live = sample.answer
    if live.dtype.kind == "f" and sample.in_rows and live.ndim == 2 and live.shape[1] > 1:
        surer = mine.max(axis=1).astype(np.float64) - live.max(axis=1)
        agreed = int((live.argmax(axis=1) == mine.argmax(axis=1)).sum())
        return agreed, float(surer[np.isfinite(surer)].sum())
    if live.dtype.kind in "fc":
        same = np.isclose(live, mine, rtol=RTOL, atol=ATOL, equal_nan=True)
    else:
        same = np.asarray(live == mine)
    if not sample.in_rows:
        return sample.rows * bool(same.all()), 0.0
    return int(same.all(axis=tuple(range(1, same.ndim))).sum()), 0.0
