"""The networks: the part that the Keras quickstart would show on one page."""

from typing import Any

import keras
from keras import layers

from horngate_trainer.errors import DataError

INPUT = "images"
OUTPUT = "probabilities"


def build(architecture: str, image_shape: tuple[int, ...], classes: int) -> Any:
    """Build a classifier of images scaled to 0..1.

    Args:
        architecture: ``mlp``, the Keras quickstart's network, or ``cnn``.
        image_shape: [height, width] or [height, width, channels].
        classes: how many there are.

    Returns:
        A Keras model, float32 [N, *image_shape] -> probabilities float32 [N, classes].

    Raises:
        DataError: the images are too small for the network.
    """
    body = {"mlp": _mlp, "cnn": _cnn}[architecture](image_shape)
    head = layers.Dense(classes, activation="softmax", name=OUTPUT)
    try:
        return keras.Sequential([keras.Input(image_shape, name=INPUT), *body, head], name=architecture)
    except ValueError as exc:
        raise DataError(f"images of {image_shape} are too small for --architecture {architecture}") from exc


# --- private ---------------------------------------------------------------------------------------------------------


def _mlp(_image_shape: tuple[int, ...]) -> list[Any]:
    return [layers.Flatten(), layers.Dense(128, activation="relu"), layers.Dropout(0.2)]


def _cnn(image_shape: tuple[int, ...]) -> list[Any]:
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
        layers.Dropout(0.4),
    ]


def _convolution(filters: int, padding: str = "same") -> list[Any]:
    return [layers.Conv2D(filters, 3, padding=padding, use_bias=False), layers.BatchNormalization(), layers.ReLU()]
