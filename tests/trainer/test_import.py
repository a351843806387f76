"""``horngate-trainer import``: what it makes of models that were trained elsewhere, and what it says of others."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from horngate_protos.tensorflow_serving_pb2 import PredictionLog, PredictLog
from horngate_trainer import ExportError, cli, export, import_settings, memory
from horngate_trainer.errors import SettingsError
from support.versions import check_whole

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword"),  # Keras, when it saves
]

CUSTOM = """
import keras

class Twice(keras.layers.Layer):
    def call(self, x):
        return 2 * x

@keras.saving.register_keras_serializable("pets")
def square(x):
    return x * x

class Whole(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.dense = keras.layers.Dense(2)

    def call(self, x):
        return self.dense(x)
"""


def chain(*parts: Any, name: str = "rows", **options: Any) -> Any:
    """A Sequential of rows of four numbers."""
    return keras.Sequential([keras.Input((4,), name=name, **options), *parts])


def saved(folder: Path, name: str, *specs: tf.TensorSpec, signature: str = "serving_default") -> Any:
    """Decorate a function that becomes a SavedModel's signature."""

    def save(function: Any) -> None:
        module = tf.Module()
        module.function = tf.function(function, input_signature=specs)
        tf.saved_model.save(module, str(folder / name), signatures={signature: module.function})

    return save


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models as people have them, each in its own way, with examples and a module of its own layers."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "pets_layers.py").write_text(CUSTOM)
    sys.path.insert(0, str(folder))
    pets_layers = importlib.import_module("pets_layers")

    wine = chain(layers.Dense(8, "relu"), layers.Dense(3, "softmax", name="scores"))
    wine.save(folder / "wine.keras")
    wine.save(folder / "wine.h5")
    wine.save_weights(folder / "wine.weights.h5")
    wine.export(str(folder / "wine_saved"), verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "wine_saved"))
    (folder / "wine.tflite").write_bytes(converter.convert())
    fixed = tf.function(lambda x: x * 2.0, input_signature=[tf.TensorSpec([1, 4])]).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([fixed], fixed)
    (folder / "unsigned.tflite").write_bytes(converter.convert())
    text = keras.Input((1,), dtype="string", name="text")
    words = layers.TextVectorization(vocabulary=["good", "bad"], output_sequence_length=3)(text)
    number = keras.Input((2,), name="number")
    keras.Model([number, text], {"left": layers.Dense(2)(number), "right": words}).save(folder / "both.keras")
    chain(pets_layers.Twice(), layers.Dense(2, activation=pets_layers.square)).save(folder / "own.keras")
    chain(pets_layers.Twice()).save(folder / "own.h5")
    chain(layers.Lambda(lambda x: x * 2)).save(folder / "lambda.keras")
    whole = pets_layers.Whole()
    whole(np.ones((1, 4), "f"))
    whole.save(folder / "whole.keras")
    whole.export(str(folder / "whole_saved"), verbose=False)
    saved(folder, "total", tf.TensorSpec([2, 3], tf.float32, "x"))(lambda x: {"y": tf.reduce_sum(x)})
    saved(folder, "lengths", tf.TensorSpec([None], tf.string, "s"))(lambda s: {"n": tf.strings.length(s)})
    saved(folder, "rankless", tf.TensorSpec(None, tf.float32, "x"), signature="go")(lambda x: {"y": x + 1.0})
    tf.saved_model.save(tf.Module(), str(folder / "unsigned"))
    (folder / "damaged").mkdir()
    (folder / "damaged/saved_model.pb").write_bytes(b"\xff" * 9)
    (folder / "junk.keras").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    (folder / "wine.zip").write_bytes((folder / "wine.keras").read_bytes())
    rows = np.random.default_rng(0).random((20, 4), np.float32)
    np.savez(folder / "rows.npz", rows=rows)
    np.savez(folder / "unnamed.npz", rows)
    np.savez(folder / "named.npz", x=rows)
    np.savez(folder / "wide.npz", rows=rows.astype(float))
    np.savez(folder / "shaped.npz", rows=rows[:, :3])
    np.savez(folder / "objects.npz", rows=np.array([{}]))
    np.savez(folder / "x.npz", x=rows)
    np.savez(folder / "both.npz", number=rows[:5, :2], text=np.array([["good"], ["bad"], ["a bad"], [""], ["ü"]]))
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Imports in the folder of models, into a root of the test's own; returns exit code, stdout and stderr."""
    monkeypatch.chdir(made)
    monkeypatch.setenv("HORNGATE_OUTPUT", str(tmp_path))
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each != str(made)])
    monkeypatch.delitem(sys.modules, "pets_layers")

    def imported(*arguments: str) -> tuple[int, str, str]:
        keras.saving.get_custom_objects().clear()
        code = cli.main(["import", *arguments])
        return (code, *capsys.readouterr())

    return imported


