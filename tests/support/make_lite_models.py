"""Writes small .tflite models with TensorFlow, for tests of LiteRT. Runs as a script: python make_lite_models.py ROOT.

Each lies beside the SavedModel that it was made from, except where none is meant.
"""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
import tensorflow as tf

layers = tf.keras.layers


def convert(folder: Path, *, prepare: Callable[[Any], None] = lambda _: None) -> None:
    """Write model.tflite beside a SavedModel."""
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    prepare(converter)
    (folder / "model.tflite").write_bytes(converter.convert())


def keras(folder: Path, *parts: Any, **options: Any) -> None:
    """Write a Keras model of these layers, both ways."""
    tf.keras.Sequential(parts).export(str(folder), verbose=False)
    convert(folder, **options)


def functions(folder: Path, **signatures: Any) -> None:
    """Write a module with these functions as its signatures, both ways."""
    module = tf.Module()
    for name, function in signatures.items():
        setattr(module, name, function)
    tf.saved_model.save(module, str(folder), signatures=signatures)
    convert(folder)


def function(*shape: int | None, kind: tf.DType = tf.float32) -> Callable[[Callable[..., object]], object]:
    """Decorate a function of one tensor x."""
    decorate: Callable[[Callable[..., object]], object] = tf.function(input_signature=[tf.TensorSpec(shape, kind, "x")])
    return decorate


def quantised(converter: Any) -> None:
    """Let a converter write int8 throughout."""

    def rows() -> Iterator[list[object]]:
        for row in np.random.default_rng(3).random((50, 1, 8), np.float32):
            yield [row]

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = rows
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8


def flex(converter: Any) -> None:
    """Let a converter keep TensorFlow's own operations, which LiteRT does not have."""
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]


def main(root: Path) -> None:
    """Write every model that the tests ask for."""
    keras(root / "mlp", layers.Input((28, 28)), layers.Flatten(), layers.Dense(32, "relu"), layers.Dense(10, "softmax"))
    keras(
        root / "cnn", layers.Input((28, 28)), layers.Reshape((28, 28, 1)), layers.Conv2D(4, 3, activation="relu"),
        layers.MaxPooling2D(), layers.Flatten(), layers.Dense(10, "softmax"),
    )  # fmt: skip
    keras(root / "int8", layers.Input((8,)), layers.Dense(16, "relu"), layers.Dense(4), prepare=quantised)
    keras(
        root / "free", layers.Input((None, None, 3)), layers.Conv2D(4, 3, activation="relu"),
        layers.GlobalAveragePooling2D(), layers.Dense(2),
    )  # fmt: skip
    two = [tf.TensorSpec([None, 2], tf.uint8, "b"), tf.TensorSpec([None, 3], tf.float32, "a")]
    both = tf.function(
        lambda b, a: {
            "sum": tf.reduce_sum(a, 1) + tf.cast(b[:, 0], tf.float32), "many": tf.cast(b, tf.int64) * 10, "same": a,
        },
        input_signature=two,
    )  # fmt: skip
    functions(root / "two", serving_default=both)
    functions(
        root / "signatures",
        twice=function(None, 2)(lambda x: {"y": x * 2.0}),
        mean=function(None, 2)(lambda x: {"y": tf.reduce_mean(x, 1)}),
    )
    functions(root / "fixed", serving_default=function(1, 28, 28)(lambda x: {"y": tf.reduce_sum(x, [1, 2])}))
    functions(root / "words", serving_default=function(None, kind=tf.string)(lambda x: {"y": x}))
    # The number of rows depends on the values, in three ways; or it is twice the input's; or another axis is free.
    functions(root / "positive", serving_default=function(None, 2)(lambda x: {"y": tf.boolean_mask(x, x[:, 0] > 0)}))
    functions(root / "where", serving_default=function(None, 2)(lambda x: {"y": tf.where(x > 0)}))
    functions(root / "repeated", serving_default=function(None, kind=tf.int32)(lambda x: {"y": tf.zeros([x[0], 2])}))
    functions(root / "doubled", serving_default=function(None, 2)(lambda x: {"y": tf.concat([x, x], 0)}))
    functions(
        root / "partly",
        good=function(None, 2)(lambda x: {"y": x * 2.0}),
        bad=function(None, 2)(lambda x: {"y": tf.concat([x, x], 0)}),
    )
    functions(root / "wide", serving_default=function(None, None)(lambda x: {"y": x * 2.0}))
    functions(
        root / "gather",
        serving_default=function(None, kind=tf.int32)(lambda x: {"y": tf.gather(tf.range(10) * 3, x)}),
    )
    functions(
        root / "half",
        serving_default=function(None, 3, kind=tf.float16)(lambda x: {"y": tf.cast(x, tf.float32) * 2.0}),
    )
    for kind in ("bool", "uint8", "int8", "int16", "int32", "int64", "float32"):
        functions(
            root / f"type_{kind}",
            serving_default=function(None, 3, kind=getattr(tf, kind))(lambda x: {"y": tf.concat([x, x], 1)}),
        )
    # Without a signature, and with an operation of TensorFlow's own.
    bare = root / "bare"
    bare.mkdir()
    (bare / "model.tflite").write_bytes(
        tf.lite.TFLiteConverter.from_concrete_functions(
            [function(None, 2)(lambda x: x * 3.0).get_concrete_function()]  # type: ignore[attr-defined]
        ).convert()
    )
    module = tf.Module()
    module.serve = function(None, 2, 2)(lambda x: {"y": tf.linalg.inv(x)})
    tf.saved_model.save(module, str(root / "flex"), signatures={"serving_default": module.serve})
    convert(root / "flex", prepare=flex)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
