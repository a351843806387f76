"""Does the written model answer as the original does, the same each time, and each row whatever its neighbours?

The requests that are found here to be accepted are recorded; the answers only where there is one right answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy.typing as npt
import tensorflow as tf

from horngate_trainer import examples, golden
from horngate_trainer.errors import ExamplesError, ExportError, VerificationError, first_line
from horngate_trainer.examples import FEW_ROWS, Request
from horngate_trainer.golden import Tolerance
from horngate_trainer.savedmodel import TRACING_ERRORS
from horngate_trainer.sources import Source
from horngate_trainer.written import Effects, Predict, Tensors

ALONE_ROWS = 8
"""So many rows of a request, at most, are asked for alone."""

_RUN_ERRORS = (*TRACING_ERRORS, tf.errors.OpError)


@dataclass(frozen=True, slots=True)
class Proof:
    """What was seen of a model.

    Attributes:
        requests: that it accepts, each {input: array}.
        answers: to each; None where there is not one right answer.
        independent: whether a row's answer is the same alone and among others; None where that cannot be seen.
        remarks: what a person should know, one sentence each.
    """

    requests: Sequence[Request]
    answers: Sequence[Tensors] | None
    independent: bool | None
    remarks: Sequence[str]


def prove(served: Source, effects: Effects, predict: Predict, given: Request | None) -> Proof:
    """Try the written model, and hold it against the original.

    Args:
        served: the original.
        effects: what the written graph does beside computing.
        predict: the written model's, freshly loaded.
        given: the caller's examples, checked; None for noise.

    Raises:
        ExportError: it accepts nothing that was tried.
        VerificationError: it does not answer as the original does.
    """
    remarks: list[str] = []
    tried = _accepted(served, predict, given)
    if tried.refused:
        remarks.append(f"some requests are refused ({tried.refused}); {len(tried.requests)} that are not are recorded")
    tolerance = golden.same_device(half=served.half)
    again = [predict(request) for request in tried.requests]
    why = _indefinite(effects, tried.answers, again, tolerance)
    with effects.undone():
        for request, answer in zip(tried.requests, tried.answers, strict=True):
            try:
                expected = served.predict(request)
            except _RUN_ERRORS as exc:
                raise VerificationError(
                    f"the written model accepts what the original refuses: {first_line(exc)}"
                ) from exc
            golden.compare(answer, expected, None if why else tolerance)
    if any(_has_nan(answer) for answer in tried.answers):
        remarks.append("some of its answers are NaN (no number); the original's are too")
    if why:
        remarks.append(f"{why}: its requests are recorded without answers, which no server can check")
        return Proof(tried.requests, None, None, remarks)
    independent, told = _independent(served, predict, tried, tolerance)
    return Proof(tried.requests, tried.answers, independent, remarks + [told] * bool(told))


# --- private ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Tried:
    """Requests that were accepted, with the answers.

    Attributes:
        refused: what the model said of others.
        fit: their shapes are right by Keras's own arithmetic.
    """

    requests: list[Request] = field(default_factory=list)
    answers: list[dict[str, npt.NDArray[Any]]] = field(default_factory=list)
    refused: str = ""
    fit: bool = True

    @property
    def rank(self) -> tuple[bool, bool, bool, int]:
        """More is better: any at all, of right shapes and none of them empty, none with NaN, how many."""
        empty = any(not array.size for answer in self.answers for array in answer.values())
        numbers = not any(_has_nan(answer) for answer in self.answers)
        return bool(self.requests), self.fit and not empty, numbers, len(self.requests)


def _accepted(served: Source, predict: Predict, given: Request | None) -> _Tried:
    """Find requests that the written model accepts.

    Raises:
        ExportError: there are none.
    """
    if given is not None:
        tried = _try(served, predict, given)
        if not tried.requests:
            raise ExamplesError(f"the model does not take the examples: {tried.refused}")
        return tried
    best, size = _Tried(), 0
    for guess in examples.guesses(served.inputs):
        some, full, _, _ = best.rank
        if guess.size != size and some and full:
            break  # other sizes will not make it better
        size = guess.size
        rows = guess.draw(served.inputs)
        tried = replace(_try(served, predict, rows), fit=served.fits(rows))
        if tried.rank > best.rank or not best.requests:
            best = tried
        if not best.refused and all(best.rank):
            break
    if not best.requests:
        raise ExportError(
            "no input was found that the model accepts; give some rows as examples=... or --examples FILE.npz "
            f"(it says: {best.refused})"
        )
    return best


def _try(served: Source, predict: Predict, rows: Request) -> _Tried:
    tried = _run(predict, examples.cut(served.inputs, rows))
    if not tried.requests and any(each.in_rows for each in served.inputs):
        fewer = _run(predict, examples.cut(served.inputs, rows, FEW_ROWS))
        return fewer if fewer.requests else tried
    return tried


def _run(predict: Predict, requests: Sequence[Request]) -> _Tried:
    """Return what is accepted.

    Raises:
        ExportError: TensorFlow cannot compute the model at all.
    """
    accepted, answers, refused = [], [], ""
    for request in requests:
        try:
            answers.append(predict(request))
        except _RUN_ERRORS as exc:
            refused = first_line(exc)
            if isinstance(exc, tf.errors.UnimplementedError):  # whatever the values are
                raise ExportError(f"the model cannot be computed here: {refused}") from exc
        else:
            accepted.append(request)
    return _Tried(accepted, answers, refused)


def _indefinite(effects: Effects, first: Sequence[Tensors], second: Sequence[Tensors], tolerance: Tolerance) -> str:
    """Say why there is not one right answer to a request; empty where there is."""
    if effects.writes:
        return (
            f"the model is random on purpose or remembers: {', '.join(effects.writes)} in its graph changes variables"
        )
    if effects.random:
        return f"the model is random on purpose: its graph has {', '.join(effects.random)}"
    try:
        for one, other in zip(first, second, strict=True):
            golden.compare(other, one, tolerance)
    except VerificationError:
        return "the model answers the same request differently each time"
    return ""


def _independent(served: Source, predict: Predict, tried: _Tried, tolerance: Tolerance) -> tuple[bool | None, str]:
    """Ask for rows of a request alone; return whether the answers are the same, and what to say of it."""
    in_rows = [each.name for each in served.inputs if each.in_rows]
    several = [
        (request, answer)
        for request, answer in zip(tried.requests, tried.answers, strict=True)
        if in_rows and len(request[in_rows[0]]) > 1
    ]
    if not several:
        return None, ""
    request, answer = several[0]
    rows = len(request[in_rows[0]])
    alone = _run(
        predict,
        [
            {name: array[row : row + 1] if name in in_rows else array for name, array in request.items()}
            for row in range(min(rows, ALONE_ROWS))
        ],
    )
    if alone.refused:
        return None, f"one row alone is refused ({alone.refused}), so that each request needs a run of its own"
    for name, among in answer.items():
        parts = [each[name] for each in alone.answers]
        if among.ndim and len(among) == rows and all(part.ndim and len(part) == 1 for part in parts):
            same = all(_same(part, among[row : row + 1], tolerance) for row, part in enumerate(parts))
        else:
            same = all(_same(part, among, tolerance) for part in parts)  # an output without rows, such as a constant
        if not same:
            return False, (
                f"rows are not independent: {name} is another alone than among others (as in a softmax over the "
                "batch), so that each request needs a run of its own"
            )
    return True, ""


def _same(one: npt.NDArray[Any], other: npt.NDArray[Any], tolerance: Tolerance) -> bool:
    return one.shape == other.shape and bool(golden.near(one, other, tolerance).all())


def _has_nan(answer: Tensors) -> bool:
    return any(golden.nan(array).any() for array in answer.values())
