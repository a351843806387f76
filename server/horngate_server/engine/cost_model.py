"""What a run of each kind and size costs, as measured: the load report, and what admission estimates with."""

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from math import inf
from threading import Lock

WEIGHT = 0.1
"""How much the newest measurement counts: one hiccup must not make the server refuse what it can do."""
RECENT_S = 10.0
"""An older measurement refuses nobody: what it says may have changed, and only a run can tell."""
NEARLY_FULL = 0.8
"""A turn computes its rows at this share of the best rate at least."""
KINDS = 512
"""Kinds of requests whose costs are remembered: with free axes, callers can make any number of them."""


class CostModel:
    """Seconds per kind of request (`validation.Plan.alike`) and rung of the batch ladder.

    Args:
        rungs: the batch sizes, ascending.
    """

    def __init__(self, rungs: Sequence[int]) -> None:
        self.rungs = tuple(rungs)
        self._kinds: OrderedDict[Hashable, _Kind] = OrderedDict()
        self._row_seconds = inf
        self._measuring = Lock()  # several batches may end at once

    def rung(self, rows: int) -> int:
        """Return the smallest batch size that holds so many rows; beyond the ladder, the next power of two."""
        if rows > self.rungs[-1]:
            return 1 << (rows - 1).bit_length()
        return self.rungs[bisect_left(self.rungs, rows)]

    def measured(self, kind: Hashable, rung: int, seconds: float, now: float, rows: int = 0) -> None:
        """Take in one run's time.

        Args:
            kind: of the requests in it.
            rung: its size in rows, on the ladder.
            seconds: what it took.
            now: when, in monotonic seconds.
            rows: that were computed; as many as the rung has, where none are given.
        """
        with self._measuring:
            self._take_in(kind, rung, seconds, now, rows or rung)

    def expected(self, kind: Hashable, rows: int) -> float:
        """Return the seconds that a batch of so many rows is likely to take; infinite while none of its size ran."""
        mine = self._kinds.get(kind, _NONE)
        rung = self.rung(rows)
        return max(mine.mean.get(rung, inf), mine.last.get(rung, inf))

    def turn(self, kind: Hashable, most: int) -> int:
        """Return how many rows, of so many at most, are computed at nearly the best rate: the fewest, for a short turn.

        As many as there may be where nothing was measured.
        """
        row = self._kinds.get(kind, _NONE).row
        ran = [rung for rung in self.rungs if rung <= most and rung in row]
        enough = min((row[rung] for rung in ran), default=0.0) / NEARLY_FULL
        return next((rung for rung in ran if row[rung] <= enough), most)

    def report(self, kind: Hashable) -> dict[int, float]:
        """Return the seconds of each rung that was measured."""
        mean = self._kinds.get(kind, _NONE).mean
        return {rung: mean[rung] for rung in sorted(mean)}

    def wait(self, rows: int) -> float:
        """Return the least seconds in which so many rows of any kind can be computed; 0 while nothing was measured."""
        return rows * self._row_seconds if self._kinds else 0.0

    def least(self, kind: Hashable, rows: int, now: float) -> float | None:
        """Return the seconds that the batch of such a request takes at least; None where nothing recent tells.

        Of a kind that ran lately, but not in this size, 0.
        """
        mine = self._kinds.get(kind, _NONE)
        rung = self.rung(rows)
        if now - mine.at > RECENT_S:
            return None
        return min(mine.mean.get(rung, 0.0), mine.last.get(rung, 0.0))

    # --- private --------------------------------------------------------------------------------------

    def _take_in(self, kind: Hashable, rung: int, seconds: float, now: float, rows: int) -> None:
        mine = self._kinds.get(kind)
        if mine is None:
            mine = self._kinds[kind] = _Kind()
            if len(self._kinds) > KINDS:
                self._kinds.popitem(last=False)
        elif len(self._kinds) > KINDS // 2:
            self._kinds.move_to_end(kind)
        mine.last[rung] = seconds
        mine.at = now
        before = mine.mean.get(rung, seconds)
        mine.mean[rung] = before + WEIGHT * (seconds - before)
        row = mine.row.get(rung, seconds / rows)
        mine.row[rung] = row + WEIGHT * (seconds / rows - row)
        best, mine.row_seconds = mine.row_seconds, min(mean / size for size, mean in mine.mean.items())
        if mine.row_seconds < self._row_seconds:
            self._row_seconds = mine.row_seconds
        elif best == self._row_seconds:
            self._row_seconds = min(each.row_seconds for each in self._kinds.values())


# --- private ------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class _Kind:
    """Seconds by rung, on average, of the last run and of each row; when the latest was; the least seconds of a row."""

    mean: dict[int, float] = field(default_factory=dict)
    row: dict[int, float] = field(default_factory=dict)
    last: dict[int, float] = field(default_factory=dict)
    at: float = -inf
    row_seconds: float = inf


_NONE = _Kind()