def logs(version: Path) -> list[PredictLog]:
    """Read the recorded requests."""
    records = tf.data.TFRecordDataset(str(version / "assets.extra/tf_serving_warmup_requests"))
    return [PredictionLog.FromString(record.numpy()).predict_log for record in records]


def values(tensor: Any) -> np.ndarray:
    """A recorded tensor's float32 values."""
    return np.frombuffer(tensor.tensor_content, np.float32).reshape([each.size for each in tensor.tensor_shape.dim])


BOTH, LITE, GRAPH = {"saved_model.pb", "model.tflite"}, {"model.tflite"}, {"saved_model.pb"}


@pytest.mark.parametrize(
    ("arguments", "kind", "files"),
    [
        ("wine.keras", "keras", BOTH),
        ("wine.h5", "h5", BOTH),
        ("wine_saved --formats savedmodel,tfjs", "savedmodel", GRAPH),
        ("wine.tflite", "tflite", LITE),
        ("unsigned.tflite", "tflite", LITE),
        ("both.keras", "keras", GRAPH),
        ("both.keras --examples both.npz", "keras", GRAPH),
        ("whole_saved", "savedmodel", BOTH),
        ("total", "savedmodel", BOTH),
        ("lengths", "savedmodel", GRAPH),
        ("rankless --examples x.npz", "savedmodel", GRAPH),
        ("lambda.keras --unsafe", "keras", BOTH),
        ("own.keras --custom pets_layers:Twice --custom pets_layers", "keras", BOTH),
        ("own.h5 --custom pets_layers:Twice", "h5", BOTH),
    ],
)
def test_an_import_is_a_version_with_answers_and_a_manifest(
    run: Any, tmp_path: Path, arguments: str, kind: str, files: set[str]
) -> None:
    """Its path is all that is on stdout; where it is from is in the manifest; without examples, that is said."""
    code, out, err = run(*arguments.split())
    model, _, examples = arguments.partition(" --examples ")
    model = model.split()[0]
    version = tmp_path / Path(model).stem / "1"
    assert (code, out) == (0, f"{version}\n"), err
    manifest = check_whole(version)
    digest = manifest["imported"].pop("sha256")
    assert manifest["imported"] == {"from": model, "format": kind, "examples": examples or None}
    assert len(digest) == 64
    assert manifest["deterministic"] is True
    assert {path.name for path in version.iterdir()} & BOTH == files
    recorded = logs(version)
    assert len(recorded) == 3
    assert all(log.HasField("response") and log.response.outputs for log in recorded)
    assert ("examples  none were given" in err) == (not examples)
    assert f"imported  {version}; serve it with: horngate-server --models {tmp_path}" in err


