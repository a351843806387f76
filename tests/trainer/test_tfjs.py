"""TF.js graph models: what is written is what TF.js needs, and computes what the SavedModel does."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tensorflow.core.protobuf import saved_model_pb2

from horngate_trainer import ExportError, export, tfjs
from horngate_trainer.tfjs_operations import OPERATIONS
from horngate_trainer.written import reload
from support.node_packages import answer

pytestmark = pytest.mark.slow


def sequence(shape: tuple[int | None, ...], *rest: Any) -> Any:
    """A model of one input, ``x``, and of the output ``y``."""
    return keras.Sequential([keras.Input(shape, name="x"), *rest, layers.Dense(2, name="y")])


def convolutions() -> Any:
    """What image models are made of."""
    return sequence(
        (12, 12, 3),
        layers.Conv2D(4, 3, padding="same", activation="relu"),
        layers.BatchNormalization(),
        layers.DepthwiseConv2D(3),
        layers.LeakyReLU(),
        layers.MaxPool2D(),
        layers.Conv2DTranspose(3, 2),
        layers.Dropout(0.5),
        layers.GlobalAveragePooling2D(),
    )


def attention() -> Any:
    """What a transformer is made of."""
    x = keras.Input((5, 8), name="x")
    return keras.Model(
        x, layers.LayerNormalization(name="y")(layers.MultiHeadAttention(2, 4)(x, layers.Dense(8, "gelu")(x)))
    )


def several() -> Any:
    """Inputs of several dtypes, in an order that is not the alphabet's, and a name that is no Python name."""
    b = keras.Input((3,), name="b in", dtype="float64")
    a = keras.Input((2,), name="a", dtype="int64")
    return keras.Model(
        [b, a], layers.Concatenate(name="y")([layers.Dense(2)(b), layers.Flatten()(layers.Embedding(9, 3)(a))])
    )


def outputs() -> Any:
    """Outputs whose names JavaScript orders in its own way: 9 before 10, both before a, of which two are the same."""
    hidden = layers.Dense(3)(x := keras.Input((4,), name="x"))
    return keras.Model(x, {"10": layers.Dense(2)(hidden), "a": hidden, "9": layers.Dense(2)(hidden), "b": hidden})


KINDS: dict[str, Callable[[], Any]] = {
    "convolutions": convolutions,
    "attention": attention,
    "several inputs": several,
    "several outputs": outputs,
    "a loop": lambda: sequence((None, 3), layers.LSTM(4, activation="gelu")),
    "half": lambda: keras.Sequential([keras.Input((3,), name="x", dtype="float16"), layers.Dense(2, dtype="float16")]),
}


def noise(version: Path) -> dict[str, np.ndarray]:
    """Four rows of each input, in the SavedModel's dtypes; free axes are four, too."""
    rng = np.random.default_rng(0)
    meta = saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes()).meta_graphs[0]
    made = {}
    for name, info in meta.signature_def["serving_default"].inputs.items():
        shape = [4 if dim.size < 0 else dim.size for dim in info.tensor_shape.dim]
        made[name] = rng.integers(0, 9, shape).astype(tf.as_dtype(info.dtype).as_numpy_dtype)
    return made


def write(model: Any, folder: Path, **options: Any) -> tuple[Path, Path, tfjs.Report]:
    """Export a model, write it for TF.js, and return both folders."""
    version = export(model, folder, name="m", **options)
    return version, folder / "tfjs", tfjs.write(version, folder / "tfjs")


