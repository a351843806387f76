"""What a model is asked when it is exported: the rows that the caller gave, or noise that it accepts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from horngate_trainer.errors import ExamplesError, ExportError, first_line
from horngate_trainer.savedmodel import Input
from horngate_trainer.written import Tensors

Request = dict[str, npt.NDArray[Any]]

ROWS = (1, 7, 32)
"""Rows of each recorded request: the smallest, an odd one, a usual one."""
FEW_ROWS = (2, 4, 8, 16)
"""Tried where none of `ROWS` is accepted."""
REQUEST_VALUES = 1 << 21
"""Requests of more are left out: 32 large images make gigabytes of activations, and many megabytes in each version."""
SIZES = (32, 64, 128, 224, 256, 16, 8, 4, 1)
"""Lengths of free axes after the first: images want powers of two, or 224; others anything."""


@dataclass(frozen=True, slots=True)
class Guess:
    """One way to fill a model's inputs with seeded noise.

    Attributes:
        size: the length of free axes after the first.
        style: the kind of values, an index into what there is for the dtype.
    """

    size: int
    style: int

    def draw(self, inputs: Sequence[Input]) -> Request:
        """Return examples as `cut` takes them; all rows differ where the values allow it."""
        generator = np.random.default_rng(0)
        rows = sum(_rows(inputs, self.size))
        requests = 1 if any(each.in_rows for each in inputs) else len(ROWS)
        result = {}
        for each in inputs:
            axes = tuple(self.size if axis is None else axis for axis in each.shape[1:])
            if each.in_rows:
                axes = (rows, *axes)
            elif each.shape:
                axes = (requests * (each.shape[0] or 0), *axes)
            result[each.name] = _fill(each, axes, self.style, generator)
        return result


def guesses(inputs: Sequence[Input]) -> Iterator[Guess]:
    """Yield ways to fill inputs, the likely ones first; all styles of a size one after the other."""
    free = any(axis is None for each in inputs for axis in each.shape[1:])
    for size, style in product(SIZES if free else SIZES[:1], range(STYLES)):
        yield Guess(size, style)


def one_row_each(inputs: Sequence[Input], rows: Request, most: int) -> Sequence[Request]:
    """Return requests of one row each; inputs without rows go along with each.

    Args:
        inputs: of the model.
        rows: as `given` returned them.
        most: so many of them at most.
    """
    count = max((len(rows[each.name]) for each in inputs if each.in_rows), default=1)
    return [
        {each.name: rows[each.name][row : row + 1] if each.in_rows else rows[each.name] for each in inputs}
        for row in range(min(count, most))
    ]


def given(inputs: Sequence[Input], examples: Any) -> Request:
    """Check what a caller gave: a dict by name, a list or tuple in the order of inputs, or an array for the only input.

    Raises:
        ExamplesError: they do not fit; the text says what was expected and what came.
    """
    arrays = {each.name: _as_array(each, value) for each, value in _by_input(inputs, examples)}
    rows = {len(arrays[each.name]) if arrays[each.name].ndim else 0 for each in inputs if each.in_rows}
    if len(rows) > 1 or 0 in rows:
        raise ExamplesError("examples need one number of rows, at least one, for all inputs")
    for each in inputs:
        array = arrays[each.name]
        sizes = zip(each.shape[1:], array.shape[1:], strict=False)
        fits = array.ndim == len(each.shape) and all(want in (None, have) for want, have in sizes)
        if not fits or array.dtype != _numpy(each):
            kind = "string" if array.dtype.hasobject else array.dtype
            cast = "" if array.dtype.kind not in "biuf" or not fits else f" (.astype({each.dtype!r}) makes it one)"
            raise ExamplesError(
                f"examples for {each.name} are {kind} {array.shape}; the input is {each.dtype} {each.shape}{cast}"
            )
        fixed = each.shape[0] if each.shape else None
        if fixed is not None and (len(array) != fixed if rows else not len(array) or len(array) % fixed):
            raise ExamplesError(f"examples for {each.name} are {array.shape}; the model takes {fixed} of them at once")
    return arrays


def cut(inputs: Sequence[Input], examples: Tensors, sizes: Sequence[int] | None = None) -> list[Request]:
    """Cut requests out of examples, starting over where they run out.

    Args:
        inputs: of the model.
        examples: from `given` or `Guess.draw`.
        sizes: rows of each; `ROWS` without those that would be too large.
    """
    in_rows = [each for each in inputs if each.in_rows]
    if in_rows:
        rows = len(examples[in_rows[0].name])
        sizes = sizes or _affordable(sum(examples[each.name].size for each in in_rows) // rows)
        spans = [np.arange(end - size, end) % rows for size, end in zip(sizes, np.cumsum(sizes), strict=True)]
        return [
            {each.name: _piece(examples[each.name], span if each.in_rows else None) for each in inputs}
            for span in spans
        ]
    counts = [len(examples[each.name]) // each.shape[0] for each in inputs if each.shape and each.shape[0]]
    return [
        {each.name: _piece(examples[each.name], _block(each, number)) for each in inputs}
        for number in range(min([*counts, len(ROWS)], default=1))
    ]


# --- private ---------------------------------------------------------------------------------------------------------


def _rows(inputs: Sequence[Input], size: int) -> tuple[int, ...]:
    free = [[size if axis is None else axis for axis in each.shape[1:]] for each in inputs if each.in_rows]
    return _affordable(sum(map(prod, free)))


def _affordable(row_values: int) -> tuple[int, ...]:
    return tuple(rows for rows in ROWS if rows * row_values <= REQUEST_VALUES) or (1, 2)


def _block(each: Input, number: int) -> npt.NDArray[np.int64] | None:
    """Where the request of that number lies in the examples of an input of a fixed first axis."""
    if not each.shape:
        return None
    size = each.shape[0] or 0
    return np.arange(number * size, (number + 1) * size)


def _piece(array: npt.NDArray[Any], span: npt.NDArray[np.int64] | None) -> npt.NDArray[Any]:
    return np.array(array if span is None else array[span], order="C")


def _numpy(each: Input) -> np.dtype[Any]:
    dtype: np.dtype[Any] = np.dtype(tf.as_dtype(each.dtype).as_numpy_dtype)
    return dtype


def _by_input(inputs: Sequence[Input], examples: Any) -> list[tuple[Input, Any]]:
    names = ", ".join(each.name for each in inputs)
    if isinstance(examples, Mapping):
        if set(examples) != {each.name for each in inputs}:
            raise ExamplesError(f"examples are for {', '.join(map(str, examples))}; the model's inputs are {names}")
        return [(each, examples[each.name]) for each in inputs]
    # A list of one is one array, or the one row of the only input.
    if (
        isinstance(examples, list | tuple)
        and len(examples) == len(inputs)
        and (len(inputs) > 1 or _rank(examples[0]) == len(inputs[0].shape))
    ):
        return list(zip(inputs, examples, strict=True))
    if len(inputs) == 1:
        return [(inputs[0], examples)]
    raise ExamplesError(
        f"examples must be a dict with an array for each input ({names}), not a {type(examples).__name__}"
    )


def _rank(value: Any) -> int:
    try:
        return np.ndim(value)
    except ValueError:  # rows of different lengths
        return -1


def _as_array(each: Input, value: Any) -> npt.NDArray[Any]:
    """Make an array of what was given; a list gets the input's dtype, an array keeps its own."""
    wanted = _numpy(each)
    try:
        if wanted.hasobject:
            return _as_bytes(np.asarray(value) if hasattr(value, "__array__") else np.asarray(value, object))
        return np.asarray(value, order="C") if hasattr(value, "__array__") else np.asarray(value, wanted)
    except (TypeError, ValueError, OverflowError) as exc:
        raise ExamplesError(f"examples for {each.name} are no {each.dtype} array: {first_line(exc)}") from exc


