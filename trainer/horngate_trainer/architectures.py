"""The networks: the part that the Keras quickstart would show on one page."""

from typing import Any

import keras
import tensorflow as tf
from keras import layers

from horngate_trainer.errors import DataError
from horngate_trainer.recipes import RECIPES

INPUT = "images"
OUTPUT = "probabilities"


def build(architecture: str, image_shape: tuple[int, ...], classes: int) -> Any:
    """Build a classifier of images scaled to 0..1.

    In the scope of a strategy with several replicas it computes in all of them together what it computes in one: the
    normalization's means are those of the whole batch, and so is what dropout leaves out.

    Args:
        architecture: ``mlp``, the Keras quickstart's network, or ``cnn``.
        image_shape: [height, width] or [height, width, channels].
        classes: how many there are.

    Returns:
        A Keras model, float32 [N, *image_shape] -> probabilities float32 [N, classes].

    Raises:
        DataError: the images are too small for the network.
    """
    body = {"mlp": _mlp, "cnn": _cnn}[architecture](image_shape, RECIPES[architecture].batch_size)
    head = layers.Dense(classes, activation="softmax", name=OUTPUT)
    try:
        return keras.Sequential([keras.Input(image_shape, name=INPUT), *body, head], name=architecture)
    except ValueError as exc:
        raise DataError(f"images of {image_shape} are too small for --architecture {architecture}") from exc


# --- private ---------------------------------------------------------------------------------------------------------


class Dropout(layers.Dropout):  # type: ignore[misc] # Keras is not typed
    """Keras's, whose draw is for the whole batch: each replica takes the rows that it has (`training.share_of`).

    Args:
        rate: the share of values that are left out while training, 0 to 1.
        rows: of a whole batch, at most.
    """

    def __init__(self, rate: float, rows: int, **options: Any) -> None:
        super().__init__(rate, **options)
        self.rows = rows

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Leave some values out, and make the others larger by as much."""
        if not training:
            return inputs
        replica = tf.distribute.get_replica_context()
        draw = tf.random.stateless_uniform(
            [self.rows, *inputs.shape[1:]], self.seed_generator.next(), dtype=inputs.dtype
        )
        mine = draw[replica.replica_id_in_sync_group :: replica.num_replicas_in_sync][: tf.shape(inputs)[0]]
        return tf.where(mine >= self.rate, inputs / (1 - self.rate), tf.zeros_like(inputs))


def _mlp(_image_shape: tuple[int, ...], rows: int) -> list[Any]:
    return [layers.Flatten(), layers.Dense(128, activation="relu"), Dropout(0.2, rows)]


def _cnn(image_shape: tuple[int, ...], rows: int) -> list[Any]:
    channels = [] if len(image_shape) == 3 else [layers.Reshape((*image_shape, 1))]
    return [
        *channels,
        *_convolution(16, padding="valid"),
        layers.MaxPooling2D(),
        *_convolution(32),
        *_convolution(32),
        layers.MaxPooling2D(),
        *_convolution(64),
        layers.Flatten(),
        Dropout(0.4, rows),
    ]


def _convolution(filters: int, padding: str = "same") -> list[Any]:
    several = tf.distribute.get_strategy().num_replicas_in_sync > 1
    normalization = layers.BatchNormalization(synchronized=several)
    return [layers.Conv2D(filters, 3, padding=padding, use_bias=False), normalization, layers.ReLU()]
