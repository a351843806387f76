"""Are a signature's rows independent? The same rows are computed alone and among others, and the answers compared."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from horngate_server.core.errors import RequestError
from horngate_server.core.model import Array
from horngate_server.core.signature import Signature, TensorSpec
from horngate_server.lifecycle.comparison import Tolerance, as_numbers, first_difference
from horngate_server.lifecycle.probe_inputs import Guess, Rows, guesses
from horngate_server.lifecycle.trial_runs import TrialRuns, joined

ALONE_ROWS = 8
"""Rows whose answers alone are known."""
DULL_ROWS = 4
"""Of a model whose answers are all the same, fewer will do."""
SLOW_S = 0.02
"""Of a model that takes longer for a row, less is tried: a load is a matter of seconds."""
TOGETHER, SLOW_TOGETHER = (2, 3, 2, 3, 8), (2, 3)
"""Rows of the first batches in which they are seen again, each time with other neighbours."""
STYLES = 3
"""So many kinds of values are tried, of those that the model accepts."""
TOLERANCES = {"FP16": 2e-2, "BF16": 5e-2, "FP64": 1e-8, "COMPLEX128": 1e-8}
"""Relative to the largest value of an output: how far the same row may be from itself in another batch."""
TOLERANCE, GPU_TOLERANCE = 1e-4, 1e-2
"""Of other floating-point types; GPUs may multiply with ten bits (TensorFloat-32)."""


class Doubt(Exception):
    """Why requests get runs of their own."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Rows that the model took alone, with their answers.

    Attributes:
        rows: per row and input, an array of one row.
        answers: per row and output, what came back.
        guess: how the rows were made; None if they were recorded.
        slow: a row takes long.
    """

    rows: Sequence[Rows]
    answers: Sequence[Sequence[Array]]
    guess: Guess | None
    slow: bool

    @property
    def varied(self) -> bool:
        """Whether any answer is another than the first row's, and is a number."""
        first, *others = self.answers
        return any(_differs(one, each[place]) for place, one in enumerate(first) for each in others)


def rows_alone(runs: TrialRuns, recorded: Sequence[Rows]) -> Seen | None:
    """Find rows that the model takes one by one, and whose answers differ if that can be had.

    Args:
        runs: of the signature.
        recorded: requests that are tried before anything is guessed, per input all axes.

    Returns:
        None where it takes none.
    """
    dull: Seen | None = None
    for rows, guess in _sources(runs.signature, recorded):
        seen = _alone(runs, rows[:2], guess)
        if seen is None:
            continue
        if seen.varied:
            return _alone(runs, rows, guess)
        dull = dull or seen
        if guess is not None and dull.guess is not None and guess.size != dull.guess.size:
            break  # other sizes will not make its answers differ
    if dull is not None and dull.guess is not None:
        return _alone(runs, [dull.guess.draw(1, seed) for seed in range(DULL_ROWS)], dull.guess)
    return dull


def without_rows(runs: TrialRuns, seen: Seen, *, gpu: bool = False) -> frozenset[int]:
    """See rows again among others; return the outputs that have no rows, and are the same whatever is computed.

    Raises:
        Doubt: rows are not the same among others, or that cannot be seen.
    """
    if len(seen.rows) < 3:
        raise Doubt(f"too few rows are accepted to compare them: {runs.refused}")
    _same_twice(runs, seen, gpu=gpu)
    shared = _together(runs, seen, None, SLOW_TOGETHER if seen.slow else TOGETHER, gpu=gpu)
    if not seen.varied:
        raise Doubt("its answers are the same whatever it is given, so that nothing can be seen")
    styles = 1
    for guess in guesses(runs.signature):
        if styles == STYLES or seen.slow or (seen.guess is not None and guess.size != seen.guess.size):
            break
        if seen.guess is not None and guess.style == seen.guess.style:
            continue
        other = _alone(runs, [guess.draw(1, seed) for seed in range(3)], guess)
        if other is not None:
            styles += 1
            if seen.guess is not None:
                _same_shapes(runs.signature, seen, other)
            _together(runs, other, shared, (2, 3), gpu=gpu)
    return shared


def compare(
    signature: Signature,
    seen: Seen,
    order: Sequence[int],
    answers: Sequence[Array],
    shared: frozenset[int],
    *,
    gpu: bool = False,
) -> None:
    """Compare a batch's answers with those of its rows alone.

    Args:
        signature: whose answers they are.
        seen: the rows alone.
        order: which of them the batch has, in order.
        answers: what came back for it.
        shared: the outputs, by place, that have no rows.
        gpu: computed on one.

    Raises:
        Doubt: they are not the same.
    """
    for place, (spec, got) in enumerate(zip(signature.outputs, answers, strict=True)):
        alone = [each[place] for each in seen.answers]
        near = tolerance(spec, alone, gpu=gpu)
        if place in shared:
            if any(
                got.shape != each.shape or first_difference(got, each, spec.datatype, near) is not None
                for each in alone
            ):
                raise Doubt(f"output {spec.name!r} has no rows, and depends on all that is computed together")
            continue
        row_shape = alone[0].shape[1:]
        if any(not each.ndim or each.shape != (1, *row_shape) for each in alone):
            raise Doubt(f"output {spec.name!r} has shape {list(alone[0].shape)} for one row")
        if got.shape != (len(order), *row_shape):
            raise Doubt(f"output {spec.name!r} has shape {list(got.shape)} for {len(order)} rows")
        wanted = np.concatenate([alone[row] for row in order])
        if first_difference(got, wanted, spec.datatype, near) is not None:
            raise Doubt(f"output {spec.name!r} of a row is another among {len(order)} than alone")


