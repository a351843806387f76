"""What a version holds beside its SavedModel: written from it, proved by running it, described in the manifest."""

import logging
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from horngate_trainer import ExportError, export
from horngate_trainer.litert import LiteRT
from support.versions import check_whole

pytestmark = pytest.mark.slow


def dense() -> Any:
    """A model that every format holds."""
    return keras.Sequential([keras.Input((4,), name="x"), layers.Dense(64), layers.Dense(3, activation="softmax")])


def recurrent() -> Any:
    """A model that LiteRT does not hold: its batch is free."""
    return keras.Sequential([keras.Input((5, 2), name="x"), layers.LSTM(3)])


def test_a_version_has_litert_s_file_which_answers_as_the_model_does(tmp_path: Path) -> None:
    """Unasked; the manifest has its digest, and says how near it came and what a server is to allow."""
    model = dense()
    version = export(model, tmp_path, name="m")
    manifest = check_whole(version)
    assert "model.tflite" in manifest["files"]
    about = manifest["formats"]["litert"]
    assert about["bytes"] == (version / "model.tflite").stat().st_size
    assert (about["rows"], about["argmax_agreement"], about["quantization"]) == (40, 1.0, "none")
    assert 0 <= about["largest_difference"] < 1e-6
    assert about["tolerance"] == manifest["tolerance"]
    given = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    with LiteRT().reload(version / "model.tflite") as predict:
        [answer] = predict({"x": given}).values()
    np.testing.assert_allclose(answer, model.predict_on_batch(given), atol=1e-6)


def test_what_cannot_hold_the_model_is_left_out_with_the_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In the manifest and in a warning; the version is published without it."""
    version = export(recurrent(), tmp_path, name="m")
    manifest = check_whole(version)
    assert "model.tflite" not in manifest["files"]
    assert manifest["formats"]["litert"]["left_out"].startswith(
        "LiteRT cannot hold it: the operation TensorListReserve requires element_shape to be static"
    )
    [record] = caplog.record_tuples
    assert record[1] == logging.WARNING
    assert f"{version}: no model.tflite: LiteRT cannot hold it" in record[2]


def test_a_format_that_was_asked_for_by_name_is_an_error_where_it_cannot_hold_the_model(tmp_path: Path) -> None:
    """Nothing is published, and nothing is left behind."""
    with pytest.raises(ExportError, match=r"no model\.tflite: LiteRT cannot hold it"):
        export(recurrent(), tmp_path, name="m", formats=["savedmodel", "litert"])
    assert not list((tmp_path / "m").glob("[0-9]*"))


def test_only_what_was_asked_for_is_there(tmp_path: Path) -> None:
    """The SavedModel alone; or all of them."""
    assert check_whole(export(dense(), tmp_path, name="m", formats=["savedmodel"]))["formats"] == {}
    manifest = check_whole(export(dense(), tmp_path, name="m", formats=["savedmodel", "litert", "tfjs"]))
    assert list(manifest["formats"]) == ["litert", "tfjs"]
    assert manifest["formats"]["tfjs"]["argmax_agreement"] == 1.0
    assert {"model.tflite", "assets.extra/tfjs/model.json"} <= manifest["files"].keys()


@pytest.mark.parametrize("quantize", ["dynamic", "float16", "int8"])
def test_a_quantized_file_is_smaller_and_says_what_that_costs(tmp_path: Path, quantize: str) -> None:
    """Sizes of both, how far its answers are off, and a tolerance of its own."""
    model = keras.Sequential([keras.Input((64,), name="x"), layers.Dense(512, activation="relu"), layers.Dense(3)])
    rows = np.random.default_rng(0).normal(size=(50, 64)).astype(np.float32)
    about = check_whole(export(model, tmp_path, name="m", examples=rows, quantize=quantize))["formats"]["litert"]
    assert about["quantization"] == quantize
    assert about["bytes"] < 0.6 * about["float_bytes"]
    assert 0 < about["largest_difference"] < 0.5
    assert about["tolerance"]["atol"] >= about["largest_difference"]
    assert about["tolerance"]["argmax_agreement"] <= about["argmax_agreement"]


def test_a_judge_sees_every_format_before_it_is_published(tmp_path: Path) -> None:
    """What it returns joins the manifest; what it raises ends the export."""
    version = export(dense(), tmp_path, name="m", describe_format=lambda name, _: {"seen": name})
    assert check_whole(version)["formats"]["litert"]["seen"] == "litert"

    def refuse(*_: object) -> dict[str, Any]:
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        export(dense(), tmp_path, name="n", describe_format=refuse)
    assert not list((tmp_path / "n").glob("[0-9]*"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"formats": "litert"}, "formats must be 'savedmodel' and any of litert, tfjs, not 'litert'"),
        ({"formats": ["savedmodel", "onnx"]}, "formats must be 'savedmodel' and any of"),
        ({"quantize": "int4"}, "quantize must be one of none, dynamic, float16, int8, not 'int4'"),
        ({"quantize": "int8"}, "needs real rows"),
        ({"quantize": "int8", "formats": ["savedmodel"]}, "is for the format litert"),
    ],
)
def test_what_is_asked_for_wrongly_is_said(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    """Before anything is written."""
    with pytest.raises(ExportError, match=said):
        export(dense(), tmp_path, name="m", **options)
    assert not (tmp_path / "m").exists()
