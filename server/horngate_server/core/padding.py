"""How requests of different lengths share a run: the shorter ones are padded, where that was seen to change nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

SHORT = 8
"""Up to this length all are alike."""


@dataclass(frozen=True, slots=True)
class Padding:
    """What is known of a signature whose requests may be padded. Axes count from the batch's, which is 0.

    Attributes:
        axes: per input, the axis that may have any length; None where there is none.
        values: per input, what it is filled up with: this number; an input of strings with empty ones.
        cut: per output, its axes that are as long as the inputs', and are cut back to a request's own length.
        guarded: inputs, by place, of which no row may be all padding: that changes what comes out.
        masks: inputs, by place, that must hold nothing but 0 and 1.
        longest: the greatest length at which this was seen.
        steps: so many lengths there are from one power of two to the next, for requests to share a run.
    """

    axes: tuple[int | None, ...]
    values: tuple[int, ...]
    cut: tuple[tuple[int, ...], ...]
    guarded: frozenset[int]
    masks: frozenset[int]
    longest: int
    steps: int = 1

    def length(self, rows: Sequence[tuple[int, ...]]) -> int | None:
        """Return how long a request is; None where it cannot be padded: too long, empty, or of several lengths.

        Args:
            rows: per input, its axes after the batch's.
        """
        found = {row[axis - 1] for row, axis in zip(rows, self.axes, strict=True) if axis is not None}
        if len(found) != 1:
            return None
        [length] = found
        return length if 0 < length <= self.longest else None

    def rung(self, length: int) -> int:
        """Return the length up to which requests share a run with one that has this."""
        if length <= SHORT:
            return min(SHORT, self.longest)
        step = max(1, (1 << (length - 1).bit_length()) // 2 // self.steps)
        return min(-(-length // step) * step, self.longest)

    def shared(self, rows: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
        """Return, per input, the axes after the batch's up to which requests share runs with one that has these.

        Args:
            rows: per input, its axes after the batch's.
        """
        length = self.length(rows)
        return tuple(rows) if length is None else self.rows_of(rows, self.rung(length))

    def rows_of(self, rows: Sequence[tuple[int, ...]], length: int) -> tuple[tuple[int, ...], ...]:
        """Return the axes after the batch's of requests that have another length."""
        return tuple(
            row if axis is None else (*row[: axis - 1], length, *row[axis:])
            for row, axis in zip(rows, self.axes, strict=True)
        )