def kinds(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same in TF.js's dtypes."""
    return {name: each.astype(np.float32 if each.dtype.kind == "f" else np.int32) for name, each in tensors.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_tfjs_and_the_files_read_back_answer_as_the_savedmodel_does(
    kind: str, tfjs_client: Path, tmp_path: Path
) -> None:
    """The same outputs by name, whatever the order of names and dtypes, in Node and in TensorFlow."""
    version, folder, _ = write(KINDS[kind](), tmp_path)
    request = noise(version)
    with reload(version) as predict:
        expected = predict(request)
    with tfjs.reload(folder) as predict:
        read_back = predict(request)
    inputs = {
        name: {"data": each.reshape(-1).tolist(), "shape": each.shape, "dtype": each.dtype.name}
        for name, each in kinds(request).items()
    }
    (tmp_path / "inputs.json").write_text(json.dumps(inputs))
    came = answer(tfjs_client / "predict.js", folder, tmp_path / "inputs.json")
    assert set(came) == set(read_back) == set(expected)
    tolerance = 1e-2 if kind == "half" else 1e-5
    for name, want in expected.items():
        got = np.array(came[name]["data"], np.float32).reshape(came[name]["shape"])
        np.testing.assert_allclose(got, want.astype(np.float32), rtol=tolerance, atol=tolerance)
        assert read_back[name].dtype == want.dtype
        np.testing.assert_allclose(read_back[name], want, rtol=tolerance, atol=tolerance)


def test_the_signature_says_what_tfjs_takes_and_returns(tmp_path: Path) -> None:
    """uint8 is int32 there, and so is int64; names and free axes are the SavedModel's; the report says what changed."""
    model = keras.Sequential([keras.Input((4, 4), name="images"), layers.Flatten(), layers.Dense(3, name="scores")])
    _, folder, report = write(model, tmp_path, dtypes={"images": "uint8"}, classes_of="scores")
    content = json.loads((folder / "model.json").read_bytes())
    signature = {
        name: (info["dtype"], [int(dim["size"]) for dim in info["tensorShape"]["dim"]])
        for name, info in {**content["signature"]["inputs"], **content["signature"]["outputs"]}.items()
    }
    assert signature == {
        "images": ("DT_INT32", [-1, 4, 4]),
        "classes": ("DT_INT32", [-1]),
        "scores": ("DT_FLOAT", [-1, 3]),
    }
    assert content["userDefinedMetadata"]["structuredOutputKeys"] == list(content["signature"]["outputs"])
    assert report.dtypes == {"images": "uint8", "classes": "int64"}


def test_weights_are_cut_into_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every shard but the last is full, whatever weight a cut falls into, and together they are read back."""
    monkeypatch.setattr(tfjs, "SHARD_BYTES", 1000)
    version, folder, report = write(sequence((30,), layers.Dense(20)), tmp_path)
    shards = report.files[1:]
    count = math.ceil((31 * 20 + 21 * 2) * 4 / 1000)
    assert shards == [f"group1-shard{number}of{count}.bin" for number in range(1, count + 1)]
    assert {(folder / name).stat().st_size for name in shards[:-1]} == {1000}
    assert sum(path.stat().st_size for path in folder.iterdir()) == report.size
    with reload(version) as predict:
        expected = predict(noise(version))
    with tfjs.reload(folder) as predict:
        np.testing.assert_allclose(predict(noise(version))["y"], expected["y"], rtol=1e-5)


def test_a_version_has_them_in_a_folder_of_its_own(tmp_path: Path) -> None:
    """As a format: beside the SavedModel, where the server looks for them, with what the manifest says of them."""
    version = export(sequence((3,)), tmp_path, name="m")
    format_ = tfjs.TfJs()
    notes = format_.write(version, version / format_.file)
    assert sorted(path.name for path in (version / "assets.extra/tfjs").iterdir()) == [
        "group1-shard1of1.bin", "model.json",
    ]  # fmt: skip
    assert notes["files"] == 2
    assert notes["dtypes"] == {}
    with reload(version) as predict, format_.reload(version / format_.file) as read_back:
        np.testing.assert_allclose(read_back(noise(version))["y"], predict(noise(version))["y"], rtol=1e-5)


def test_equal_models_are_equal_files(tmp_path: Path) -> None:
    """Written twice, every byte is the same."""
    version, folder, report = write(convolutions(), tmp_path)
    tfjs.write(version, tmp_path / "again")
    for name in report.files:
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def special() -> Any:
    """Two functions of mathematics that TF.js does not have."""
    x = keras.Input((3,), name="x")
    return keras.Model(x, layers.Lambda(lambda x: tf.math.igamma(x, x) + tf.math.lgamma(x), name="y")(x))


def vocabulary() -> Any:
    """A table of words."""
    x = keras.Input((1,), name="x", dtype="string")
    return keras.Model(x, layers.StringLookup(vocabulary=["a", "b"], name="y")(x))


@pytest.mark.parametrize(
    ("model", "said"),
    [(special, "TF.js has no Igamma, Lgamma"), (vocabulary, "lookup tables")],
    ids=["operations", "tables"],
)
def test_what_tfjs_lacks_is_refused_by_name(model: Callable[[], Any], said: str, tmp_path: Path) -> None:
    """Operations and tables; no file is written."""
    version = export(model(), tmp_path, name="m")
    with pytest.raises(ExportError, match=said):
        tfjs.write(version, tmp_path / "tfjs")
    assert not (tmp_path / "tfjs").exists()


def test_whole_numbers_that_int32_does_not_have_show_when_the_files_are_read_back(tmp_path: Path) -> None:
    """A product beyond 32 bits is another one in TF.js: what is read back computes as TF.js does, not as TensorFlow."""
    x = keras.Input((1,), name="x", dtype="int64")
    version = export(keras.Model(x, layers.Lambda(lambda x: x * 2**20, name="y")(x)), tmp_path, name="m")
    tfjs.write(version, tmp_path / "tfjs")
    with tfjs.reload(tmp_path / "tfjs") as predict:
        assert predict({"x": np.array([[2**12]])})["y"].tolist() == [[0]]


def test_the_list_of_operations_is_the_packages(tfjs_client: Path, tmp_path: Path) -> None:
    """Of all of TensorFlow's operations, those that @tensorflow/tfjs knows, but for lookup tables."""
    (tmp_path / "names.json").write_text(json.dumps([name for name in dir(tf.raw_ops) if name[0].isupper()]))
    known = answer(tfjs_client / "operations.js", tmp_path / "names.json")
    assert {name for name in known if "Table" not in name} == OPERATIONS