@pytest.mark.parametrize("examples", ["rows.npz", "unnamed.npz"])
def test_examples_are_what_is_recorded_with_the_originals_answers(
    run: Any, made: Path, tmp_path: Path, examples: str
) -> None:
    """By the input's name, or, of a file whose arrays have none, in the inputs' order."""
    assert run("wine.keras", "--examples", examples)[0] == 0
    with np.load(made / "rows.npz") as archive:
        rows = archive["rows"]
    answers = keras.models.load_model(made / "wine.keras").predict(rows, verbose=0)
    first, second, _ = logs(tmp_path / "wine/1")
    np.testing.assert_array_equal(values(first.request.inputs["rows"]), rows[:1])
    np.testing.assert_array_equal(values(second.request.inputs["rows"]), rows[1:8])
    np.testing.assert_allclose(values(second.response.outputs["scores"]), answers[1:8], rtol=1e-4, atol=1e-6)


def test_a_saved_model_is_copied_as_it_stands(run: Any, made: Path, tmp_path: Path) -> None:
    """Every file, bit by bit; what another export recorded is replaced by what is seen now."""
    assert run("wine_saved", "--name", "first")[0] == 0
    assert run(str(tmp_path / "first/1"), "--name", "second", "--formats", "savedmodel")[0] == 0
    for file in ("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"):
        assert (tmp_path / "second/1" / file).read_bytes() == (made / "wine_saved" / file).read_bytes()
    assert not (tmp_path / "second/1/model.tflite").exists()
    assert check_whole(tmp_path / "second/1")["formats"] == {}


def test_a_keras_file_explains_itself(run: Any, tmp_path: Path) -> None:
    """The only output with a number for each class is what is explained."""
    assert run("wine.keras", "--explain", "--examples", "rows.npz")[0] == 0
    assert check_whole(tmp_path / "wine/1")["explanation"]["of"] == "scores"
    signatures = tf.saved_model.load(str(tmp_path / "wine/1")).signatures
    assert set(signatures) == {"serving_default", "explain"}
    assert set(signatures["serving_default"].structured_outputs) == {"scores", "classes"}


def test_a_server_verifies_what_was_made_of_a_tflite_file(run: Any, tmp_path: Path) -> None:
    """It finds the version's recorded answers, and reproduces them without TensorFlow."""
    assert run("wine.tflite", "--examples", "rows.npz")[0] == 0
    done = subprocess.run(
        [sys.executable, "-m", "horngate_server.process.cli", "inspect", tmp_path / "wine/1"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert "verified (40 rows)" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ("none.keras", 2, "cannot read none.keras: No such file"),
        ("junk.keras", 2, "what is in it is not what its name says"),
        ("rows.npz", 2, "is no model that can be imported: expected a .keras or .h5 file"),
        ("wine_saved/saved_model.pb", 2, "is a part of a SavedModel: import its folder, wine_saved"),
        ("wine_saved/variables", 2, "is no model that can be imported: expected"),
        ("wine.zip", 2, "has the content of a .keras file, and Keras goes by the name: rename it"),
        ("wine.weights.h5", 2, "holds weights alone: write the whole model with model.save('model.keras')"),
        ("damaged", 2, "damaged/saved_model.pb is damaged, or of no SavedModel"),
        ("unsigned", 2, "has no signature that could be called: write it with tf.saved_model.save(model, folder, sig"),
        ("rankless", 2, "does not say how many axes its input x has: give rows with --examples"),
        ("own.keras", 2, "'Twice', which is none of Keras's own: say where it is with --custom module:Twice"),
        ("own.h5", 2, "--custom module:Twice"),
        ("own.keras --custom nowhere:Twice", 2, "the module nowhere cannot be imported: ModuleNotFoundError"),
        ("own.keras --custom pets_layers:None_", 2, "has no None_"),
        ("lambda.keras", 2, "carries Python code (a Lambda layer), which could do anything here"),
        ("whole.keras --custom pets_layers:Whole", 1, "model.export('folder'), then `horngate-trainer import folder`"),
        ("wine.tflite --formats savedmodel,litert", 2, "a .tflite file gives litert alone"),
        ("wine.tflite --explain", 2, "--explain is for .keras and .h5 files: a .tflite file is taken as it stands"),
        ("wine_saved --classes-of scores", 2, "--classes-of is for .keras and .h5 files"),
        ("wine_saved --output wine_saved/models", 2, "wine_saved/models lies in the model's own folder, wine_saved"),
        ("wine.keras --formats litert", 2, "the others are written from the savedmodel, name it too"),
        ("rankless --examples x.npz --formats savedmodel,tfjs", 2, "the model has go in its place"),
        ("both.keras --explain", 1, "the model cannot be explained: it needs one input, of rows"),
        ("wine.keras --examples wide.npz", 2, "rows are float64 (20, 4); the input is float32 (None, 4) (.astype("),
        ("wine.keras --examples shaped.npz", 2, "rows are float32 (20, 3); the input is float32 (None, 4)"),
        ("wine.keras --examples named.npz", 2, "examples are for x; the model's inputs are rows"),
        ("wine.keras --examples objects.npz", 2, "--examples: objects.npz: rows cannot be used: it holds pickled"),
        ("wine.keras --examples wine.h5", 2, "--examples: wine.h5 is not an .npz file"),
    ],
)
def test_what_cannot_be_imported_says_what_to_do(
    run: Any, tmp_path: Path, arguments: str, code: int, said: str
) -> None:
    """One line, a true exit code, and nothing on disk."""
    found, out, err = run(*arguments.split())
    assert (found, out) == (code, ""), err
    assert said in err.splitlines()[-1]
    assert not list(tmp_path.rglob("saved_model.pb"))


