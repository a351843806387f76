"""SavedModels of other people's kinds, written as ROOT/<name>/1.

python benchmarks/foreign_models.py ROOT NAME...
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
import keras
import tensorflow as tf

CLASSES = 32_000
WORDS, WIDTH = 2000, 128


def embed(folder: str) -> None:
    """Write a table of ten rows that ids look up: one that is out of range is an error of the whole batch."""
    module = tf.Module()
    module.table = tf.Variable(tf.random.normal([10, 4], seed=3))
    ids = tf.TensorSpec([None, 3], tf.int32, "ids")
    serve = tf.function(lambda ids: {"v": tf.reduce_sum(tf.gather(module.table, ids), 1)}, input_signature=[ids])
    tf.saved_model.save(module, folder, signatures={"serving_default": serve})


def freeaxes(folder: str) -> None:
    """Write a model whose axes may have any length, so that a shape can be huge and cost nothing to send."""
    module = tf.Module()
    x = tf.TensorSpec([None, None, None], tf.float32, "x")
    serve = tf.function(lambda x: {"sum": tf.reduce_sum(x, 2), "same": x * 1.0}, input_signature=[x])
    tf.saved_model.save(module, folder, signatures={"serving_default": serve})


def same(folder: str) -> None:
    """Write a model that answers what it is given."""
    module = tf.Module()
    x = tf.TensorSpec([None, 1], tf.float32, "x")
    serve = tf.function(lambda x: {"y": tf.identity(x)}, input_signature=[x])
    tf.saved_model.save(module, folder, signatures={"serving_default": serve})


def mobilenet(folder: str) -> None:
    """Write Keras' MobileNetV2."""
    keras.applications.MobileNetV2(weights=None).export(folder, verbose=False)


def resnet50(folder: str) -> None:
    """Write Keras' ResNet50."""
    keras.applications.ResNet50(weights=None).export(folder, verbose=False)


def image256(folder: str) -> None:
    """Write a model from images of 256x256 to such images."""
    _image_to_image(256).export(folder, verbose=False)


def image512(folder: str) -> None:
    """Write a model from images of 512x512 to such images."""
    _image_to_image(512).export(folder, verbose=False)


def classes32k(folder: str) -> None:
    """Write a head of 32,000 classes."""
    layers = [keras.Input((64,)), keras.layers.Dense(256, activation="relu"), keras.layers.Dense(CLASSES)]
    keras.Sequential(layers).export(folder, verbose=False)


def transformer(folder: str) -> None:
    """Write six layers of attention over texts of any length up to 512, padded with 0."""
    ids = keras.Input((None,), dtype="int32", name="ids")
    there = keras.ops.not_equal(ids, 0)
    x = Positions()(keras.layers.Embedding(WORDS, WIDTH)(ids))
    for _ in range(6):
        seen = keras.layers.MultiHeadAttention(4, WIDTH // 4)(x, x, attention_mask=there[:, None, :])
        x = keras.layers.LayerNormalization()(x + seen)
        wide = keras.layers.Dense(4 * WIDTH, activation="gelu")(x)
        x = keras.layers.LayerNormalization()(x + keras.layers.Dense(WIDTH)(wide))
    pooled = keras.layers.GlobalAveragePooling1D()(x, mask=there)
    keras.Model(ids, keras.layers.Dense(8, name="logits")(pooled)).export(folder, verbose=False)


def lstm(folder: str) -> None:
    """Write an LSTM over texts of any length, padded with 0."""
    layers = [
        keras.Input((None,), dtype="int32", name="ids"),
        keras.layers.Embedding(WORDS, WIDTH, mask_zero=True),
        keras.layers.LSTM(WIDTH),
        keras.layers.Dense(8),
    ]
    keras.Sequential(layers).export(folder, verbose=False)


def mlp(folder: str) -> None:
    """Write the reference model's kind: small images to ten classes, in a fraction of a millisecond."""
    layers = [
        keras.Input((28, 28)),
        keras.layers.Flatten(),
        keras.layers.Dense(128, activation="relu"),
        keras.layers.Dense(10, activation="softmax"),
    ]
    keras.Sequential(layers).export(folder, verbose=False)


MODELS: dict[str, Callable[[str], None]] = {
    each.__name__: each
    for each in (
        embed, freeaxes, same, mobilenet, resnet50, image256, image512, classes32k, transformer, lstm, mlp,
    )
}  # fmt: skip


def main() -> None:
    """Write those that are not there yet, each whole or not at all."""
    root = Path(sys.argv[1])
    for name in sys.argv[2:]:
        if not (root / name / "1").exists():
            keras.utils.set_random_seed(1)
            MODELS[name](str(root / name / ".writing"))
            (root / name / ".writing").rename(root / name / "1")
            print("wrote", root / name / "1", flush=True)


# --- private ------------------------------------------------------------------------------------------


class Positions(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Adds a learned vector for each place, up to the 512th."""

    def __init__(self) -> None:
        super().__init__()
        self.table = self.add_weight(shape=(512, WIDTH), initializer="random_normal")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Add them."""
        return x + tf.gather(self.table, tf.range(tf.shape(x)[1]))


def _image_to_image(side: int) -> keras.Model:
    convolve = keras.layers.Conv2D
    return keras.Sequential(
        [
            keras.Input((side, side, 3)),
            convolve(16, 3, padding="same", activation="relu"),
            convolve(3, 3, padding="same"),
        ]
    )


if __name__ == "__main__":
    main()
