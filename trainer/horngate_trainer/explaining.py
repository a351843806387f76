"""Explanations as a signature: which parts of an image speak for a class, by integrated gradients, in the graph itself.

The attributions of a row sum to the class's score less the score of a baseline, an image that shows nothing; what they
miss of it is the row's gap. The integral is Gauss and Legendre's, in a loop: the same every time, and a row's answer
does not depend on its neighbours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from horngate_trainer import golden
from horngate_trainer.errors import ExportError, VerificationError, first_line
from horngate_trainer.golden import Tolerance
from horngate_trainer.savedmodel import TRACING_ERRORS, Servable
from horngate_trainer.settings import BASELINES
from horngate_trainer.written import Answers, Tensors

SIGNATURE = "explain"
TARGET = "target"
OUTPUTS = ("attributions", "baseline_score", "gap", "score", TARGET)
PREDICTED = -1
"""As a target: the class that is predicted."""
STEPS = 32
"""With 32, digits have gaps below 0.03; twice as many cost twice as much and bring little."""
AT_ONCE = 8
"""Steps that are computed together, of small images: one row alone would leave the processor idle."""
VALUES_AT_ONCE = 1 << 16
"""Of large ones fewer: activations would fill the memory."""
RECORDED = (1, 3)
"""Rows of the recorded requests: a server explains each of them while it loads, and a row costs tens of predictions."""
MEASURED_ROWS, MEASURED_VALUES = 256, 1 << 18
"""Rows whose gaps the manifest tells about; of large ones fewer: one row may take a second."""
LEAST_ROWS, RUN_ROWS = 4, 32
LEAST_TOLERANCE = 0.03
"""The tolerance of the gap where fewer than all rows need so much: other images will come."""
STABLE = Tolerance(atol=1e-4, rtol=1e-3)
"""A tenth of what servers are held to. Gradients are sums that nearly cancel: of some models, they are all rounding."""
CONVERGED = 0.1
"""A larger gap says that the attributions are not to be trusted."""


@dataclass(frozen=True, slots=True, eq=False)
class Explainer:
    """How a model is explained.

    Attributes:
        served: the model.
        baseline: what shows nothing, in the model's own units: a number for all of a row, or a row.
        called: the baseline's name: one of `settings.BASELINES`, or "given".
    """

    served: Servable
    baseline: npt.NDArray[np.float32]
    called: str

    def trace(self) -> Any:
        """Return the signature's function, to be written beside the default one.

        Raises:
            ExportError: the model has no gradients, or none that a graph could compute.
        """
        names, specs = self.served.arguments()
        target = tf.TensorSpec([None], tf.int64, TARGET)
        if TARGET in names:
            raise ExportError(f"an input is called {TARGET!r}, which explanations need for the class")
        function = tf.function(self.explain, input_signature=[*specs, target], autograph=False)
        try:
            return function.get_concrete_function()
        except TRACING_ERRORS as exc:
            raise ExportError(f"the model cannot be explained: {first_line(exc)}") from exc

    def explain(self, rows: Any, target: Any) -> dict[str, Any]:
        """Return the attributions of rows as they come over the wire; in a graph, or at once."""
        (row,) = self.served.preprocessed([rows])
        ones, shape = [1] * (row.shape.rank - 1), tf.TensorShape([None, *row.shape[1:]])
        nothing = tf.zeros_like(row) + tf.cast(tf.constant(self.baseline), row.dtype)
        way = row - nothing
        scores = self._scores(row)
        classes = tf.shape(scores)[-1]
        known = (target >= PREDICTED) & (target < tf.cast(classes, tf.int64))
        check = tf.raw_ops.Assert(
            condition=tf.reduce_all(known),
            data=[f"{TARGET}: expected the number of a class, or {PREDICTED} for the predicted one; got", target],
        )
        with tf.control_dependencies([check] if check is not None else []):  # eagerly, it is checked already
            target = tf.where(target < 0, tf.argmax(scores, axis=-1, output_type=tf.int64), target)
        wanted = tf.one_hot(target, classes, dtype=scores.dtype)
        some = self._at_once(row.shape[1:])
        places, weights = _gauss_legendre()

        def integrated(step: Any, total: Any) -> tuple[Any, Any]:
            share = tf.reshape(tf.slice(tf.constant(places, row.dtype), [step], [some]), [some, 1, *ones])
            weight = tf.reshape(tf.slice(tf.constant(weights, row.dtype), [step], [some]), [some, 1, *ones])
            between = tf.reshape(nothing + share * way, tf.concat([[-1], tf.shape(row)[1:]], 0))
            between = tf.ensure_shape(between, shape)
            with tf.GradientTape() as tape:
                tape.watch(between)
                score = tf.reduce_sum(self._scores(between) * tf.tile(wanted, [some, 1]))
            gradient = tape.gradient(score, between)
            if gradient is None:
                raise ExportError("the model cannot be explained: its classes have no gradient by its input")
            each = tf.reshape(tf.convert_to_tensor(gradient), tf.concat([[some, -1], tf.shape(row)[1:]], 0))
            return step + some, tf.ensure_shape(total + tf.reduce_sum(weight * each, axis=0), shape)

        _, slopes = tf.while_loop(
            lambda step, _: step < STEPS,
            integrated,
            (tf.constant(0), tf.zeros_like(row)),
            shape_invariants=(tf.TensorShape([]), shape),
            parallel_iterations=1,
        )
        attributions = tf.cast(way * slopes, tf.float32)
        score = tf.cast(tf.reduce_sum(scores * wanted, axis=-1), tf.float32)
        before = tf.cast(tf.reduce_sum(self._scores(nothing) * wanted, axis=-1), tf.float32)
        summed = tf.reduce_sum(attributions, axis=list(range(1, row.shape.rank)))
        gap = tf.abs(score - before - summed)
        return dict(zip(OUTPUTS, (attributions, before, gap, score, target), strict=True))

    def _scores(self, rows: Any) -> Any:
        return self.served.outputs_of([rows])[self.served.classes_of or ""]

    def _at_once(self, row: Any) -> int:
        if not row.is_fully_defined():
            return 1
        some = AT_ONCE
        while some > 1 and some * prod(row) > VALUES_AT_ONCE:
            some //= 2
        return some


@dataclass(frozen=True, slots=True)
class Explained:
    """What was seen of a written explainer.

    Attributes:
        requests: with their targets.
        answers: to each; None where there is not one right answer.
        remarks: what a person should know, one sentence each.
        card: what the manifest says.
    """

    requests: Sequence[Tensors]
    answers: Sequence[Tensors] | None
    remarks: Sequence[str]
    card: Mapping[str, Any]


def explainer(served: Servable, baseline: Any, examples: Tensors | None) -> Explainer:
    """Work out how a model is explained.

    Args:
        served: the model.
        baseline: one of `settings.BASELINES`, or a row, as on the wire.
        examples: the caller's, whose mean may be the baseline.

    Raises:
        ExportError: it cannot be, or not from this baseline.
    """
    ranks = dict(zip(served.outputs, (len(each.shape) for each in served.model.outputs), strict=True))
    why = ""
    if served.classes_of is None:
        why = "classes_of says of no output that it has a number for each class"
    elif ranks[served.classes_of] != 2:
        why = f"its output {served.classes_of} has {ranks[served.classes_of]} axes; expected rows of classes"
    elif len(served.inputs) != 1 or not served.inputs[0].in_rows or len(served.inputs[0].shape) < 2:
        why = "it needs one input, of rows"
    elif not tf.as_dtype(served.model.inputs[0].dtype).is_floating:
        why = f"its input is {served.model.inputs[0].dtype}, which has no gradients"
    if why:
        raise ExportError(f"the model cannot be explained: {why}")
    called = baseline if isinstance(baseline, str) else "given"
    return Explainer(served, _baseline(served, baseline, examples), called)


def try_out(how: Explainer, answer: Answers, rows: Tensors, *, definite: bool) -> Explained:
    """Hold the written signature against the Keras model, and measure its gaps.

    Args:
        how: what was written.
        answer: the written model's.
        rows: of the model's input, that it accepts.
        definite: the model has one right answer to a request.

    Raises:
        VerificationError: it answers otherwise, or another time otherwise.
    """
    (name, images), *_ = rows.items()
    requests: list[Tensors] = []
    for start, stop in pairwise(np.cumsum([0, *RECORDED])):
        places = np.arange(start, stop)
        requests.append({name: images[places % len(images)], TARGET: np.where(places % 2, 0, PREDICTED)})
    answers = [answer(request, SIGNATURE) for request in requests]
    remarks = []
    if definite:
        expected = [_computed(how, request) for request in requests]
        for request, got, want in zip(requests, answers, expected, strict=True):
            golden.compare(got, want, None)
            again = answer(request, SIGNATURE)
            if any(not np.array_equal(again[key], got[key], equal_nan=True) for key in OUTPUTS):
                raise VerificationError("the written model explains the same rows differently each time")
        definite = all(_same(got, want, how) for got, want in zip(answers, expected, strict=True))
        if not definite:
            remarks.append("its explanations depend on how numbers are rounded: they are recorded without answers")
    independent = definite and _independent(how, answer, requests[-1], answers[-1])
    gaps = _gaps(answer, name, images)
    largest = float(gaps.max())
    if not largest <= CONVERGED:
        remarks.append(
            f"its explanations do not add up everywhere: of {len(gaps)} rows, {np.count_nonzero(~(gaps <= CONVERGED))} "
            f"have a gap above {CONVERGED}; each answer carries its own"
        )
    allowed = max(LEAST_TOLERANCE, round(2 * largest, 3)) if np.isfinite(largest) else None
    card = {
        "signature": SIGNATURE,
        "method": "integrated gradients",
        "steps": STEPS,
        "of": how.served.classes_of,
        "input": name,
        "baseline": how.called,
        "batching": "rows" if independent else "whole",
        "gap": {
            "tolerance": allowed,
            "rows": len(gaps),
            "p99": float(np.quantile(gaps, 0.99)),
            "largest": largest,
        },
    }
    return Explained(requests, answers if definite else None, remarks, card)


# --- private ---------------------------------------------------------------------------------------------------------


def _baseline(served: Servable, baseline: Any, examples: Tensors | None) -> npt.NDArray[np.float32]:
    """Return a baseline in the model's units.

    Raises:
        ExportError: there is no such one.
    """
    (each,) = served.inputs
    dtype = tf.as_dtype(each.dtype)
    divisor = served.divisors.get(each.name, 1.0)
    if not isinstance(baseline, str):
        row = np.asarray(baseline, np.float64)
        if row.shape != each.shape[1:] and row.shape:
            raise ExportError(f"the baseline is {row.shape}; expected a row of {each.name}, {each.shape[1:]}")
    elif baseline == "black":
        row = np.zeros(())
    elif baseline == "white":
        row = np.asarray(dtype.max if dtype.is_integer else 1.0)
    elif baseline == "mean":
        if examples is None:
            raise ExportError("the mean of the examples cannot be the baseline where there are no examples")
        row = examples[each.name].mean(axis=0, dtype=np.float64)
    else:
        raise ExportError(f"the baseline must be one of {', '.join(BASELINES)}, or a row, not {baseline!r}")
    made: npt.NDArray[np.float32] = np.asarray(row / divisor, np.float32)
    return made


def _computed(how: Explainer, request: Tensors) -> Tensors:
    """Return what the Keras model itself says, without a graph."""
    return {name: value.numpy() for name, value in how.explain(*map(tf.constant, request.values())).items()}


def _same(one: Tensors, other: Tensors, how: Explainer) -> bool:
    """Whether explanations are so near that no server will take them for others'."""
    tolerance = golden.HALF if how.served.half else STABLE
    return all(bool(golden.near(one[name], other[name], tolerance).all()) for name in OUTPUTS)


def _independent(how: Explainer, answer: Answers, request: Tensors, among: Tensors) -> bool:
    """Whether each row is explained alone as among others."""
    rows = len(request[TARGET])
    alone = [answer({name: array[row : row + 1] for name, array in request.items()}, SIGNATURE) for row in range(rows)]
    return _same({name: np.concatenate([each[name] for each in alone]) for name in OUTPUTS}, among, how)


def _gauss_legendre() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return places between 0 and 1, and their weights, which sum to 1."""
    places, weights = np.polynomial.legendre.leggauss(STEPS)
    return (places + 1) / 2, weights / 2


def _gaps(answer: Answers, name: str, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return the gaps of the first rows, a few at a time."""
    size = prod(images.shape[1:])
    rows = images[: min(MEASURED_ROWS, max(LEAST_ROWS, MEASURED_VALUES // size))]
    some = max(1, min(RUN_ROWS, VALUES_AT_ONCE // size))
    parts = [rows[at : at + some] for at in range(0, len(rows), some)]
    answers = [answer({name: part, TARGET: np.full(len(part), PREDICTED, np.int64)}, SIGNATURE) for part in parts]
    return np.concatenate([each["gap"] for each in answers])
