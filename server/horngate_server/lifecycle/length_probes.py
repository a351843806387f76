"""Rows of different lengths that a model may accept, of all kinds of values, and the same rows padded."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from horngate_server.core.model import Array
from horngate_server.core.signature import FREE, Signature, TensorSpec
from horngate_server.engine.lengths import filling
from horngate_server.lifecycle.comparison import as_bfloat16
from horngate_server.lifecycle.probe_inputs import Guess, Rows
from horngate_server.lifecycle.row_independence import Doubt

FEW = (1, 2, 3, 5, 7, 8)
"""Lengths of the first rows."""
MOST_RECORDED = 4


class LengthProbes:
    """Rows for one signature, and one number to pad them with.

    Args:
        signature: theirs.
        value: what inputs are padded with that can hold it; all others, and masks, with 0.

    Attributes:
        axes: per input, the axis that may have any length; None where there is none.
        values: per input, what it is padded with.
        masks: inputs of numbers, by place, that say which of the others count, by their names.

    Raises:
        Doubt: an input has several axes of any length.
    """

    def __init__(self, signature: Signature, value: int) -> None:
        self._inputs = signature.inputs
        self._signature = signature
        self.axes = tuple(map(_free_axis, signature.inputs))
        self.masks = frozenset(
            place for place, spec in enumerate(signature.inputs) if self.axes[place] is not None and _is_mask(spec)
        )
        self.values = tuple(
            value if spec.datatype.numpy.kind in "if" and place not in self.masks else 0
            for place, spec in enumerate(signature.inputs)
        )

    def few(self, style: str, lengths: Sequence[int] = FEW) -> list[Rows]:
        """Return rows of these lengths, all different where the style allows it; no input is all padding."""
        return [
            self._real(Guess(self._signature, length, style).draw(1, seed), seed) for seed, length in enumerate(lengths)
        ]

    def elements(self, length: int) -> int:
        """Return how many elements a row of this length has."""
        return Guess(self._signature, length, "likely").elements(1)

    def kinds(
        self, styles: Sequence[str], recorded: Sequence[Rows], highest: Mapping[bool, int]
    ) -> Iterator[list[Rows]]:
        """Yield rows of a few lengths, of all kinds of values, the ones that callers are likely to send first.

        Args:
            styles: that the model accepts.
            recorded: rows that it should take.
            highest: whole numbers up to which it accepts: in the inputs of any length (True), and in all others.
        """
        first = self.few(styles[0])
        for row in recorded[:MOST_RECORDED]:
            yield [self._real(self.resized(row, length), length) for length in FEW if length <= self.length(row)]
        for style in styles:
            yield self.few(style)
        yield [self._with_holes(row, seed) for seed, row in enumerate(first)]
        yield [self._signed(row, seed) for seed, row in enumerate(first)]
        for free, most in highest.items():
            yield [self._up_to(most, row, seed, free=free) for seed, row in enumerate(first)]

    def has_whole(self, *, free: bool) -> bool:
        """Whether there are whole numbers: in the inputs of any length, or in all others."""
        return any(self._is_whole(place, free=free) for place in range(len(self._inputs)))

    def constant(self, style: str, number: int, *, free: bool) -> list[Rows]:
        """Return a row with this number everywhere in the inputs of any length, or in all others."""
        [row] = self.few(style, [FEW[-1]])
        return [self._with_numbers(row, number, lambda most, shape: np.full(shape, most), free=free)]

    def without(self, style: str, empty: Sequence[int]) -> list[Rows]:
        """Return rows in which these inputs have nothing but padding."""
        rows = self.few(style)
        for row in rows:
            for place in empty:
                row[place][...] = self._filling(place)
        return rows

    def length(self, row: Rows) -> int:
        """Return how long a row is; 0 where its inputs have different lengths."""
        found = {array.shape[axis] for array, axis in zip(row, self.axes, strict=True) if axis is not None}
        return found.pop() if len(found) == 1 else 0

    def resized(self, row: Rows, length: int) -> Rows:
        """Return a row cut or padded to a length."""
        resized = []
        for place, (array, axis) in enumerate(zip(row, self.axes, strict=True)):
            if axis is None:
                resized.append(array)
                continue
            mine: Array = np.full(
                (*array.shape[:axis], length, *array.shape[axis + 1 :]), self._filling(place), array.dtype
            )
            before = (slice(None),) * axis
            mine[(*before, slice(array.shape[axis]))] = array[(*before, slice(length))]
            resized.append(mine)
        return resized

    # --- private --------------------------------------------------------------------------------------

    def _real(self, row: Rows, seed: int) -> Rows:
        """Let masks hold 0 and 1, and no input be all padding."""
        rng = np.random.default_rng(seed)
        real = []
        for place, array in enumerate(row):
            mine = array.copy()
            if place in self.masks:
                mine[...] = rng.integers(0, 2, mine.shape)
            if self.axes[place] is not None and (mine == self._filling(place)).all():
                mine.reshape(-1)[0] = _something(self._inputs[place])
            real.append(mine)
        return real

    def _with_holes(self, row: Rows, seed: int) -> Rows:
        """Return a row that has padding in between, as callers send it who have padded themselves."""
        rng = np.random.default_rng(seed)
        holes = [array.copy() for array in row]
        for place, array in enumerate(holes):
            if self.axes[place] is not None:
                array[rng.random(array.shape) < 0.5] = self._filling(place)
        return self._real(holes, seed)

    def _signed(self, row: Rows, seed: int) -> Rows:
        """Return a row with negative and large numbers."""
        rng = np.random.default_rng(seed)
        signed: list[Array] = []
        for spec, array in zip(self._inputs, row, strict=True):
            numbers: Any = array
            signed.append(
                (numbers * rng.integers(-9, 10, array.shape)).astype(array.dtype)
                if spec.datatype.numpy.kind in "if"
                else array
            )
        return self._real(signed, seed)

    def _up_to(self, high: int, row: Rows, seed: int, *, free: bool) -> Rows:
        """Return a row with whole numbers up to this one, in the inputs of any length or in all others."""
        rng = np.random.default_rng(seed)
        return self._with_numbers(row, high, lambda most, shape: rng.integers(1, most + 1, shape), free=free)

    def _with_numbers(
        self, row: Rows, most: int, numbers: Callable[[int, tuple[int, ...]], Array], *, free: bool
    ) -> Rows:
        """Return a row with other whole numbers, none larger than an input holds; masks stay as they are."""
        return [
            numbers(min(most, (1 << 8 * array.dtype.itemsize - 1) - 1), array.shape).astype(array.dtype)
            if self._is_whole(place, free=free)
            else array
            for place, array in enumerate(row)
        ]

    def _is_whole(self, place: int, *, free: bool) -> bool:
        """Whether an input has whole numbers, is no mask, and has any length or not."""
        return (
            self._inputs[place].datatype.name.startswith(("INT", "UINT"))
            and (self.axes[place] is not None) == free
            and place not in self.masks
        )

    def _filling(self, place: int) -> Any:
        return filling(self._inputs[place].datatype.numpy, self.values[place])


# --- private ------------------------------------------------------------------------------------------


def _free_axis(spec: TensorSpec) -> int | None:
    """Return the axis of an input that may have any length, beside the batch's; None where there is none.

    Raises:
        Doubt: there are several.
    """
    if spec.shape is None:
        raise Doubt(f"input {spec.name!r} may have any number of axes")
    free = [axis for axis, size in enumerate(spec.shape) if size == FREE and axis]
    if len(free) > 1:
        raise Doubt(f"input {spec.name!r} has {len(free)} axes of any length")
    return free[0] if free else None


def _is_mask(spec: TensorSpec) -> bool:
    return "mask" in spec.name.lower() and spec.datatype.numpy.kind in "iuf" and spec.datatype.name != "BF16"


def _something(spec: TensorSpec) -> Any:
    """Return what is no padding."""
    if spec.datatype.name == "BF16":
        return as_bfloat16(np.ones(1))[0]
    return b"a" if spec.datatype.numpy.hasobject else spec.datatype.numpy.type(1)
