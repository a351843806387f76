"""The fit: the same seed gives the same bits, and a resumed training ends where an uninterrupted one does."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from horngate_trainer import checkpoint, data
from horngate_trainer.architectures import RECIPES, Recipe, build
from horngate_trainer.checkpoint import Checkpoint
from horngate_trainer.data import Dataset
from horngate_trainer.errors import DataError, ResumeError
from horngate_trainer.training import Progress, Training

IDENTITY = {"seed": 5, "epochs": 3}


@pytest.fixture
def dataset(write_data: Any) -> Dataset:
    """300 easy images."""
    return data.load(str(write_data()))


def train(dataset: Dataset, *, seed: int = 5, epochs: int = 3, architecture: str = "mlp") -> Training:
    """Make a training with a small batch, so that the last batch of an epoch is not full."""
    recipe = Recipe(batch_size=64, learning_rate=RECIPES[architecture].learning_rate)
    return Training(
        lambda: build(architecture, dataset.image_shape, dataset.classes), dataset, recipe, epochs=epochs, seed=seed
    )


def bits(training: Training) -> list[bytes]:
    """Return every variable's bytes."""
    return [array.tobytes() for array in training.state()[1]]


def finish(training: Training) -> list[bytes]:
    """Go through the epochs that are left."""
    for _ in training.run(lambda _: None):
        pass
    return bits(training)


@pytest.mark.parametrize("architecture", ["mlp", "cnn"])
def test_equal_seeds_give_bit_identical_models_and_others_do_not(dataset: Dataset, architecture: str) -> None:
    """Weights, order and dropout all come from the seed."""
    first, second, other = (finish(train(dataset, seed=seed, architecture=architecture)) for seed in (5, 5, 6))
    assert first == second
    assert first != other


def test_the_default_network_is_the_quickstarts() -> None:
    """Flatten, Dense 128 relu, Dropout 0.2, Dense 10 softmax: 101,770 parameters."""
    model = build("mlp", (28, 28), 10)
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == ["Flatten", "Dense", "Dropout", "Dense"]
    assert model.count_params() == 101_770
    assert (model.layers[1].activation.__name__, model.layers[2].rate, model.layers[3].activation.__name__) == (
        "relu", 0.2, "softmax",
    )  # fmt: skip


def test_it_learns_and_reports_what_it_learned(dataset: Dataset) -> None:
    """Easy images are told apart after a few epochs; progress reaches 1 in each and accuracy is a share."""
    training = train(dataset, epochs=15)
    seen: list[Progress] = []
    for _ in training.run(seen.append):
        pass
    assert training.history[-1].test_accuracy > 0.9
    assert [p.share for p in seen if p.epoch == 1][-1] == 1.0
    assert all(0 <= p.accuracy <= 1 and p.loss >= 0 for p in seen)


def test_a_resumed_training_ends_in_the_same_bits_as_an_uninterrupted_one(dataset: Dataset, tmp_path: Path) -> None:
    """Interrupted after the first epoch, restored in a new training, finished: not one weight differs."""
    whole = train(dataset)
    expected = finish(whole)
    interrupted = train(dataset)
    next(interrupted.run(lambda _: None))
    checkpoint.save(tmp_path, Checkpoint(IDENTITY, *interrupted.state()))
    found = checkpoint.load(tmp_path, IDENTITY)
    assert found is not None
    resumed = train(dataset)
    resumed.restore(found)
    assert finish(resumed) == expected
    assert [epoch.loss for epoch in resumed.history] == [epoch.loss for epoch in whole.history]


def test_a_checkpoint_of_other_settings_is_refused_and_says_which_differ(tmp_path: Path) -> None:
    """Going on with other settings would be another training; an unspecified seed takes the old one."""
    checkpoint.save(tmp_path, Checkpoint(IDENTITY, [], [np.zeros(2)]))
    with pytest.raises(ResumeError, match=r"other settings: epochs \(was 3, is 4\)$"):
        checkpoint.load(tmp_path, {"seed": 5, "epochs": 4})
    assert checkpoint.load(tmp_path, {"seed": None, "epochs": 3}) is not None


def test_a_damaged_checkpoint_is_refused_and_none_is_none(tmp_path: Path) -> None:
    """A file that is no checkpoint is an error with a way out."""
    assert checkpoint.load(tmp_path, IDENTITY) is None
    checkpoint.save(tmp_path, Checkpoint(IDENTITY, [], []))
    (tmp_path / checkpoint.FILE).write_bytes(b"junk")
    with pytest.raises(ResumeError, match="train without --resume"):
        checkpoint.load(tmp_path, IDENTITY)
    checkpoint.remove(tmp_path)
    assert not any(tmp_path.iterdir())


def test_images_too_small_for_the_network_are_refused() -> None:
    """The convolutions need some pixels; the message names the flag."""
    with pytest.raises(DataError, match="too small for --architecture cnn"):
        build("cnn", (3, 3), 2)
