"""The report of a training: a page for people, with pictures where they would rather look than read; JSON for programs.

Each published version has a folder of its own, which no later training touches.
"""

import io
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from horngate_trainer.data import Dataset
from horngate_trainer.evaluation import Evaluation
from horngate_trainer.further_formats import describe
from horngate_trainer.training import Epoch

WORST = 25
NUMBERED_CLASSES = 20
"""Matrices of more classes show colours without numbers: nobody could read them."""
LISTED_CLASSES = 200
"""The page lists no more classes; evaluation.json has all."""

Attributions = npt.NDArray[np.float32]
Explain = Callable[[npt.NDArray[np.uint8], npt.NDArray[np.int64]], Attributions]
"""Say which parts of images speak for classes: images [N, ...], classes [N] -> [N, ...]."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training has come to.

    Attributes:
        version: the published version's folder.
        history: epoch by epoch.
        evaluation: of the written files.
        dataset: what it was trained and tested on.
        card: what the manifest says.
        explain: explains images through the written files; None where the model does not explain.
    """

    version: Path
    history: Sequence[Epoch]
    evaluation: Evaluation
    dataset: Dataset
    card: Mapping[str, Any]
    explain: Explain | None


def write(root: Path, trained: Trained) -> Path:
    """Write ``<model>-<version>/index.html``, its pictures and evaluation.json; return the page.

    Raises:
        OSError: the folder cannot be written.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - half a second, and only reports need it

    name = f"{trained.version.parent.name}-{trained.version.name}"
    root.mkdir(parents=True, exist_ok=True)
    private = Path(tempfile.mkdtemp(prefix=".partial-", dir=root))
    try:
        for picture, draw in _pictures(trained).items():
            figure = Figure(figsize=_SIZES.get(picture, (9, 7)), layout="constrained")
            draw(figure)
            content = io.BytesIO()
            figure.savefig(content, dpi=100, format="png")
            (private / f"{picture}.png").write_bytes(content.getvalue())
        content_json = {**trained.card, "confusion": trained.evaluation.confusion.tolist()}
        (private / "evaluation.json").write_text(json.dumps(content_json, indent=2) + "\n", encoding="utf-8")
        (private / "index.html").write_text(_page(trained), encoding="utf-8")
        private.chmod(0o755)
        return _placed(private, root, name) / "index.html"
    finally:
        shutil.rmtree(private, ignore_errors=True)


def mistakes(evaluation: Evaluation, dataset: Dataset) -> npt.NDArray[np.int64]:
    """Return the places of the wrong answers that the model was surest of."""
    confidence = evaluation.probabilities.max(axis=1)
    wrong = np.flatnonzero(evaluation.classes != dataset.y_test)
    return wrong[np.argsort(-confidence[wrong], kind="stable")][:WORST]


# --- private ---------------------------------------------------------------------------------------------------------

_SIZES = {"curves": (10, 4), "explanations": (9, 12)}
_STYLE = """\
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222;
       background: #fff }
