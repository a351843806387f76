"""A version that computes along: a share of the live batches, when nobody waits, and no one gets its answers.

It shows what a new version would have said. Batches are taken after their callers were answered; while the version
that answers has anything to do, they wait, and those that find no room are let go.
"""

import logging
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from horngate_server.batch_runner import BatchReport
from horngate_server.errors import ModelFailed
from horngate_server.executor import Clock, Executor
from horngate_server.model import Array, Model
from horngate_server.priority import stand_back
from horngate_server.request import Buffer, numbers

log = logging.getLogger(__name__)

ROWS = 64
"""Rows of a batch that are computed at most: what a live request may have to wait for on a busy machine."""
WAITING = 4
"""Batches that wait for a quiet moment."""
QUIET_S = 0.001
"""How long to wait before looking again whether the executor is idle."""


@dataclass(frozen=True, slots=True)
class ShadowReport:
    """How a shadow compares with the version that answers, over all rows that it computed.

    Attributes:
        rows: that both computed.
        agreed: of these, how many got the same class (or, without classes, the same outputs).
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
    """Rows of one batch: per input their bytes and its axes, their answers, and what these took, in seconds."""

    rows: int
    inputs: Sequence[Sequence[Buffer]]
    shapes: Sequence[tuple[int, ...]]
    answers: Sequence[Array]
    seconds: float


class Shadow:
    """Runs one version's model on another's traffic, on a thread of its own.

    Args:
        name: for the log: model and version.
        model: the shadow's; nobody else may use it until `stop` has returned.
        live: whose batches are sampled.
        share: of the batches, 0 to 1.
        clock: monotonic seconds.
    """

    def __init__(self, name: str, model: Model, live: Executor, share: float, clock: Clock) -> None:
        self.live = live
        self.share = share
        self._name = name
        self._model = model
        self._clock = clock
        self._credit = 0.0
        self._report = ShadowReport()
        self._waiting: deque[_Sample] = deque()
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"shadow-{name}", daemon=True)

    def start(self) -> None:
        """Begin to compute."""
        self._thread.start()

    def stop(self) -> None:
        """End; the model is free afterwards."""
        self._stopping.set()
        with self._changed:
            self._changed.notify()
        self._thread.join()

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
            except ModelFailed as error:
                log.warning("shadow %s failed on a batch of %d rows: %s", self._name, sample.rows, error)
                self._skip()
            except Exception:
                log.exception("shadow %s", self._name)
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
        feed = self._model.feed(signature, [(sample.rows, *shape) for shape in sample.shapes])
        for memory, views in zip(feed.arrays, sample.inputs, strict=True):
            flat = memory.reshape(-1).view(np.uint8)
            flat[:] = np.frombuffer(b"".join(views), np.uint8)[: flat.size]
        began = self._clock()
        answers = self._model.run(feed)
        seconds = self._clock() - began
        names = [spec.name for spec in signature.outputs]
        scores = names.index("probabilities") if "probabilities" in names else 0
        live, mine = sample.answers[scores], answers[scores]
        if live.shape != mine.shape:
            raise ModelFailed(f"its {names[scores]} is {list(mine.shape)}, the live version's {list(live.shape)}")
        if live.ndim == 2 and live.dtype.kind == "f":
            agreed = int((live.argmax(axis=1) == mine.argmax(axis=1)).sum())
            confidence = float(mine.max(axis=1).sum() - live.max(axis=1).sum())
        else:
            rows = (live == mine).reshape(sample.rows, -1)
            agreed, confidence = int(rows.all(axis=1).sum()), 0.0
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
    """Cut a batch's first rows; requests of it are taken as long as there is room."""
    shapes = report.whole[0].plan.shapes
    works = []
    rows = 0
    for work in report.whole:
        works.append(work)
        rows += work.plan.rows
        if rows >= ROWS:
            break
    rows = min(rows, ROWS)
    return _Sample(
        rows,
        [[numbers(work.data[place]) for work in works] for place in range(len(shapes))],
        shapes,
        [array[:rows].copy() for array in report.arrays],
        report.seconds * rows / report.padded_rows,
    )
