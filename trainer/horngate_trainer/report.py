"""The report of a training: pictures where people would rather look than read, and JSON for programs."""

import io
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from horngate_trainer.data import Dataset
from horngate_trainer.evaluation import Evaluation
from horngate_trainer.training import Epoch

WORST = 25
NUMBERED_CLASSES = 20
"""Matrices of more classes show colours without numbers: nobody could read them."""


def write(
    folder: Path,
    history: Sequence[Epoch],
    evaluation: Evaluation,
    dataset: Dataset,
    card: Mapping[str, Any],
) -> None:
    """Write curves.png, confusion.png, mistakes.png and evaluation.json.

    Raises:
        OSError: the folder cannot be written.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - half a second, and only reports need it

    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in (
        ("curves.png", lambda figure: _curves(figure, history)),
        ("confusion.png", lambda figure: _confusion(figure, evaluation)),
        ("mistakes.png", lambda figure: _mistakes(figure, evaluation, dataset)),
    ):
        figure = Figure(figsize=(9, 7) if name != "curves.png" else (10, 4), layout="constrained")
        draw(figure)
        picture = io.BytesIO()
        figure.savefig(picture, dpi=100, format="png")
        _replace(folder / name, picture.getvalue())
    content = {**card, "confusion": evaluation.confusion.tolist()}
    _replace(folder / "evaluation.json", json.dumps(content, indent=2).encode() + b"\n")


# --- private ---------------------------------------------------------------------------------------------------------


def _replace(path: Path, content: bytes) -> None:
    """Write a file whole: another trainer may write the same report at the same time."""
    private = Path(tempfile.mkdtemp(prefix=".partial-", dir=path.parent))
    try:
        (private / path.name).write_bytes(content)
        (private / path.name).replace(path)
    finally:
        shutil.rmtree(private, ignore_errors=True)


def _curves(figure: Any, history: Sequence[Epoch]) -> None:
    numbers = range(1, len(history) + 1)
    left, right = figure.subplots(1, 2)
    left.plot(numbers, [100 * epoch.accuracy for epoch in history], "o-", label="training (with dropout)")
    left.plot(numbers, [100 * epoch.test_accuracy for epoch in history], "o-", label="test")
    left.set(xlabel="epoch", ylabel="accuracy, %", title="Accuracy")
    left.legend()
    right.plot(numbers, [epoch.loss for epoch in history], "o-")
    right.set(xlabel="epoch", ylabel="cross-entropy, nats", title="Training loss")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.locator_params(axis="x", integer=True)


def _confusion(figure: Any, evaluation: Evaluation) -> None:
    axes = figure.subplots()
    matrix = evaluation.confusion
    classes = len(matrix)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(picture, ax=axes, label="share of the class")
    if classes <= NUMBERED_CLASSES:
        axes.set_xticks(range(classes))
        axes.set_yticks(range(classes))
        for row, column in np.ndindex(matrix.shape):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, matrix[row, column], ha="center", va="center", color=colour)
    axes.set(
        xlabel="predicted",
        ylabel="true",
        title=f"{evaluation.correct} of {evaluation.total} right ({evaluation.accuracy:.2%})",
    )


def _mistakes(figure: Any, evaluation: Evaluation, dataset: Dataset) -> None:
    """Show the wrong answers that the model was surest of."""
    confidence = evaluation.probabilities.max(axis=1)
    wrong = np.flatnonzero(evaluation.classes != dataset.y_test)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:WORST]
    figure.suptitle(f"The {len(worst)} mistakes that the model was surest of" if len(worst) else "No mistakes")
    side = max(1, int(np.ceil(np.sqrt(len(worst)))))
    grid = figure.subplots(side, side, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, index in zip(grid, worst, strict=False):
        image = dataset.x_test[index]
        if image.ndim == 3 and image.shape[-1] not in {3, 4}:  # neither RGB nor RGBA: the first channel
            image = image[..., 0]
        axes.imshow(image, cmap="gray_r")
        axes.set_title(f"{dataset.y_test[index]} as {evaluation.classes[index]} ({confidence[index]:.0%})", fontsize=9)