img { max-width: 100%; height: auto }
table { border-collapse: collapse } td, th { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ddd }
pre { background: #f4f4f4; padding: 1rem; overflow-x: auto } h2 { margin-top: 2.5rem }"""


def _placed(private: Path, root: Path, name: str) -> Path:
    """Move a whole folder to its name, or to one like it where a former version of that number has a report."""
    number = 1
    while True:
        place = root / (name if number == 1 else f"{name}-{number}")
        if not place.exists():
            try:
                return private.rename(place)
            except OSError:
                if not place.exists():
                    raise
        number += 1


def _pictures(trained: Trained) -> dict[str, Callable[[Any], None]]:
    evaluation, dataset = trained.evaluation, trained.dataset
    worst = mistakes(evaluation, dataset)
    drawn: dict[str, Callable[[Any], None]] = {
        "curves": lambda figure: _curves(figure, trained.history),
        "confusion": lambda figure: _confusion(figure, evaluation, dataset),
        "mistakes": lambda figure: _mistakes(figure, evaluation, dataset, worst),
    }
    explain = trained.explain
    if explain is not None and len(worst):
        drawn["explanations"] = lambda figure: _explanations(figure, evaluation, dataset, worst, explain)
    return drawn


def _page(trained: Trained) -> str:
    model, version = trained.version.parent.name, trained.version.name
    evaluation, explains = trained.evaluation, trained.explain is not None
    wrong = evaluation.total - evaluation.correct
    sections = [
        ("Training", "How it learned, epoch by epoch.", _image("curves", "accuracy and loss by epoch")),
        (
            "What is taken for what",
            "Colours are mistakes alone; the diagonal, what is right, has none.",
            _image("confusion", "the confusion matrix"),
        ),
        ("Class by class", "", _table(trained)),
        (
            "The worst mistakes",
            f"Of {wrong} wrong answers, those that the model was surest of.",
            _image("mistakes", "the images that were mistaken"),
        ),
    ]
    if explains and wrong:
        sections.append(
            (
                "Why",
                "Red speaks for a class, blue against it: for what the model said, and for what it is.",
                _image("explanations", "attributions of the worst mistakes"),
            )
        )
    if homes := trained.card.get("formats"):
        rows = "".join(f"<li>{escape(describe(each))}</li>" for each in homes.values())
        sections.append(("Its homes", "Beside the SavedModel, the version has:", f"<ul>{rows}</ul>"))
    commands = [f"horngate-server --models {trained.version.parent.parent}"]
    asked = f"horngate-client --model {model}"
    commands += [f"{asked} predict FILE.png", *[f"{asked} explain FILE.png --output heat.png"] * explains]
    sections.append(("Serve it", "", f"<pre>{escape(chr(10).join(commands))}</pre>"))
    body = "\n".join(f"<h2>{title}</h2>\n<p>{text}</p>\n{content}" for title, text, content in sections)
    title = escape(f"{model} version {version}")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f'<meta name="viewport" content="width=device-width">\n<style>\n{_STYLE}\n</style>\n</head>\n<body>\n'
        f"<h1>{title}</h1>\n<p>{evaluation.correct:,} of {evaluation.total:,} test images right "
        f'({evaluation.accuracy:.2%}); all numbers are in <a href="evaluation.json">evaluation.json</a>.</p>\n'
        f"{body}\n</body>\n</html>\n"
    )


def _image(name: str, text: str) -> str:
    return f'<img src="{name}.png" alt="{text}">'


def _table(trained: Trained) -> str:
    """Return a table: of each class, how many there are, how many are found, and what it is taken for."""
    confusion = trained.evaluation.confusion[:LISTED_CLASSES]
    card = trained.card["evaluation"]
    rows = []
    for number, counts in enumerate(confusion):
        others = np.where(np.arange(len(counts)) == number, 0, counts)
        taken = f"{escape(trained.dataset.name(int(others.argmax())))} ({others.max()})" if others.any() else ""
        cells = [
            escape(trained.dataset.name(number)),
            int(counts.sum()),
            _share(card["recall"][number]),
            _share(card["precision"][number]),
            taken,
        ]
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    heads = ("class", "images", "found", "rightly named", "most often taken for")
    head = "".join(f"<th>{each}</th>" for each in heads)
    return f"<table>\n<tr>{head}</tr>\n" + "\n".join(rows) + "\n</table>"


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _curves(figure: Any, history: Sequence[Epoch]) -> None:
    numbers = range(1, len(history) + 1)
    left, right = figure.subplots(1, 2)
    left.plot(numbers, [100 * epoch.accuracy for epoch in history], "o-", label="training (with dropout)")
    left.plot(numbers, [100 * epoch.test_accuracy for epoch in history], "o-", label="test")
    left.set(xlabel="epoch", ylabel="accuracy, %", title="Accuracy")
    right.plot(numbers, [epoch.loss for epoch in history], "o-", label="training (with dropout)")
    right.plot(numbers, [epoch.test_loss for epoch in history], "o-", label="test")
    right.set(xlabel="epoch", ylabel="cross-entropy, nats", title="Loss")
    for axes in (left, right):
        axes.legend()
        axes.grid(alpha=0.3)
        axes.locator_params(axis="x", integer=True)


