"""Writes small SavedModels with TensorFlow, for tests of the server. Runs as a script: python make_models.py ROOT."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf

NUMERIC = [
    "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64",
    "float16", "bfloat16", "float32", "float64",
]  # fmt: skip


def save(path: Path, function: Callable[..., object], **inputs: tf.TensorSpec) -> None:
    """Save one function as the serving_default signature of a SavedModel."""
    module = tf.Module()
    names = list(inputs)
    specs = [tf.TensorSpec(spec.shape, spec.dtype, name) for name, spec in inputs.items()]
    module.serve = tf.function(
        lambda *tensors: function(**dict(zip(names, tensors, strict=True))), input_signature=specs
    )
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.serve})


def main(root: Path) -> None:
    """Write every model that the tests ask for."""

    def spec(kind: str, *axes: int | None) -> tf.TensorSpec:
        return tf.TensorSpec([None, *axes], getattr(tf, kind))

    weights = tf.constant([[1.0, -1.0, 0.5], [2.0, 0.0, 0.25]])
    # Two inputs and two outputs of different types and ranks.
    save(
        root / "several" / "2",
        lambda a, b: {"sum": tf.cast(a, tf.float32) + b, "many": tf.cast(a, tf.int64) * 10},
        a=spec("uint8", 2), b=spec("float32", 2),
    )  # fmt: skip
    # Every datatype in and out unchanged.
    save(
        root / "every" / "1",
        lambda **tensors: {f"{name}_out": tf.identity(tensor) for name, tensor in tensors.items()},
        **{kind: spec(kind, 3) for kind in NUMERIC},
    )
    # A free axis after the batch, and a scalar per row.
    save(root / "free" / "1", lambda x: {"total": tf.reduce_sum(x, axis=-1)}, x=spec("int32", None))
    # A classifier with weights in a variables file.
    variable = tf.Variable(weights)
    module = tf.Module()
    module.variable = variable

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, "x")])
    def classify(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": tf.nn.softmax(x @ variable)}

    module.serve = classify
    tf.saved_model.save(module, str(root / "classifier" / "1"), signatures={"serving_default": classify})
    # Fails while computing, for some inputs only.
    save(
        root / "fails" / "1",
        lambda x: {"y": tf.debugging.check_numerics(x, "not a number in the batch") * 2.0},
        x=spec("float32", 1),
    )
    # Several signatures, one of which cannot be served.
    module = tf.Module()
    module.twice = tf.function(lambda x: {"y": x * 2.0}, input_signature=[tf.TensorSpec([None, 2], tf.float32, "x")])
    module.mean = tf.function(
        lambda x: {"outputs": tf.reduce_mean(x, axis=1)}, input_signature=[tf.TensorSpec([None, 2], tf.float32, "x")]
    )
    module.words = tf.function(lambda x: {"y": x}, input_signature=[tf.TensorSpec([None], tf.string, "x")])
    tf.saved_model.save(
        module,
        str(root / "signatures" / "1"),
        signatures={"serving_default": module.twice, "mean": module.mean, "words": module.words},
    )
    # Cannot be served: a fixed batch, strings.
    save(root / "fixed" / "1", lambda x: {"y": x}, x=tf.TensorSpec([4, 2], tf.float32))
    save(root / "strings" / "1", lambda x: {"y": x}, x=tf.TensorSpec([None], tf.string))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
