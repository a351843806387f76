"""Exports of models that people really have: random ones, free axes, strings, odd names, odd arguments."""

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from horngate_protos.datatypes import BY_TENSORFLOW
from horngate_protos.tensorflow_serving_pb2 import PredictionLog, PredictLog
from horngate_trainer import ExportError, VerificationError, export
from horngate_trainer.savedmodel import Servable
from horngate_trainer.written import reload
from support.versions import check_whole

pytestmark = pytest.mark.slow


class Sampling(layers.Layer):  # type: ignore[misc] # Keras publishes no types
    """The random layer of a variational autoencoder, with a seed of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.seed = keras.random.SeedGenerator(1)

    def call(self, x: Any) -> Any:
        return x + keras.random.normal(ops.shape(x), seed=self.seed)


class GloballyRandom(layers.Layer):  # type: ignore[misc] # Keras publishes no types
    """Takes its random numbers from the process's own seed, which is no variable of the model."""

    def call(self, x: Any) -> Any:
        return x + keras.random.normal(ops.shape(x))


class NativelyRandom(layers.Layer):  # type: ignore[misc] # Keras publishes no types
    """Takes its random numbers from TensorFlow; there is no variable at all."""

    def call(self, x: Any) -> Any:
        return x + tf.random.normal(tf.shape(x))

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


class AlwaysDropping(layers.Layer):  # type: ignore[misc] # Keras publishes no types
    """Dropout at inference, as for Monte Carlo estimates."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = layers.Dropout(0.5)

    def call(self, x: Any) -> Any:
        return self.dropout(x, training=True)


class Counter(layers.Layer):  # type: ignore[misc] # Keras publishes no types
    """Adds how often it was asked."""

    def build(self, _: Any) -> None:
        self.count = self.add_weight(name="count", shape=(), initializer="zeros", trainable=False)

    def call(self, x: Any) -> Any:
        self.count.assign_add(1.0)
        return x + self.count


class Anchors(layers.Layer):  # type: ignore[misc] # Keras publishes no types
    """Answers the same whatever it is asked."""

    def call(self, _: Any) -> Any:
        return ops.convert_to_tensor(np.arange(6, dtype="f").reshape(3, 2))

    def compute_output_shape(self, _: Any) -> Any:
        return (3, 2)


class InPairs(layers.Layer):  # type: ignore[misc] # Keras publishes no types
    """Takes an even number of rows only."""

    def call(self, x: Any) -> Any:
        return ops.reshape(ops.reshape(x, (-1, 2, 3)) * 2.0, (-1, 3))


def chain(given: Any, *after: Any) -> Any:
    """A Sequential."""
    return keras.Sequential([given, *after])


def outputs(function: Callable[..., Any], *inputs: Any) -> Any:
    """A functional model."""
    return keras.Model(list(inputs) if len(inputs) > 1 else inputs[0], function(*inputs))


def x(*shape: int | None, **options: Any) -> Any:
    """An input called x."""
    return keras.Input(shape, name="x", **options)


def records(version: Path) -> list[PredictLog]:
    """Read the warm-up file."""
    dataset = tf.data.TFRecordDataset(str(version / "assets.extra/tf_serving_warmup_requests"))
    return [PredictionLog.FromString(record.numpy()).predict_log for record in dataset]


def shape(tensor: Any) -> list[int]:
    """Return a recorded tensor's shape."""
    return [dim.size for dim in tensor.tensor_shape.dim]