def test_examples_that_do_not_fit_into_memory_are_not_read(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How large they are is known from their headers."""
    monkeypatch.setattr(memory, "available_bytes", lambda: 300)
    code, _, err = run("wine.keras", "--examples", "rows.npz")
    assert code == 2
    assert "--examples rows.npz needs 0.0 GB of memory, and 0.0 GB are free here: a hundred rows are enough" in err
    assert not list(tmp_path.iterdir())


def test_export_with_a_path_names_the_command(tmp_path: Path) -> None:
    """Whoever has a file learns how it is imported."""
    with pytest.raises(ExportError, match="`horngate-trainer import wine.keras` exports what lies there"):
        export("wine.keras", tmp_path, name="wine")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["some/wine.keras"], "wine"),
        (["models/wine/3"], "wine"),
        (["models/wine/3/"], "wine"),
        (["a.keras", "--name", "b"], "b"),
    ],
)
def test_a_model_is_called_as_its_file_is(arguments: list[str], name: str) -> None:
    """A version's folder has its model's name above it."""
    assert import_settings.parse(arguments, {}).name == name


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        ([], {}, "the following arguments are required: MODEL"),
        (["ä b.keras"], {}, "'ä b' cannot be the model's name: say one with --name"),
        (["m.keras", "--custom", "a/b.py"], {}, "--custom: module:name, or a module's name, is needed, not 'a/b.py'"),
        (["m.keras"], {"HORNGATE_FORMATS": "onnx"}, "--formats (from HORNGATE_FORMATS): any of savedmodel, litert"),
    ],
)
def test_wrong_settings_name_the_flag(arguments: list[str], environment: dict[str, str], said: str) -> None:
    """The message names the flag or variable and what came."""
    with pytest.raises(SettingsError) as refused:
        import_settings.parse(arguments, environment)
    assert said in str(refused.value)


def test_a_trainings_variables_do_no_harm() -> None:
    """HORNGATE_EXPLAIN says from which image; here, that there are explanations."""
    parsed = [import_settings.parse(["m.keras"], {"HORNGATE_EXPLAIN": each}).explain for each in ("mean", "none", "")]
    assert parsed == [True, False, False]
    assert json.dumps(import_settings.parse(["m.keras"], {"HORNGATE_CUSTOM": "a:b,c"}).custom) == '["a:b", "c"]'