def tolerance(spec: TensorSpec, answers: Sequence[Array], *, gpu: bool) -> Tolerance:
    """Return how far an output may be from itself, by the largest of these answers."""
    relative = TOLERANCES.get(spec.datatype.name, GPU_TOLERANCE if gpu else TOLERANCE)
    largest = 0.0
    if spec.datatype.numpy.kind in "fc" or spec.datatype.name == "BF16":
        numbers = np.abs(np.concatenate([as_numbers(each, spec.datatype).reshape(-1) for each in answers]))
        finite = numbers[np.isfinite(numbers)]
        largest = float(finite.max()) if finite.size else 0.0
    return Tolerance(atol=largest * relative / 10, rtol=relative)


# --- private ------------------------------------------------------------------------------------------


def _sources(signature: Signature, recorded: Sequence[Rows]) -> Iterator[tuple[Sequence[Rows], Guess | None]]:
    if rows := _cut(recorded):
        yield rows, None
    for guess in guesses(signature):
        yield [guess.draw(1, seed) for seed in range(ALONE_ROWS)], guess


def _cut(recorded: Sequence[Rows]) -> list[Rows]:
    """Return single rows of recorded requests, all of one kind; none where their inputs have no common rows."""
    rows: list[Rows] = []
    for request in recorded:
        counts = {len(array) if array.ndim else 0 for array in request}
        if len(counts) != 1:
            continue
        for row in range(min(counts.pop(), ALONE_ROWS - len(rows))):
            each = [array[row : row + 1] for array in request]
            if not rows or [array.shape for array in rows[0]] == [array.shape for array in each]:
                rows.append(each)
    return rows


def _alone(runs: TrialRuns, rows: Sequence[Rows], guess: Guess | None) -> Seen | None:
    """Compute rows one by one; None if the first is refused."""
    kept: list[Rows] = []
    answers: list[Sequence[Array]] = []
    slow = False
    for row in rows:
        began = runs.clock()
        answer = runs.tried(row)
        if answer is None:
            if not kept:
                return None
            continue
        slow = runs.clock() - began > SLOW_S
        kept.append(row)
        answers.append(answer)
        if slow and len(kept) == DULL_ROWS:
            break
    return Seen(kept, answers, guess, slow)


def _same_twice(runs: TrialRuns, seen: Seen, *, gpu: bool) -> None:
    """See that one row gets one answer.

    Raises:
        Doubt: it is random, or it remembers.
    """
    again = runs.run(seen.rows[0])
    for place, (spec, got) in enumerate(zip(runs.signature.outputs, again, strict=True)):
        wanted = seen.answers[0][place]
        near = tolerance(spec, [each[place] for each in seen.answers], gpu=gpu)
        if got.shape != wanted.shape or first_difference(got, wanted, spec.datatype, near) is not None:
            raise Doubt(f"output {spec.name!r} of the same row is another the second time")


def _same_shapes(signature: Signature, seen: Seen, other: Seen) -> None:
    """See that other values have answers of the same shapes.

    Raises:
        Doubt: what comes out depends on what goes in.
    """
    for spec, one, another in zip(signature.outputs, seen.answers[0], other.answers[0], strict=True):
        if one.shape != another.shape:
            raise Doubt(f"output {spec.name!r} has shape {list(one.shape)} or {list(another.shape)} for one row")


def _together(
    runs: TrialRuns, seen: Seen, shared: frozenset[int] | None, sizes: Iterable[int], *, gpu: bool
) -> frozenset[int]:
    """Compute batches of these rows in any order; return the outputs without rows, which the first one tells."""
    rng = np.random.default_rng(len(seen.rows))
    last = len(seen.rows) - 1
    for size in sizes:
        order = [int(place) for place in rng.integers(len(seen.rows), size=size)]
        order[0], order[-1] = (0, last) if size % 2 else (last, 0)
        try:
            answers = runs.run(joined(seen.rows, order))
        except RequestError as error:
            raise Doubt(f"{size} rows together fail, which do not alone: {error}") from error
        if shared is None:
            alone = seen.answers[0]
            shared = frozenset(place for place, got in enumerate(answers) if got.shape == alone[place].shape)
        compare(runs.signature, seen, order, answers, shared, gpu=gpu)
    return shared or frozenset()


def _differs(one: Array, other: Array) -> bool:
    if one.shape != other.shape:
        return True
    different = one != other
    if one.dtype.kind in "fc":
        different = different & ~(np.isnan(one) & np.isnan(other))
    return bool(np.any(different))
