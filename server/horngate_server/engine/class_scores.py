"""The probabilities of a batch, where it has some: what metrics and drift look at, whatever else a model returns."""

from math import isfinite
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from horngate_server.core.model import Array
from horngate_server.engine.batch_runner import BatchReport

PROBABILITIES = "probabilities"
"""The output that is looked at, by its name: float32 [N, classes] of the reference model and its like."""


class Scores(NamedTuple):
    """What a batch's rows were taken for.

    Attributes:
        classes: int64 [N], each row's class with the highest probability.
        confidence: float64 [N], that probability; finite.
        width: how many classes there are.
        left_out: rows whose highest probability is no finite number: they are in none of the above.
    """

    classes: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    width: int
    left_out: int


def of(report: BatchReport) -> Scores | None:
    """Return a batch's scores; None where its signature has no probabilities, or other ones than a row's classes."""
    padding = report.info.batching.padding
    for place, (spec, array) in enumerate(zip(report.info.signature.outputs, report.arrays, strict=False)):
        if spec.name == PROBABILITIES and not (padding and padding.cut[place]):
            return _of(array, report)
    return None


# --- private ------------------------------------------------------------------------------------------


def _of(array: Array, report: BatchReport) -> Scores | None:
    if array.ndim != 2 or array.dtype.kind != "f" or array.shape[0] != report.padded_rows or not array.shape[1]:
        return None
    scores = array[: report.rows]
    confidence = scores.max(axis=1).astype(np.float64)  # NaN in a row is its highest value
    classes = scores.argmax(axis=1)
    if isfinite(confidence.sum()):
        return Scores(classes, confidence, scores.shape[1], 0)
    known = np.isfinite(confidence)
    classes, confidence = classes[known], confidence[known]
    return Scores(classes, confidence, scores.shape[1], len(known) - len(classes))
