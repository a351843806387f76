"""The fit: the same seed gives the same bits, and a resumed training ends where an uninterrupted one does."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from horngate_trainer import checkpoint, data
from horngate_trainer.architectures import build
from horngate_trainer.checkpoint import Checkpoint
from horngate_trainer.data import Dataset
from horngate_trainer.errors import CheckpointError, DataError
from horngate_trainer.evaluation import baseline, evaluate, spread
from horngate_trainer.recipes import RECIPES, Recipe
from horngate_trainer.streamed import Streamed
from horngate_trainer.training import Progress, Training

pytestmark = pytest.mark.slow

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
    abandoned = checkpoint.Keeper(tmp_path)
    abandoned.save(Checkpoint(IDENTITY, *interrupted.state()))
    abandoned.close()
    found = checkpoint.resume(tmp_path, IDENTITY, print)
    assert found is not None
    resumed = train(dataset)
    resumed.restore(found[1])
    assert finish(resumed) == expected
    assert [epoch.loss for epoch in resumed.history] == [epoch.loss for epoch in whole.history]


def test_images_that_are_streamed_end_in_the_same_bits(dataset: Dataset) -> None:
    """Where images are does not change their order, nor what is learnt from them."""

    def streamed(images: Any) -> Streamed:
        return Streamed(lambda place: np.asarray(images[place]), images.shape, b"")

    moved = replace(dataset, x_train=streamed(dataset.x_train), x_test=streamed(dataset.x_test))
    held, read = train(dataset), train(moved)
    assert finish(held) == finish(read)
    assert [epoch.test_loss for epoch in held.history] == [epoch.test_loss for epoch in read.history]
    assert np.array_equal(spread(moved), spread(dataset))


def test_a_checkpoint_of_another_network_is_refused(dataset: Dataset) -> None:
    """It is whole, but its variables are not these; the message says what to do."""
    training = train(dataset)
    history, variables = training.state()
    for odd in (variables[:-1], [*variables[:-1], np.zeros(7)]):
        with pytest.raises(CheckpointError, match="train without --resume"):
            training.restore(Checkpoint(IDENTITY, history, odd))
    with pytest.raises(CheckpointError, match="another version of the trainer"):
        training.restore(Checkpoint(IDENTITY, [{"mood": 1.0}], variables))


def test_images_too_small_for_the_network_are_refused() -> None:
    """The convolutions need some pixels; the message names the flag."""
    with pytest.raises(DataError, match="too small for --architecture cnn"):
        build("cnn", (3, 3), 2)


def test_a_training_that_diverged_is_described_in_valid_json(dataset: Dataset) -> None:
    """A model whose answers are NaN has no loss: null, which JSON has, in manifest and report."""
    rows = len(dataset.x_test)
    answer: dict[str, np.ndarray[Any, Any]] = {
        "classes": np.zeros(rows, np.int64),
        "probabilities": np.full((rows, 3), np.nan, np.float32),
    }
    result = evaluate(lambda _: answer, dataset, "images")
    assert json.loads(json.dumps(result.card(), allow_nan=False))["loss"] is None
    assert json.dumps(baseline(result, dataset), allow_nan=False)