def _confusion(figure: Any, evaluation: Evaluation, dataset: Dataset) -> None:
    """Colour what is wrong: beside a diagonal of hundreds, nobody would see a few."""
    axes = figure.subplots()
    matrix = evaluation.confusion
    classes = len(matrix)
    wrong = np.ma.masked_where(np.eye(classes, dtype=bool), matrix)
    most = max(1, int(wrong.max())) if classes > 1 else 1
    picture = axes.imshow(wrong, cmap="Reds", vmin=0, vmax=most)
    figure.colorbar(picture, ax=axes, label="mistakes")
    if classes <= NUMBERED_CLASSES:
        names = [dataset.name(label) for label in range(classes)]
        axes.set_xticks(range(classes), names, rotation=90 if dataset.names is not None else 0)
        axes.set_yticks(range(classes), names)
        for row, column in np.ndindex(matrix.shape):
            colour = "grey" if row == column else "white" if matrix[row, column] > most / 2 else "black"
            axes.text(column, row, matrix[row, column] or "", ha="center", va="center", color=colour)
    axes.set(
        xlabel="predicted",
        ylabel="true",
        title=f"{evaluation.correct} of {evaluation.total} right ({evaluation.accuracy:.2%})",
    )


def _mistakes(figure: Any, evaluation: Evaluation, dataset: Dataset, worst: npt.NDArray[np.int64]) -> None:
    confidence = evaluation.probabilities.max(axis=1)
    figure.suptitle(f"The {len(worst)} mistakes that the model was surest of" if len(worst) else "No mistakes")
    side = max(1, int(np.ceil(np.sqrt(len(worst)))))
    grid = figure.subplots(side, side, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, index in zip(grid, worst, strict=False):
        axes.imshow(_shown(dataset.x_test[index]), cmap="gray_r")
        true, said = dataset.name(dataset.y_test[index]), dataset.name(evaluation.classes[index])
        axes.set_title(f"{true} as {said} ({confidence[index]:.0%})", fontsize=9)


def _explanations(
    figure: Any, evaluation: Evaluation, dataset: Dataset, worst: npt.NDArray[np.int64], explain: Explain
) -> None:
    """Show what speaks for the class that was predicted, and for the true one, of each mistake."""
    images = dataset.x_test[worst]
    said, true = evaluation.classes[worst], dataset.y_test[worst].astype(np.int64)
    both = np.stack([_flat(explain(images, target)) for target in (said, true)], axis=1)
    strongest = np.abs(both).max(axis=(1, 2, 3), keepdims=True)
    heats = _red_and_blue(np.divide(both, strongest, out=np.zeros_like(both), where=strongest > 0))
    height, width = images.shape[1:3]
    down, right = height + max(2, height // 3), width + max(1, width // 10)
    across = 3 * min(3, len(worst))
    lines = -(-3 * len(worst) // across)
    sheet = np.ones((lines * down, across * right, 3))
    axes = figure.subplots()  # one for all: a hundred take seconds to lay out
    axes.axis("off")
    names = [(dataset.name(a), dataset.name(b)) for a, b in zip(said, true, strict=True)]
    titles = [("it saw", f"{a}, it said", f"{b}, it is") for a, b in names]
    for number, image in enumerate(images):
        for place, cell in enumerate((_red_green_blue(image), *heats[number]), 3 * number):
            top, left = place // across * down + down - height, place % across * right
            sheet[top : top + height, left : left + width] = cell
            title = titles[number][place % 3]
            axes.text(left + width / 2, top - 1, title, fontsize=8, ha="center", va="bottom")
    axes.imshow(sheet, interpolation="nearest")


def _red_and_blue(strengths: Attributions) -> Attributions:
    """Return the colours of -1 to 1: blue, white, red."""
    rest = 1 - np.abs(strengths)
    above = strengths > 0
    return np.stack([np.where(above, 1, rest), rest, np.where(above, rest, 1)], axis=-1)


def _red_green_blue(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Return an image's colours; of one without, dark ink on white paper."""
    shown = _shown(image) / 255
    return shown[..., :3] if shown.ndim == 3 else np.repeat(1 - shown[..., np.newaxis], 3, axis=-1)


def _flat(attributions: Attributions) -> Attributions:
    return attributions if attributions.ndim == 3 else attributions.sum(axis=-1)


def _shown(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    if image.ndim == 3 and image.shape[-1] not in {3, 4}:  # neither RGB nor RGBA: the first channel
        return image[..., 0]
    return image
