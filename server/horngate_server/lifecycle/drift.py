"""Whether what comes in and goes out still looks like what the model was trained and evaluated on.

The manifest's ``baseline`` has the classes that the model chose on its test data, how sure it was, and the inputs' mean
and range. A batch is looked at now and then: all its answers, and a few rows of its inputs.

The population stability index compares shares of classes: sum((p - q) * ln(p / q)). Below 0.1 nothing happened, above
0.25 it did (Siddiqi, Credit Risk Scorecards, 2006).
"""

import logging
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from math import log as ln
from typing import Any

import numpy as np

from horngate_server.core.clock import Clock
from horngate_server.core.inference import ModelInfo
from horngate_server.engine import class_scores
from horngate_server.engine.batch_runner import BatchReport

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.02
"""A look costs some 50 us: a quarter of a percent of one core at this pace, whatever the load."""
LOOK_ROWS = 16
LOOK_ELEMENTS = 1 << 16
"""Of these rows, so many elements at most, evenly spread: a look at large images costs no more than one at small."""
KEPT_LOOKS = 50
"""What the inputs are like is what the last so many looks showed: a second under load."""
LOOKS = 25
"""Before so many looks, nothing is said about the inputs."""
WINDOW_ROWS = 10_000
"""The shares of classes are those of so many rows at least, and of twice as many at most."""
LEAST_ROWS = 500
"""With fewer rows, chance alone moves the index."""
NEAR = 0.1
"""How near an inverted input's mean must come to the mirrored one, as a share of the range."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """How it was on the test data.

    Attributes:
        class_shares: per class, the share of rows that the model gave it.
        confidence: the mean of the highest probability.
        mean: of the input's elements.
        low: their least value.
        high: their greatest value.
    """

    class_shares: tuple[float, ...]
    confidence: float
    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, manifest: Mapping[str, Any] | None) -> "Baseline | None":
        """Read it from a manifest; None where there is none, or none that can be read."""
        try:
            found = (manifest or {})["baseline"]
            histogram = found["confidence_histogram"]
            edges, counts = np.asarray(histogram["edges"], float), np.asarray(histogram["counts"], float)
            if not counts.sum() > 0:
                return None
            confidence = float(((edges[:-1] + edges[1:]) / 2 * counts).sum() / counts.sum())
            shares = tuple(float(share) for share in found["class_shares"])
            mean, low, high = (float(found[name]) for name in ("input_mean", "input_min", "input_max"))
        except (KeyError, TypeError, ValueError, IndexError, ZeroDivisionError, OverflowError):
            return None
        if not shares or not all(map(isfinite, (*shares, confidence, mean, low, high))):
            return None  # nothing can be compared with what is no number
        return cls(shares, confidence, mean, low, high)


@dataclass(frozen=True, slots=True)
class DriftReport:
    """How it is now, for a scrape.

    Attributes:
        psi: of the classes chosen; None while too few rows were seen.
        confidence: the mean of the highest probability, of the same rows; None as well.
        mean: of the inputs' elements lately; None before there were enough.
        low: their least value lately.
        high: their greatest value lately.
        suspicion: what the inputs look like if they look wrong; empty otherwise.
    """

    psi: float | None
    confidence: float | None
    mean: float | None
    low: float | None
    high: float | None
    suspicion: str


class Drift:
    """Watches one version. `see` is called by its executor's thread, `report` by any.

    Args:
        info: which version.
        baseline: what to compare with.
        clock: monotonic seconds.
    """

    def __init__(self, info: ModelInfo, baseline: Baseline, clock: Clock) -> None:
        self._info = info
        self.baseline = baseline
        self._clock = clock
        self._lock = threading.Lock()
        self._next = 0.0
        self._looks: deque[tuple[float, float, float]] = deque(maxlen=KEPT_LOOKS)
        self._counts = [_Counts(len(baseline.class_shares)), _Counts(len(baseline.class_shares))]
        self._suspicion = ""

    def see(self, report: BatchReport) -> None:
        """Look at one batch, if it is time again."""
        now = self._clock()
        if now < self._next or not report.whole:
            return
        self._next = now + LOOK_EVERY_S
        with self._lock:
            found = class_scores.of(report)
            if found is not None:
                self._count(found)
            if len(self._info.signature.inputs) == 1:
                self._look(report)

    def report(self) -> DriftReport:
        """Say how it is."""
        with self._lock:
            rows = sum(each.rows for each in self._counts)
            mean, low, high = self._inputs() if len(self._looks) >= LOOKS else (None, None, None)
            return DriftReport(
                psi(self._shares(), self.baseline.class_shares) if rows >= LEAST_ROWS else None,
                sum(each.confidence for each in self._counts) / rows if rows >= LEAST_ROWS else None,
                mean,
                low,
                high,
                self._suspicion,
            )

    # --- private --------------------------------------------------------------------------------------

    def _shares(self) -> Sequence[float]:
        counts = sum((each.classes for each in self._counts), np.zeros(len(self.baseline.class_shares)))
        return [float(share) for share in counts / counts.sum()]

    def _count(self, found: class_scores.Scores) -> None:
        """Count classes; rows without a finite confidence were left out."""
        current = self._counts[-1]
        if found.width != len(current.classes):
            return
        current.classes += np.bincount(found.classes, minlength=found.width)
        current.confidence += float(found.confidence.sum())
        current.rows += len(found.classes)
        if current.rows >= WINDOW_ROWS:
            self._counts = [current, _Counts(len(current.classes))]

    def _look(self, report: BatchReport) -> None:
        """Look at some of the first request's rows; strings and complex numbers have no mean and range."""
        work = report.whole[0]
        data = work.data[0]
        datatype = self._info.signature.inputs[0].datatype.numpy
        if isinstance(data, list) or datatype.hasobject or datatype.kind == "c":
            return
        elements = len(data) // datatype.itemsize * min(LOOK_ROWS, work.plan.rows) // work.plan.rows
        values = np.frombuffer(data, datatype, elements)[:: max(1, elements // LOOK_ELEMENTS)]
        if not len(values) or not isfinite(mean := float(values.mean(dtype=np.float64))):
            return
        self._looks.append((mean, float(values.min()), float(values.max())))
        if len(self._looks) >= LOOKS:
            self._judge()

    def _inputs(self) -> tuple[float, float, float]:
        """Return mean, least and greatest value of the last looks."""
        means, lows, highs = zip(*self._looks, strict=True)
        return sum(means) / len(means), min(lows), max(highs)

    def _judge(self) -> None:
        """Say once that the inputs look wrong, and once that they look right again."""
        mean, _, high = self._inputs()
        found = suspicion(self.baseline, mean, high)
        if found == self._suspicion:
            return
        self._suspicion = found
        baseline = self.baseline
        if found:
            log.warning(
                "model %s version %s: its inputs look %s: mean %.3g, greatest %.3g; in training, mean %.3g, "
                "from %g to %g",
                self._info.name, self._info.version, found, mean, high,
                baseline.mean, baseline.low, baseline.high,
            )  # fmt: skip
        else:
            log.info("model %s version %s: its inputs look as in training again", self._info.name, self._info.version)


SUSPICIONS = ("scaled down", "scaled up", "inverted")


def suspicion(baseline: Baseline, mean: float, high: float) -> str:
    """Name what inputs look like that were prepared wrongly; empty where nothing does.

    Args:
        baseline: how they were in training.
        mean: of the inputs now.
        high: their greatest value now.
    """
    span = baseline.high - baseline.low
    if span <= 0:
        return ""
    if span > 2 and high <= baseline.low + max(1.0, span / 100):  # 0..1 sent where 0..255 was learnt
        return "scaled down"
    if high > baseline.low + 20 * span:  # 0..255 sent where 0..1 was learnt
        return "scaled up"
    mirrored = baseline.low + baseline.high - baseline.mean
    if abs(mean - mirrored) < NEAR * span < abs(mean - baseline.mean):
        return "inverted"
    return ""


def psi(shares: Sequence[float], baseline: Sequence[float]) -> float:
    """Return the population stability index of two distributions; empty classes count as a ten-thousandth."""
    least = 1e-4
    pairs = [(max(p, least), max(q, least)) for p, q in zip(shares, baseline, strict=True)]
    return sum((p - q) * ln(p / q) for p, q in pairs)


# --- private ------------------------------------------------------------------------------------------


class _Counts:
    """Classes chosen in one half of the window."""

    def __init__(self, classes: int) -> None:
        self.classes = np.zeros(classes, np.int64)
        self.confidence = 0.0
        self.rows = 0