def _as_bytes(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    made = np.empty(array.shape, object)
    for at in np.ndindex(array.shape):
        value: Any = array[at]
        if not isinstance(value, str | bytes):
            raise TypeError(f"a text is needed, not {value!r}")
        made[at] = value.encode() if isinstance(value, str) else bytes(value)
    return made


_Draw = Callable[[np.random.Generator, tuple[int, ...]], npt.NDArray[Any]]
_WORDS = ("a", "good", "bad", "film", "not", "great", "the", "was", "time", "one")


def _texts(generator: np.random.Generator, axes: tuple[int, ...]) -> npt.NDArray[Any]:
    texts = np.empty(prod(axes), object)
    texts[:] = [" ".join(generator.choice(_WORDS, generator.integers(1, 6))).encode() for _ in range(prod(axes))]
    return texts.reshape(axes)


def _numerals(generator: np.random.Generator, axes: tuple[int, ...]) -> npt.NDArray[Any]:
    texts = np.empty(prod(axes), object)
    texts[:] = [str(number).encode() for number in generator.integers(0, 100, prod(axes))]
    return texts.reshape(axes)


def _ones(_: np.random.Generator, axes: tuple[int, ...]) -> npt.NDArray[Any]:
    return np.ones(axes)


def _below(limit: int) -> _Draw:
    return lambda generator, axes: generator.integers(0, limit, axes)


STYLES = 3
_NOISE: dict[str, tuple[_Draw, _Draw, _Draw]] = {
    "b": (_below(2), _ones, _below(2)),
    "i": (_below(2), _below(10), _ones),  # small enough for the smallest vocabulary
    "u8": (_below(256), _below(2), _ones),  # pixels, most likely
    "f": (
        lambda generator, axes: generator.standard_normal(axes),
        lambda generator, axes: generator.random(axes),
        _ones,
    ),
    "O": (_texts, _numerals, lambda _, axes: np.full(axes, b"", object)),
}
_NOISE |= {"c": _NOISE["f"], "V": _NOISE["f"], "u": _NOISE["i"]}  # V: bfloat16 is none of NumPy's own


def _fill(each: Input, axes: tuple[int, ...], style: int, generator: np.random.Generator) -> npt.NDArray[Any]:
    dtype = _numpy(each)
    kind = "u8" if dtype == np.uint8 else dtype.kind
    if kind not in _NOISE:
        raise ExportError(f"input {each.name} is {each.dtype}, which cannot travel over the wire")
    filled: npt.NDArray[Any] = _NOISE[kind][style](generator, axes).astype(dtype)
    return filled
