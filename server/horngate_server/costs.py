"""What a batch of each size costs, as measured: the load report, and what admission estimates with."""

from bisect import bisect_left
from collections.abc import Sequence
from math import inf

WEIGHT = 0.1
"""How much the newest measurement counts: one hiccup must not make the server refuse what it can do."""


class Costs:
    """Seconds per signature and rung of the batch ladder.

    Args:
        rungs: the batch sizes, ascending.
    """

    def __init__(self, rungs: Sequence[int]) -> None:
        self.rungs = tuple(rungs)
        self._seconds: dict[str, dict[int, float]] = {}
        self._last: dict[str, dict[int, float]] = {}
        self._row_seconds = 0.0

    def rung(self, rows: int) -> int:
        """Return the smallest batch size that holds so many rows."""
        return self.rungs[bisect_left(self.rungs, rows)]

    def measured(self, signature: str, rung: int, seconds: float) -> None:
        """Take in one run's time."""
        self._last.setdefault(signature, {})[rung] = seconds
        mine = self._seconds.setdefault(signature, {})
        before = mine.get(rung, seconds)
        mine[rung] = before + WEIGHT * (seconds - before)
        self._row_seconds = min(seconds / rung for each in self._seconds.values() for rung, seconds in each.items())

    def expected(self, signature: str, rows: int) -> float:
        """Return the seconds that a batch of so many rows is likely to take; infinite while none of its size ran."""
        rung = self.rung(min(rows, self.rungs[-1]))
        return max(self._seconds.get(signature, _NONE).get(rung, inf), self._last.get(signature, _NONE).get(rung, inf))

    def report(self, signature: str) -> dict[int, float]:
        """Return the seconds of each rung that was measured."""
        mine = self._seconds.get(signature, _NONE)
        return {rung: mine[rung] for rung in self.rungs if rung in mine}

    def wait(self, rows: int) -> float:
        """Return the least seconds in which so many rows of any kind can be computed; 0 while nothing was measured."""
        return rows * self._row_seconds

    def least(self, signature: str, rows: int) -> float:
        """Return the seconds that the batch of such a request takes at least."""
        return self._seconds.get(signature, _NONE).get(self.rung(min(rows, self.rungs[-1])), 0.0)


# --- private ------------------------------------------------------------------------------------------

_NONE: dict[int, float] = {}
