"""How good the exported model is, measured through the files that will be served, and what normal input looks like."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from horngate_trainer import memory
from horngate_trainer.data import Dataset
from horngate_trainer.streamed import Streamed

BINS = 20


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The test set's result.

    Attributes:
        classes: the predicted ones, int64 [N].
        probabilities: float32 [N, K].
        confusion: int64 [K, K]; row: what it is, column: what the model said.
        loss: mean cross-entropy, in nats.
    """

    classes: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]
    confusion: npt.NDArray[np.int64]
    loss: float

    @property
    def correct(self) -> int:
        """How many of the test images the model gets right."""
        return int(np.trace(self.confusion))

    @property
    def total(self) -> int:
        """How many test images there are."""
        return len(self.classes)

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.correct / self.total

    def card(self) -> dict[str, Any]:
        """Return what the manifest says of it; per class, the shares of found and of rightly named images."""
        hits = np.diag(self.confusion)
        return {
            "accuracy": self.accuracy,
            "correct": self.correct,
            "total": self.total,
            "loss": self.loss if math.isfinite(self.loss) else None,  # JSON has no NaN
            "recall": _shares(hits, self.confusion.sum(axis=1)),
            "precision": _shares(hits, self.confusion.sum(axis=0)),
        }


def evaluate(
    predict: Callable[[Mapping[str, npt.NDArray[Any]]], Mapping[str, npt.NDArray[Any]]], dataset: Dataset, name: str
) -> Evaluation:
    """Run the test set, uint8 as it is, through a model's predict function.

    Args:
        predict: {input name: array} -> {"probabilities": ..., "classes": ...}.
        dataset: whose test part is used.
        name: of the model's input.
    """
    rows = memory.rows_at_once(dataset.image_shape)
    answers = [predict({name: dataset.x_test[at : at + rows]}) for at in range(0, len(dataset.x_test), rows)]
    classes = np.concatenate([answer["classes"] for answer in answers])
    probabilities = np.concatenate([answer["probabilities"] for answer in answers])
    confusion = np.zeros((dataset.classes, dataset.classes), np.int64)
    np.add.at(confusion, (dataset.y_test, classes), 1)
    right = probabilities[np.arange(len(classes)), dataset.y_test].astype(np.float64)
    loss = float(-np.log(np.maximum(right, np.finfo(np.float32).tiny)).mean())
    return Evaluation(classes, probabilities, confusion, loss)


def compare(other: Evaluation, evaluation: Evaluation) -> dict[str, Any]:
    """Return what the manifest says of another format's test result beside the SavedModel's."""
    return {
        "accuracy": other.accuracy,
        "correct": other.correct,
        "total": other.total,
        "same_classes": int((other.classes == evaluation.classes).sum()),
        "largest_difference": float(np.abs(other.probabilities - evaluation.probabilities).max(initial=0.0)),
    }


def baseline(evaluation: Evaluation, dataset: Dataset) -> dict[str, Any]:
    """Return what normal traffic looks like, for a server to compare with; of images that are streamed, a sample's."""
    images = spread(dataset) if isinstance(dataset.x_test, Streamed) else dataset.x_test
    counts, edges = np.histogram(evaluation.probabilities.max(axis=1), bins=BINS, range=(0.0, 1.0))
    return {
        "class_shares": (np.bincount(evaluation.classes, minlength=dataset.classes) / evaluation.total).tolist(),
        "confidence_histogram": {"edges": edges.round(6).tolist(), "counts": counts.tolist()},
        "input_mean": float(images.mean()),
        "input_min": int(images.min()),
        "input_max": int(images.max()),
    }


def spread(dataset: Dataset) -> npt.NDArray[np.uint8]:
    """Return the test images that stand for all (`memory.example_rows` of them).

    Any first ones of them have the classes' shares, as near as they can.

    The first ones are recorded: whoever puts load on a server with them looks like the traffic of `baseline`.

    Args:
        dataset: whose test part it is.
    """
    order = np.argsort(dataset.y_test, kind="stable")
    counts = np.bincount(dataset.y_test)
    starts = np.cumsum(counts) - counts
    classes = dataset.y_test[order]
    place = (np.arange(len(order)) - starts[classes] + 0.5) / counts[classes]
    chosen = order[np.argsort(place, kind="stable")][: memory.example_rows(dataset.image_shape)]
    return dataset.x_test[chosen]


# --- private ---------------------------------------------------------------------------------------------------------


def _shares(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> list[float | None]:
    return [int(p) / int(w) if w else None for p, w in zip(part, whole, strict=True)]
