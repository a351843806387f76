"""Writes SavedModels that take or return strings, and TensorFlow's answers: python make_string_models.py ROOT ANSWERS.

``reviews`` is a Keras model with a TextVectorization, ``words`` a StringLookup and its inverse, ``pictures`` takes
encoded PNGs, ``parsing`` serialized tf.Examples, to classify and to regress.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras
import tensorflow as tf

TEXTS = ["a good film", "a bad film", "grüße"]
WORDS = ["cat", "dog"]


def save(module: tf.Module, path: Path, name: str, **signatures: Callable[..., object]) -> None:
    """Save functions of one vector of strings as signatures of a SavedModel."""
    spec = tf.TensorSpec([None], tf.string, name)
    module.functions = functions = {key: tf.function(each, input_signature=[spec]) for key, each in signatures.items()}
    tf.saved_model.save(module, str(path), signatures=functions)


def main(root: Path, answers: Path) -> None:
    """Write the models, and the answers to what the tests ask."""
    keras.utils.set_random_seed(1)
    reviews = keras.Sequential(
        [
            keras.Input((1,), dtype="string", name="text"),
            keras.layers.TextVectorization(output_sequence_length=4, vocabulary=["good", "bad", "film"]),
            keras.layers.Embedding(8, 4),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(1, activation="sigmoid", name="score"),
        ]
    )
    reviews.export(str(root / "reviews" / "1"), verbose=False)

    words = tf.Module()
    words.find = keras.layers.StringLookup(vocabulary=WORDS)
    words.name_of = keras.layers.StringLookup(vocabulary=WORDS, invert=True)

    def look_up(word: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"id": words.find(word), "again": words.name_of(words.find(word)), "same": word}

    save(words, root / "words" / "1", "word", serving_default=look_up)

    pictures = tf.Module()

    def mean(png: tf.Tensor) -> dict[str, tf.Tensor]:
        def one(content: tf.Tensor) -> tf.Tensor:
            return tf.reduce_mean(tf.cast(tf.io.decode_png(content, 1), tf.float32))

        return {"mean": tf.map_fn(one, png, fn_output_signature=tf.float32)}

    save(pictures, root / "pictures" / "1", "png", serving_default=mean)

    parsing = tf.Module()
    size = {"size": tf.io.FixedLenFeature([2], tf.float32), "scale": tf.io.FixedLenFeature([], tf.float32, 1.0)}

    def classify(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        found = tf.io.parse_example(inputs, size)
        scores = tf.nn.softmax(found["size"] * found["scale"][:, None])
        return {"scores": scores, "classes": tf.tile(tf.constant([["wide", "high"]]), [tf.shape(scores)[0], 1])}

    def regress(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"outputs": tf.reduce_prod(tf.io.parse_example(inputs, size)["size"], 1)}

    save(parsing, root / "parsing" / "1", "inputs", serving_default=classify, regression=regress)

    scores = reviews(tf.constant(TEXTS)[:, None]).numpy().reshape(-1).tolist()
    answers.write_text(json.dumps({"texts": TEXTS, "scores": scores}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
