"""Explanations: the signature that says which parts of an input speak for a class."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from horngate_protos.tensorflow_serving_pb2 import PredictionLog
from horngate_trainer import ExportError, Tolerance, explaining, export
from horngate_trainer.explaining import OUTPUTS, SIGNATURE
from horngate_trainer.golden import FILE
from horngate_trainer.written import reload

pytestmark = pytest.mark.slow

IMAGES = np.random.default_rng(3).integers(0, 256, (40, 6, 6), np.uint8)


def classifier() -> Any:
    """A tiny convolutional one, the same each time."""
    keras.utils.set_random_seed(5)
    return keras.Sequential(
        [
            keras.Input((6, 6), name="images"),
            layers.Reshape((6, 6, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(4, activation="softmax", name="probabilities"),
        ],
        name="tiny",
    )


def exported(root: Path, model: Any = None, **options: Any) -> Path:
    """It, exported with explanations."""
    chosen = {
        "examples": IMAGES, "dtypes": {"images": "uint8"}, "divisors": {"images": 255}, "classes_of": "probabilities",
        "explain": True, **options,
    }  # fmt: skip
    return export(model or classifier(), root, name="digits", **chosen)


def explained(version: Path, images: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    """What the written signature answers."""
    with reload(version) as answer:
        return answer({"images": images, "target": targets}, SIGNATURE)


def recorded(version: Path) -> list[Any]:
    """The requests of the warm-up file, with their answers."""
    return [PredictionLog.FromString(each.numpy()).predict_log for each in tf.data.TFRecordDataset(str(version / FILE))]


def test_the_attributions_of_a_row_sum_to_what_its_score_gains_over_the_baseline(tmp_path: Path) -> None:
    """Each pixel's share has the input's shape; together they miss the gain by no more than the gap says."""
    version = exported(tmp_path)
    got = explained(version, IMAGES, np.full(40, -1))
    assert sorted(got) == sorted(OUTPUTS)
    assert got["attributions"].shape == (40, 6, 6)
    assert {name: str(array.dtype) for name, array in got.items() if array.dtype != np.float32} == {"target": "int64"}
    missed = got["score"] - got["baseline_score"] - got["attributions"].sum((1, 2))
    np.testing.assert_allclose(np.abs(missed), got["gap"], atol=1e-6)
    card = json.loads((version / "assets.extra" / "horngate.json").read_text())["explanation"]
    assert got["gap"].max() <= card["gap"]["tolerance"]
    assert (card["baseline"], card["of"], card["gap"]["rows"]) == ("black", "probabilities", 40)


def test_a_target_is_the_class_asked_for_or_the_predicted_one(tmp_path: Path) -> None:
    """-1 stands for the class that is predicted; another number for itself; one that no class has is refused."""
    version = exported(tmp_path)
    with reload(version) as answer:
        predicted = answer({"images": IMAGES[:3]})
        got = answer({"images": IMAGES[:3], "target": np.array([-1, 2, 0])}, SIGNATURE)
        np.testing.assert_array_equal(got["target"], [predicted["classes"][0], 2, 0])
        np.testing.assert_allclose(got["score"], predicted["probabilities"][range(3), got["target"]], atol=1e-6)
        for wrong in (4, -2):
            with pytest.raises(tf.errors.InvalidArgumentError, match="expected the number of a class"):
                answer({"images": IMAGES[:1], "target": np.array([wrong])}, SIGNATURE)


def test_a_linear_score_is_explained_exactly(tmp_path: Path) -> None:
    """Of weights alone, a pixel's share is its weight times how far it is from the baseline, whichever that is."""
    model = keras.Sequential([keras.Input((3,), name="x"), layers.Dense(2, activation="linear", name="scores")])
    (weights, _), rows = model.get_weights(), np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    for baseline, start in (("black", 0.0), ("white", 1.0), ("mean", rows.mean(0)), (np.array([1, 2, 3]), [1, 2, 3])):
        version = export(
            model, tmp_path, name="linear", examples=rows, classes_of="scores", explain=True, baseline=baseline
        )
        with reload(version) as answer:
            got = answer({"x": rows, "target": np.ones(8, np.int64)}, SIGNATURE)
        np.testing.assert_allclose(got["attributions"], (rows - start) * weights[:, 1], atol=1e-5)
        assert got["gap"].max() < 1e-5


def test_the_same_rows_are_explained_the_same_whatever_their_neighbours(tmp_path: Path) -> None:
    """Bit for bit when they are asked again, and nearly so alone and among others."""
    version = exported(tmp_path)
    first, second = (explained(version, IMAGES, np.full(40, -1)) for _ in range(2))
    alone = explained(version, IMAGES[7:8], np.full(1, -1))
    for name in OUTPUTS:
        np.testing.assert_array_equal(first[name], second[name])
        np.testing.assert_allclose(alone[name][0], first[name][7], atol=1e-5)


def test_explanations_are_recorded_beside_the_answers(tmp_path: Path) -> None:
    """The warm-up file has requests of both signatures, with what they must give."""
    version = exported(tmp_path)
    logs = recorded(version)
    names = [log.request.model_spec.signature_name for log in logs]
    assert (names.count("serving_default"), names.count(SIGNATURE)) == (3, 2)
    assert set(logs[-1].request.inputs) == {"images", "target"}
    assert set(logs[-1].response.outputs) == set(OUTPUTS)


def test_equal_models_are_equal_files_with_explanations_too(tmp_path: Path) -> None:
    """Gradients and loops have numbers in their names, which are not the process's."""
    model = classifier()
    files = [(exported(tmp_path, model) / "saved_model.pb").read_bytes() for _ in range(2)]
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"classes_of": None}, "classes_of says of no output"),
        ({"baseline": "grey"}, "one of black, white, mean, or a row"),
        ({"baseline": np.zeros((5, 5))}, r"expected a row of images, \(6, 6\)"),
        ({"baseline": "mean", "examples": None}, "there are no examples"),
    ],
    ids=["no classes", "no such baseline", "a row that does not fit", "no examples"],
)
def test_what_cannot_be_explained_is_refused_with_the_reason(
    tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    """Before anything is written."""
    with pytest.raises(ExportError, match=said):
        exported(tmp_path, **options)
    assert not list(tmp_path.glob("*/[0-9]*"))


def test_a_model_without_gradients_is_refused(tmp_path: Path) -> None:
    """An embedding looks numbers up, which no small step changes."""
    model = keras.Sequential(
        [keras.Input((4,), dtype="int32", name="words"), layers.Embedding(9, 3), layers.Flatten(),
         layers.Dense(2, activation="softmax", name="probabilities")]
    )  # fmt: skip
    with pytest.raises(ExportError, match="is int32, which has no gradients"):
        export(model, tmp_path, name="words", classes_of="probabilities", explain=True)


def test_explanations_that_are_all_rounding_are_recorded_without_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Another order of additions would give others: no server could check them, and the model's answers are right."""
    monkeypatch.setattr(explaining, "STABLE", Tolerance(atol=-1.0, rtol=0.0))
    logs = recorded(exported(tmp_path))
    answered = {log.request.model_spec.signature_name: bool(log.response.outputs) for log in logs}
    assert answered == {"serving_default": True, SIGNATURE: False}
    assert "depend on how numbers are rounded" in caplog.text
