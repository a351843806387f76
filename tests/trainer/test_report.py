"""The report: a folder for each version, which no later one touches; curves go on where a training is resumed."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from horngate_trainer import evaluation, report
from horngate_trainer.curves import Curves
from horngate_trainer.data import Dataset
from horngate_trainer.report import Trained
from horngate_trainer.training import Epoch

pytestmark = pytest.mark.slow

EPOCHS = [Epoch(0.8, 0.5, 0.7, 0.6, 1.0), Epoch(0.9, 0.3, 0.8, 0.4, 1.0)]


def trained(root: Path, shape: tuple[int, ...] = (4, 4), *, wrong: int = 30) -> Trained:
    """A training that ended with so many mistakes among 60 images of two classes, 0 taken for 1."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, *shape), np.uint8)
    labels = np.repeat([0, 1], [wrong, 60 - wrong]).astype(np.int32)
    dataset = Dataset("test", "digest", images, labels, images, labels, 2)
    scores = np.tile(np.array([0.1, 0.9], np.float32), (60, 1))
    result = evaluation.evaluate(lambda _: {"classes": np.ones(60, np.int64), "probabilities": scores}, dataset, "x")
    version = root / "models" / "bands" / "1"

    def explain(asked: Any, classes: Any) -> Any:
        return np.where(classes == 1, 1, -1).reshape(-1, *[1] * len(shape)) * asked.astype(np.float32)

    return Trained(version, EPOCHS, result, dataset, {"evaluation": result.card()}, explain)


def test_each_training_has_a_page_of_its_own(tmp_path: Path) -> None:
    """By model and version; where these come again, because somebody has removed the models, with a number."""
    pages = [report.write(tmp_path / "report", trained(tmp_path)) for _ in range(3)]
    assert [page.parent.name for page in pages] == ["bands-1", "bands-1-2", "bands-1-3"]
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"bands-1", "bands-1-2", "bands-1-3"}


@pytest.mark.parametrize("shape", [(4, 4), (4, 5, 3), (1, 1), (3, 3, 2)])
def test_the_page_shows_curves_mistakes_and_why(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Each class with what it is taken for, and the commands that serve it; whatever the shape of the images."""
    page = report.write(tmp_path / "report", trained(tmp_path, shape))
    text = page.read_text()
    pictures = re.findall(r'<img src="(.+?)"', text)
    assert pictures == ["curves.png", "confusion.png", "mistakes.png", "explanations.png"]
    assert all((page.parent / name).is_file() for name in pictures)
    assert "<tr><td>0</td><td>30</td><td>0.0%</td><td></td><td>1 (30)</td></tr>" in text
    assert "<tr><td>1</td><td>30</td><td>100.0%</td><td>50.0%</td><td></td></tr>" in text
    assert f"horngate-server --models {tmp_path / 'models'}" in text
    assert "horngate-client --model bands explain FILE.png" in text


def test_what_is_explained_are_the_mistakes(tmp_path: Path) -> None:
    """Twenty-five at most, for what the model said and for what they are; none where there are none."""
    asked: list[tuple[int, set[int]]] = []
    made = trained(tmp_path)

    def explain(images: Any, classes: Any) -> Any:
        asked.append((len(images), set(classes.tolist())))
        return np.zeros(images.shape, np.float32)

    report.write(tmp_path / "report", replace(made, explain=explain))
    assert asked == [(25, {1}), (25, {0})]
    page = report.write(tmp_path / "right", trained(tmp_path, wrong=0))
    assert "explanations.png" not in page.read_text()


def test_a_resumed_training_goes_on_with_its_curves(tmp_path: Path) -> None:
    """The same scalars under the same steps, the graph and the hyperparameters once, and the report's pictures."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with Curves(tmp_path / "run", model, {"seed": 3, "none": None}, done=0) as curves:
        curves.epoch(1, EPOCHS[0])
    with Curves(tmp_path / "run", model, {"seed": 3}, done=1) as curves:
        curves.epoch(2, EPOCHS[1])
        curves.pictures(2, report.write(tmp_path / "report", trained(tmp_path)).parent)
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    assert sorted(events.Tags()["tensors"]) == [
        "_hparams_/session_start_info", "accuracy/test", "accuracy/training", "confusion", "curves", "explanations",
        "loss/test", "loss/training", "mistakes",
    ]  # fmt: skip
    assert [each.step for each in events.Tensors("loss/test")] == [1, 2]
    assert events.Tags()["graph"]