@pytest.mark.parametrize(
    ("layer", "said"),
    [(Sampling, "random"), (GloballyRandom, "random"), (NativelyRandom, "random"), (AlwaysDropping, "random"),
     (Counter, "remembers")],
)  # fmt: skip
def test_a_model_without_one_right_answer_is_exported_without_answers_and_that_is_said(
    layer: type, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests alone are recorded, the manifest and a warning say why; a server has nothing to hold it against."""
    version = export(chain(x(3), layer()), tmp_path, name="m")
    assert check_whole(version)["deterministic"] is False
    assert [shape(log.request.inputs["x"]) for log in records(version)] == [[1, 3], [7, 3], [32, 3]]
    assert not any(log.HasField("response") for log in records(version))
    ((name, level, text),) = caplog.record_tuples
    assert (name, level) == ("horngate_trainer.exporter", logging.WARNING)
    assert text.startswith(f"{version}: ")
    assert said in text
    assert "recorded without answers" in text


def test_an_export_does_not_change_what_the_model_remembers(tmp_path: Path) -> None:
    """Neither the model that goes on being used, nor the one on disk: both begin where they were."""
    model = chain(x(1), Counter())
    export(model, tmp_path, name="m")
    with reload(export(model, tmp_path, name="m")) as predict:
        assert predict({"x": np.zeros((1, 1), "f")})[model.layers[-1].name].tolist() == [[1.0]]
    assert np.asarray(model.predict_on_batch(np.zeros((1, 1)))).tolist() == [[1.0]]
    recurrent = chain(x(4, 3, batch_size=2), layers.GRU(2, stateful=True))
    first, second = (export(recurrent, tmp_path, name="r") for _ in range(2))
    weights = "variables/variables.data-00000-of-00001"
    assert (first / weights).read_bytes() == (second / weights).read_bytes()


@pytest.mark.parametrize(
    ("model", "recorded"),
    [
        pytest.param(lambda: chain(x(None, 4), layers.Conv1D(3, 5)), [1, 32, 4], id="conv1d"),
        pytest.param(
            lambda: chain(x(None, None, 3), *(layers.Conv2D(2, 3, 2) for _ in range(5))), [1, 64, 64, 3], id="deep"
        ),
        pytest.param(lambda: chain(x(None, 2), layers.Reshape((128, 4))), [1, 256, 2], id="one-size"),
        pytest.param(lambda: chain(x(None, dtype="int32"), layers.Embedding(3, 4)), [1, 32], id="small-vocabulary"),
    ],
)  # fmt: skip
def test_free_axes_get_a_length_that_the_model_accepts(model: Any, recorded: list[int], tmp_path: Path) -> None:
    """Lengths are tried until one is computed without an error and without NaN."""
    version = export(model(), tmp_path, name="m")
    assert shape(records(version)[0].request.inputs["x"]) == recorded
    assert check_whole(version)["deterministic"] is True


def test_a_model_that_accepts_no_noise_asks_for_examples(tmp_path: Path) -> None:
    """The error names the option, and has the model's own words."""
    model = chain(x(None, 2), layers.Reshape((100, 2)))
    with pytest.raises(
        ExportError, match=r"give some rows as examples=... or --examples FILE.npz \(it says: .*reshape"
    ):
        export(model, tmp_path, name="m")
    version = export(model, tmp_path, name="m", examples=np.ones((4, 100, 2), "f"))
    assert [shape(log.request.inputs["x"])[0] for log in records(version)] == [1, 7, 32]
    with pytest.raises(ExportError, match="does not take the examples: .*reshape"):
        export(model, tmp_path, name="m", examples=np.ones((4, 99, 2), "f"))


def test_requests_are_recorded_at_numbers_of_rows_that_the_model_takes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One that takes pairs is recorded with 32 rows; a batch of fixed size as it is; and it is said."""
    version = export(outputs(InPairs(), x(3)), tmp_path, name="pairs")
    assert [shape(log.request.inputs["x"]) for log in records(version)] == [[32, 3]]
    assert "some requests are refused" in caplog.text
    assert "one row alone is refused" in caplog.text
    version = export(chain(x(3, batch_size=2), layers.Dense(2, name="y")), tmp_path, name="fixed")
    assert [shape(log.response.outputs["y"]) for log in records(version)] == [[2, 2]] * 3
    version = export(outputs(lambda a, b: a * b, x(3), keras.Input(batch_shape=(), name="factor")), tmp_path, name="s")
    assert [shape(log.request.inputs["factor"]) for log in records(version)] == [[], [], []]


def test_answers_that_are_nan_equal_themselves_and_are_mentioned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Values that give NaN are used only where no others were found; the original's must be in the same places."""
    version = export(outputs(lambda a: {"y": ops.log(a)}, x(3)), tmp_path, name="m")  # of uniform noise, a number
    assert np.isfinite(np.frombuffer(records(version)[0].response.outputs["y"].tensor_content, "f")).all()
    assert not caplog.text
    version = export(outputs(lambda a: {"y": ops.log(-ops.abs(a) - 1)}, x(3)), tmp_path, name="m")
    assert np.isnan(np.frombuffer(records(version)[0].response.outputs["y"].tensor_content, "f")).all()
    assert "some of its answers are NaN" in caplog.text


def test_nan_in_one_answer_only_is_told_as_a_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message has the two values, which are not the same."""
    monkeypatch.setattr(Servable, "predict", lambda _, given: {"y": np.full(given["x"].shape, np.nan, "f")})
    with pytest.raises(VerificationError, match=r"y\[0, 0\] is 0.1257.* but must be nan"):
        export(chain(x(3), layers.Identity(name="y")), tmp_path, name="m")


@pytest.mark.parametrize("name", ["a b", "größe", "class", "self", "_x", "in:put", "a-b", "name", "training"])
def test_an_input_may_have_any_name(name: str, tmp_path: Path) -> None:
    """What TensorFlow's Python does not take as a name is the name in the signature all the same."""
    version = export(chain(keras.Input((3,), name=name), layers.Dense(2, name="y")), tmp_path, name="m")
    assert list(records(version)[0].request.inputs) == [name]
    with reload(version) as predict:
        assert predict({name: np.zeros((2, 3), "f")})["y"].shape == (2, 2)
    assert tf.saved_model.load(str(version)).signatures["serving_default"] is not None


@pytest.mark.parametrize(
    ("model", "datatypes"),
    [
        pytest.param(
            lambda: chain(x(3, dtype="bfloat16"), layers.Dense(2, dtype="bfloat16")), ("BF16", "BF16"), id="bf16"
        ),
        pytest.param(lambda: chain(x(3), layers.Dense(2, dtype="mixed_float16")), ("FP32", "FP16"), id="fp16"),
        pytest.param(
            lambda: chain(x(1, dtype="string"), layers.TextVectorization(vocabulary=["a"], output_sequence_length=2)),
            ("BYTES", "INT64"), id="string-in",
        ),
        pytest.param(
            lambda: chain(x(1, dtype="int64"), layers.StringLookup(vocabulary=["a", "b"], invert=True)),
            ("INT64", "BYTES"), id="string-out",
        ),
    ],
)  # fmt: skip
def test_every_dtype_is_exported_recorded_and_verified(
    model: Any, datatypes: tuple[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Half precision and strings too, both ways; lookup tables go along."""
    version = export(model(), tmp_path, name="m", formats=["savedmodel"])
    log = records(version)[2]
    ((given,), (answer,)) = log.request.inputs.values(), log.response.outputs.values()
    assert (BY_TENSORFLOW[given.dtype].name, BY_TENSORFLOW[answer.dtype].name) == datatypes
    for tensor in (given, answer):
        datatype, size = BY_TENSORFLOW[tensor.dtype], int(np.prod(shape(tensor)))
        held = (
            len(tensor.string_val) if datatype.name == "BYTES" else len(tensor.tensor_content) / datatype.numpy.itemsize
        )
        assert held == size > 0
    assert not caplog.text


def test_outputs_without_rows_are_recorded_and_a_constant_does_no_harm(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A number for the whole batch makes rows depend on each other; what is always the same does not."""
    version = export(outputs(lambda a: {"y": a * 2.0, "anchors": Anchors()(a)}, x(3)), tmp_path, name="m")
    assert [shape(log.response.outputs["anchors"]) for log in records(version)] == [[3, 2]] * 3
    assert check_whole(version)["independent_rows"] is True
    assert not caplog.text
    version = export(outputs(lambda a: {"y": a * 2.0, "loss": ops.mean(a)}, x(3)), tmp_path, name="m")
    assert [shape(log.response.outputs["loss"]) for log in records(version)] == [[], [], []]
    assert check_whole(version)["independent_rows"] is False
    assert "rows are not independent: loss " in caplog.text


def test_rows_that_look_at_each_other_are_told_of_and_verified(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A softmax over the batch has one right answer to each request, and not one to each row."""
    version = export(outputs(lambda a: {"share": ops.softmax(a, axis=0)}, x(2)), tmp_path, name="m")
    manifest = check_whole(version)
    assert (manifest["deterministic"], manifest["independent_rows"], "batching" in manifest) == (True, False, False)
    assert all(log.HasField("response") for log in records(version))
    assert "rows are not independent: share " in caplog.text


@pytest.mark.parametrize("batching", ["rows", "whole"])
def test_how_it_is_to_be_batched_is_in_the_manifest(
    batching: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As a server reads it; nothing there means that the server finds out. What was seen to be wrong is said."""
    model = outputs(lambda a: {"share": ops.softmax(a, axis=0)}, x(2))
    manifest = check_whole(export(model, tmp_path, name="m", batching=batching, lengths="apart"))
    assert (manifest["batching"], manifest["lengths"]) == (batching, "apart")
    assert ("batching='rows' tells servers to mix its requests nevertheless" in caplog.text) == (batching == "rows")
    with pytest.raises(ExportError, match="batching must be one of auto, rows, whole, not 'row'"):
        export(model, tmp_path, name="m", batching="row")


def test_what_is_described_becomes_json(tmp_path: Path) -> None:
    """NumPy's numbers are numbers, a loss that is NaN is null, and what JSON lacks is a clear error."""
    model = chain(x(2), layers.Identity())
    told = {"evaluation": {"loss": np.float32(np.nan), "best": np.float32(0.5), "each": np.array([1, 2])}}
    version = export(model, tmp_path, name="m", describe=lambda _: told)
    assert check_whole(version)["evaluation"] == {"loss": None, "best": 0.5, "each": [1, 2]}
    with pytest.raises(ExportError, match="describe must return a dict"):
        export(model, tmp_path, name="m", describe=lambda _: [1])  # type: ignore[arg-type,return-value] # the mistake
    with pytest.raises(ExportError, match="describe returned a set, which JSON does not have"):
        export(model, tmp_path, name="m", describe=lambda _: {"data": {1, 2}})


@pytest.mark.parametrize(
    "examples",
    [
        pytest.param(np.ones((5, 2), "f"), id="array"),
        pytest.param([np.ones((5, 2), "f")], id="list-of-arrays"),
        pytest.param((np.ones((5, 2), "f"),), id="tuple"),
        pytest.param([[1, 2], [3.5, 4]], id="rows"),
        pytest.param([[1, 2]], id="one-row"),
        pytest.param({"x": [[1, 2], [3, 4]]}, id="dict-of-lists"),
        pytest.param(tf.ones((5, 2)), id="tensor"),
    ],
)
def test_examples_need_not_be_a_dict(examples: Any, tmp_path: Path) -> None:
    """An array for the only input, a list in the order of inputs, or rows as lists."""
    version = export(chain(x(2), layers.Identity(name="y")), tmp_path, name="m", examples=examples)
    assert [shape(log.request.inputs["x"]) for log in records(version)] == [[1, 2], [7, 2], [32, 2]]


def test_texts_and_several_inputs_are_examples_too(tmp_path: Path) -> None:
    """Text as str or bytes; a list has an array for each input."""
    text = chain(x(1, dtype="string"), layers.Hashing(5))
    version = export(text, tmp_path, name="m", examples=[["süß"], [b"\xff"]])
    assert list(records(version)[0].request.inputs["x"].string_val) == ["süß".encode()]
    assert list(records(version)[1].request.inputs["x"].string_val)[:2] == [b"\xff", "süß".encode()]
    both = outputs(lambda a, b: a + b, x(2), keras.Input((2,), name="b"))
    version = export(both, tmp_path, name="m", examples=[np.zeros((3, 2), "f"), np.ones((3, 2), "f")])
    assert np.frombuffer(records(version)[0].request.inputs["b"].tensor_content, "f").tolist() == [1, 1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param({"model": "model.keras"}, "a Keras model is needed, not the path 'model.keras'", id="path"),
        pytest.param({"model": None}, "a Keras model is needed, not a NoneType", id="none"),
        pytest.param({"model": keras.Sequential([layers.Dense(2)])}, "declares no inputs", id="unbuilt"),
        pytest.param({"name": None}, "must be a plain folder name, not None", id="name"),
        pytest.param({"name": "n" * 129}, "plain folder name", id="long-name"),
        pytest.param({"root": 3}, "the folder of models must be a path, not 3", id="root"),
        pytest.param({"dtypes": {"x": "uint7"}}, r"dtypes\['x'\] must be a dtype .* not 'uint7'", id="dtype"),
        pytest.param({"dtypes": {"x": "string"}}, "cannot be computed here: Cast string to float", id="cast"),
        pytest.param({"dtypes": "uint8"}, "dtypes must be a dict", id="dtypes"),
        pytest.param({"divisors": {"x": 0}}, r"divisors\['x'\] must be a number other than zero, not 0", id="zero"),
        pytest.param({"divisors": {"x": "a"}}, "must be a number other than zero, not 'a'", id="divisor"),
        pytest.param({"tolerance": 1e-3}, "tolerance must be a horngate_trainer.Tolerance, not 0.001", id="tolerance"),
        pytest.param({"classes_of": "loss"}, "classes_of='loss' cannot be added", id="classes"),
        pytest.param({"examples": "text"}, "examples for x are no float32 array", id="text-for-numbers"),
        pytest.param({"examples": 3.0}, "at least one", id="no-rows"),
        pytest.param({"examples": [[1, 2], [3]]}, "examples for x are no float32 array", id="ragged"),
        pytest.param({"examples": np.ones((2, 2))}, r"are float64 \(2, 2\); the input is float32", id="kind"),
        pytest.param({"examples": {"y": 1}}, "examples are for y; the model's inputs are x", id="other-name"),
    ],
)  # fmt: skip
def test_odd_arguments_get_a_clear_error(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    """Never another library's TypeError; nothing is published."""
    model = outputs(lambda a: {"y": a * 2.0, "loss": ops.mean(a)}, x(2))
    asked = {"model": model, "root": tmp_path, "name": "m", **options}
    with pytest.raises(ExportError, match=said):
        export(asked.pop("model"), asked.pop("root"), **asked)
    assert not list(tmp_path.rglob("saved_model.pb"))


def test_a_name_that_keras_cannot_trace_is_told_in_its_words(tmp_path: Path) -> None:
    """An output layer with a blank in its name: the one line that says what is wrong, without colours and frames."""
    with pytest.raises(ExportError, match="^the model cannot be computed as a graph: 'a b' is not a valid scope name"):
        export(chain(x(2), layers.Dense(2, name="a b")), tmp_path, name="m")


def test_large_rows_are_recorded_in_few(tmp_path: Path) -> None:
    """Many of them would fill the memory while they are tried, and weigh more than the weights in every version."""
    pooled = layers.GlobalAveragePooling2D
    version = export(chain(x(224, 224, 3), pooled()), tmp_path, name="m")
    assert [shape(log.request.inputs["x"])[0] for log in records(version)] == [1, 7]
    version = export(chain(x(1500, 1500, 1), pooled()), tmp_path, name="m", examples=np.zeros((5, 1500, 1500, 1), "f"))
    assert [shape(log.request.inputs["x"])[0] for log in records(version)] == [1, 2]


def test_operations_with_a_gradient_of_their_own_are_written_and_read_again(tmp_path: Path) -> None:
    """As quantised layers have them: TensorFlow's own loader finds each gradient by the name that it was given."""
    model = chain(x(16), layers.Dense(4), layers.Dense(2, name="y"))
    with warnings.catch_warnings(action="ignore"):
        model.quantize("int8")
    first, second = (export(model, tmp_path, name="m") for _ in range(2))
    assert (first / "saved_model.pb").read_bytes() == (second / "saved_model.pb").read_bytes()
    served = tf.saved_model.load(str(first)).signatures["serving_default"]
    given = np.random.default_rng(0).random((3, 16), np.float32)
    np.testing.assert_allclose(served(x=given)["y"], model(given), rtol=1e-4, atol=1e-5)


class CallsPython(layers.Layer):  # type: ignore[misc] # Keras publishes no types
    """Works only where this very process is."""

    def call(self, x: Any) -> Any:
        return tf.ensure_shape(tf.numpy_function(lambda value: value, [x], tf.float32), x.shape)

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


def test_a_model_that_calls_python_is_refused(tmp_path: Path) -> None:
    """It would be verified here, where the function is, and fail in every server."""
    with pytest.raises(ExportError, match=r"calls a Python function \(PyFunc in its graph\), which no server has"):
        export(chain(x(3), CallsPython()), tmp_path, name="m")


class Lookup(layers.Layer):  # type: ignore[misc] # Keras publishes no types
    """Has a table of its own, not where Keras's layers have theirs."""

    def __init__(self) -> None:
        super().__init__()
        prices = tf.lookup.KeyValueTensorInitializer([0, 1], [30, 40])
        self.tables = {"price": [tf.lookup.StaticHashTable(prices, 0)]}

    def call(self, x: Any) -> Any:
        return self.tables["price"][0].lookup(x)

    def compute_output_spec(self, x: Any) -> Any:
        return keras.KerasTensor(x.shape, "int32")


def test_tables_go_along_wherever_a_layer_keeps_them(tmp_path: Path) -> None:
    """In a list in a dict, too: the written model looks up what the Keras model does."""
    version = export(chain(x(3, dtype="int32"), Lookup()), tmp_path, name="m")
    (answer,) = records(version)[0].response.outputs.values()
    assert set(np.frombuffer(answer.tensor_content, np.int32)) <= {30, 40}
