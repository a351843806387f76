"""May requests of different lengths share a run? The same rows are computed as they are, and padded among longer ones.

Nothing in a signature says what fills up a text that is shorter than its neighbours. So padding with 0 (false, empty),
and with -1, is tried at the end of the axis that may have any length. Where any answer is another than without, or
where that cannot be seen, requests share runs with those of their own length only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from horngate_server.core.errors import RequestError
from horngate_server.core.model import Array
from horngate_server.core.padding import Padding
from horngate_server.core.signature import APART, FREE, PADDED, TensorSpec
from horngate_server.lifecycle.comparison import as_numbers, first_difference
from horngate_server.lifecycle.length_probes import FEW, LengthProbes
from horngate_server.lifecycle.probe_inputs import STYLES, Rows
from horngate_server.lifecycle.row_independence import STYLES as KINDS
from horngate_server.lifecycle.row_independence import Doubt, tolerance
from horngate_server.lifecycle.trial_runs import TrialRuns, joined

VALUES = (0, -1)
"""What is tried as padding, in this order."""
PADDED_TO = (8, 32)
"""What the first rows are padded to."""
LENGTHS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
"""Then each of these is tried with shorter rows beside it, as long as that is bearable."""
BEARABLE_S = 0.5
"""A length that took so long is the last one."""
ENOUGH_S = 5.0
"""A model that has not shown in this time that padding changes nothing is left alone: a load is a matter of seconds."""
MOST_ELEMENTS = 1 << 18
"""Larger rows than these are not made up."""
MOST_WORDS = 1 << 18
"""Larger token ids than this are not looked for."""
ALIKE_ROWS = 4
"""Rows of one length whose answers must differ: where they do not, they would not show what padding does either."""
GAINS = ((4.0, 1), (2.0, 2), (0.0, 4))
"""A run of eight rows that brings so many times the rows a second: so many lengths, from one power of two to the next,
are kept apart. What padding costs must be less than what sharing brings."""
GAIN_S = 0.1
GAIN_LENGTH, GAIN_ROWS = 64, 8


@dataclass(frozen=True, slots=True)
class Found:
    """What a proof has found.

    Attributes:
        padding: how requests may be padded; None where they may not.
        why: how that is known; empty where no axis has any length.
    """

    padding: Padding | None = None
    why: str = ""


def prove_padding(
    runs: TrialRuns, recorded: Sequence[Rows], shared: frozenset[int], *, asked: str, gpu: bool = False
) -> Found:
    """Find out whether requests for a signature whose rows are independent may be padded.

    Args:
        runs: of the signature.
        recorded: single rows that it should take.
        shared: the outputs without rows, by place.
        asked: "auto", or what the operator or the model's maker wants: "padded" or "apart".
        gpu: computed on one.
    """
    if not any(spec.shape is None or FREE in spec.shape[1:] for spec in runs.signature.inputs):
        return Found()
    if asked == APART:
        return Found(why="asked for")
    why = ""
    for value in VALUES:
        try:
            probes = LengthProbes(runs.signature, value)
            if value and not any(probes.values):
                break  # no input can hold it
            padding = _Trial(runs, probes, shared, gpu=gpu, trusted=asked == PADDED).padding(recorded)
        except Doubt as doubt:
            why = why or str(doubt)
        else:
            return Found(padding, "asked for" if asked == PADDED else f"padding with {value} changed nothing")
    return Found(why=why)


# --- private ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    """A row, how long it is, and what it is answered as it is."""

    inputs: Rows
    length: int
    answers: Sequence[Array]


class _Trial:
    """One padding of one signature, tried; where it is trusted, only the outputs' shapes are looked at."""

    def __init__(
        self, runs: TrialRuns, probes: LengthProbes, shared: frozenset[int], *, gpu: bool, trusted: bool
    ) -> None:
        self._runs = runs
        self._probes = probes
        self._outputs = runs.signature.outputs
        self._shared = shared
        self._gpu = gpu
        self._trusted = trusted
        self._ends = runs.clock() + ENOUGH_S

    def padding(self, recorded: Sequence[Rows]) -> Padding:
        """Return how requests may be padded.

        Raises:
            Doubt: that changes what comes out, or it cannot be seen.
        """
        if self._runs.signature.writes:
            raise Doubt("it changes what it remembers")
        probes = self._probes
        styles = [style for style in STYLES if len(self._alone(probes.few(style, (3, 5, 7)))) > 1]
        if not styles:
            raise Doubt(f"no inputs of several lengths were found that it accepts; it says: {self._runs.refused}")
        style, styles = styles[0], styles[:KINDS]
        cut = self._cut(self._alone(probes.few(style)))
        guarded = frozenset[int]()
        if not self._trusted:
            self._vary(style)
            highest = {free: self._highest(style, free=free) for free in (True, False) if probes.has_whole(free=free)}
            for kind in probes.kinds(styles, recorded, highest):
                if self._runs.clock() > self._ends:
                    raise Doubt(f"it could not be seen within {ENOUGH_S:g} s")
                self._same(self._alone(kind), cut, PADDED_TO)
            guarded = self._guarded(style, cut)
        longest = self._longest(style, cut)
        return Padding(probes.axes, probes.values, cut, guarded, probes.masks, longest, self._steps(style, longest))

    def _alone(self, rows: Sequence[Rows]) -> list[_Row]:
        """Compute rows as they are; those that are refused are left out."""
        answered = ((row, self._runs.tried(row)) for row in rows)
        return [_Row(row, self._probes.length(row), answers) for row, answers in answered if answers is not None]

    def _cut(self, rows: Sequence[_Row]) -> tuple[tuple[int, ...], ...]:
        """Return, per output, the axes that are as long as the inputs.

        Raises:
            Doubt: an output's shape depends on the length in another way.
        """
        found = []
        for place, spec in enumerate(self._outputs):
            shapes = [row.answers[place].shape for row in rows]
            if len(set(map(len, shapes))) > 1:
                raise Doubt(f"output {spec.name!r} has shape {list(shapes[0])} or {list(shapes[-1])} for one row")
            sizes = list(enumerate(zip(*shapes, strict=True)))
            axes = tuple(axis for axis, each in sizes if each == tuple(row.length for row in rows))
            if any(axis not in axes and len(set(each)) > 1 for axis, each in sizes) or (axes and place in self._shared):
                raise Doubt(f"output {spec.name!r} is neither as long as the inputs nor always of one length")
            found.append(axes)
        return tuple(found)

    def _vary(self, style: str) -> None:
        """See that the answers are fine enough to show what padding does.

        Raises:
            Doubt: they are decisions, or hardly differ from row to row.
        """
        rows = max((self._alone(self._probes.few(style, (length,) * ALIKE_ROWS)) for length in (5, 8)), key=len)
        fine = [
            (place, spec)
            for place, spec in enumerate(self._outputs)
            if place not in self._shared and (spec.datatype.numpy.kind in "fc" or spec.datatype.name == "BF16")
        ]
        if not fine:
            raise Doubt("its answers are no floating-point numbers, which would show what padding changes")
        for place, spec in fine:
            one, *others = [row.answers[place] for row in rows]
            numbers = as_numbers(np.stack([one, *others]), spec.datatype)
            if (numbers == np.round(numbers)).all():
                raise Doubt(f"output {spec.name!r} has whole numbers, which hardly show what padding changes")
            near = tolerance(spec, [one, *others], gpu=self._gpu)
            same = [first_difference(each, one, spec.datatype, near) is None for each in others]
            if sum(same) * 2 >= len(same):
                raise Doubt(f"output {spec.name!r} hardly differs from row to row, so that nothing can be seen")

    def _same(self, rows: Sequence[_Row], cut: Sequence[tuple[int, ...]], to: Sequence[int]) -> None:
        """Compute rows together, padded, and compare.

        Raises:
            Doubt: an answer is another then.
        """
        for length in to if rows else ():
            padded = [self._probes.resized(row.inputs, length) for row in rows]
            try:
                answers = self._runs.run(joined(padded, range(len(rows))))
            except RequestError as error:
                raise Doubt(f"rows that are padded to {length} fail, which do not alone: {error}") from error
            for place, spec in enumerate(self._outputs):
                self._compare(spec, place, rows, answers[place], cut[place])

    def _compare(self, spec: TensorSpec, place: int, rows: Sequence[_Row], got: Array, cut: Sequence[int]) -> None:
        near = tolerance(spec, [row.answers[place] for row in rows], gpu=self._gpu)
        for number, row in enumerate(rows):
            mine, wanted = got if place in self._shared else got[number : number + 1], row.answers[place]
            mine = mine[tuple(slice(row.length) if axis in cut else slice(None) for axis in range(mine.ndim))]
            if mine.shape != wanted.shape or first_difference(mine, wanted, spec.datatype, near) is not None:
                raise Doubt(f"output {spec.name!r} of a row is another when it is padded")

    def _guarded(self, style: str, cut: Sequence[tuple[int, ...]]) -> frozenset[int]:
        """Return the inputs that must not be all padding in a row that is padded."""
        free = [place for place, axis in enumerate(self._probes.axes) if axis is not None]
        unsafe = frozenset(place for place in free if not self._is_safe(style, [place], cut))
        if unsafe or len(free) == 1 or self._is_safe(style, free, cut):
            return unsafe
        return frozenset(free)

    def _is_safe(self, style: str, empty: Sequence[int], cut: Sequence[tuple[int, ...]]) -> bool:
        """Whether a row may be padded in which these inputs have nothing but padding."""
        rows = self._alone(self._probes.without(style, empty))
        try:
            self._same(rows, cut, PADDED_TO)
        except Doubt:
            return False
        return len(rows) > 1

    def _longest(self, style: str, cut: Sequence[tuple[int, ...]]) -> int:
        """See the same at greater lengths; return the greatest that is bearable.

        Raises:
            Doubt: an answer is another there.
        """
        longest = FEW[-1]
        for length in LENGTHS:
            if self._probes.elements(length) > MOST_ELEMENTS:
                break
            began = self._runs.clock()
            taken = length if self._takes(style, length) else self._taken(style, longest, length)
            if taken > longest and not self._trusted:
                lengths = (longest // 2, longest + 1, longest + longest // 2, taken - 1, taken)
                self._same(self._alone(self._probes.few(style, [min(each, taken) for each in lengths])), cut, [taken])
            longest = taken
            if taken < length or self._runs.clock() - began > BEARABLE_S:
                break
        return longest

    def _taken(self, style: str, low: int, high: int) -> int:
        """Return the greatest length that is accepted, between one that is and one that is not."""
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._takes(style, middle) else (low, middle)
        return low

    def _highest(self, style: str, *, free: bool) -> int:
        """Return the greatest whole number that is accepted: what is true of the first words need not be of all."""
        low, high = 9, MOST_WORDS
        while high - low > 1:
            number = min(4 * low, (low + high) // 2)
            if self._alone(self._probes.constant(style, number, free=free)):
                low = number
            else:
                high = number
        return low

    def _takes(self, style: str, length: int) -> bool:
        return bool(self._alone(self._probes.few(style, [length])))

    def _steps(self, style: str, longest: int) -> int:
        """Return how fine the lengths must be for padding to pay."""
        rows = self._probes.few(style, [min(longest, GAIN_LENGTH)])
        one, _ = self._runs.timed(rows[0], GAIN_S)
        many, _ = self._runs.timed(joined(rows, [0] * GAIN_ROWS), GAIN_S)
        gain = GAIN_ROWS * one / many if many else float("inf")
        return next(steps for least, steps in GAINS if gain >= least)
