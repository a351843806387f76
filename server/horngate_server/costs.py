"""What a batch of each size costs, as measured: the load report, and what admission estimates with."""

from bisect import bisect_left
from collections.abc import Sequence
from math import inf

WEIGHT = 0.1
"""How much the newest measurement counts: one hiccup must not make the server refuse what it can do."""


class Costs:
    """Seconds per rung of the batch ladder.

    Args:
        rungs: the batch sizes, ascending.
    """

    def __init__(self, rungs: Sequence[int]) -> None:
        self.rungs = tuple(rungs)
        self._seconds: dict[int, float] = {}
        self._last: dict[int, float] = {}
        self._row_seconds = 0.0

    def rung(self, rows: int) -> int:
        """Return the smallest batch size that holds so many rows."""
        return self.rungs[bisect_left(self.rungs, rows)]

    def measured(self, rung: int, seconds: float) -> None:
        """Take in one run's time."""
        self._last[rung] = seconds
        before = self._seconds.get(rung, seconds)
        self._seconds[rung] = before + WEIGHT * (seconds - before)
        self._row_seconds = min(seconds / rung for rung, seconds in self._seconds.items())

    def expected(self, rows: int) -> float:
        """Return the seconds that a batch of so many rows is likely to take; infinite while none of its size ran."""
        rung = self.rung(min(rows, self.rungs[-1]))
        return max(self._seconds.get(rung, inf), self._last.get(rung, inf))

    def report(self) -> dict[int, float]:
        """Return the seconds of each rung that was measured."""
        return {rung: self._seconds[rung] for rung in self.rungs if rung in self._seconds}

    def wait(self, rows: int) -> float:
        """Return the least seconds in which so many rows can be computed; 0 while nothing was measured."""
        return rows * self._row_seconds

    def least(self, rows: int) -> float:
        """Return the seconds that the batch of such a request takes at least."""
        return self._seconds.get(self.rung(min(rows, self.rungs[-1])), 0.0)
