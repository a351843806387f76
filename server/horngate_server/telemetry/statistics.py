"""What every version has done since it was loaded: cumulative counts and times, as Triton's clients read them."""

import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from horngate_server.core.inference import ModelInfo
from horngate_server.engine.batch_runner import BatchReport


@dataclass(slots=True)
class Duration:
    """How often something happened, and the seconds it took altogether."""

    count: int = 0
    seconds: float = 0.0

    def add(self, count: int, seconds: float) -> None:
        """Add so many that took so long together."""
        self.count += count
        self.seconds += seconds


@dataclass(slots=True)
class Stages:
    """So many, and the seconds that their batches' stages took altogether: joining rows, the model, writing answers."""

    count: int = 0
    join_s: float = 0.0
    run_s: float = 0.0
    write_s: float = 0.0

    def add(self, count: int, report: BatchReport, write_s: float) -> None:
        """Add so many of one batch."""
        self.count += count
        self.join_s += count * (report.seconds - report.run_s)
        self.run_s += count * report.run_s
        self.write_s += count * write_s


@dataclass(slots=True)
class Totals:
    """One version's.

    Attributes:
        last: when its last batch ended, on the monotonic clock; 0 before the first.
        rows: computed for callers.
        batches: computed.
        success: requests answered, from arrival to answer.
        fail: requests that were taken in and not answered.
        queue: of the answered ones, from arrival to their first batch.
        requests: the answered ones, each with all of its last batch's stages.
        sizes: per number of rows, the batches.
    """

    last: float = 0.0
    rows: int = 0
    batches: int = 0
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    requests: Stages = field(default_factory=Stages)
    sizes: defaultdict[int, Stages] = field(default_factory=lambda: defaultdict(Stages))

    def copy(self) -> "Totals":
        """Return them as they are now."""
        sizes = defaultdict(Stages, {rows: replace(each) for rows, each in sorted(self.sizes.items())})
        success, fail, queue = (replace(each) for each in (self.success, self.fail, self.queue))
        return Totals(self.last, self.rows, self.batches, success, fail, queue, replace(self.requests), sizes)


class Statistics:
    """All versions'. Callable from any thread.

    Attributes:
        answering: held while answers leave and are counted, so that whoever has one finds it counted.
    """

    def __init__(self) -> None:
        self.answering = threading.RLock()
        self._lock = threading.Lock()
        self._totals: defaultdict[tuple[str, str], Totals] = defaultdict(Totals)

    def batch(
        self,
        info: ModelInfo,
        report: BatchReport,
        *,
        now: float,
        write_s: float,
        requests: int,
        success_s: float,
        queue_s: float,
    ) -> None:
        """Add a batch.

        Args:
            info: the version.
            report: the batch.
            now: when it was answered, on the monotonic clock.
            write_s: how long it took to write the answers.
            requests: how many it completed.
            success_s: the seconds since these arrived, summed up.
            queue_s: the seconds that they waited, summed up.
        """
        with self._lock:
            mine = self._totals[info.name, info.version]
            mine.last = now
            mine.rows += report.rows
            mine.batches += 1
            mine.success.add(requests, success_s)
            mine.queue.add(requests, queue_s)
            mine.requests.add(requests, report, write_s)
            mine.sizes[report.rows].add(1, report, write_s)

    def failed(self, info: ModelInfo, seconds: Sequence[float]) -> None:
        """Add requests that got no answer: of each, the seconds since it arrived."""
        with self._lock:
            self._totals[info.name, info.version].fail.add(len(seconds), sum(seconds))

    def of(self, name: str, version: str) -> Totals:
        """Return one version's, as they are now."""
        with self.answering, self._lock:
            mine = self._totals.get((name, version))
            return mine.copy() if mine else Totals()

    def forget(self, name: str, version: str) -> None:
        """Drop a version's: it has left."""
        with self._lock:
            self._totals.pop((name, version), None)
