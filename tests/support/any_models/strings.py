"""Models that take or return strings: words, pictures, serialized examples, bytes."""

import base64
import io
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from support.any_models.kinds import Inputs, computed, draw, keras, save, save_graph, signature, texts, tf, written

RNG = np.random.default_rng(11)
WORDS = [
    {"text": texts("good film")},
    {"text": texts("bad", "a good film with many words", "")},
    {"text": texts("grüße ☃", "film")},
]
COLUMNS = [{name: array.reshape(-1, 1) for name, array in ask.items()} for ask in WORDS]


def picture(form: str, height: int, width: int) -> bytes:
    """Return an encoded picture."""
    made = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (height, width, 3), np.uint8)).save(made, form)
    return made.getvalue()


def example(**features: Sequence[float] | Sequence[int] | bytes) -> bytes:
    """Return a serialized tf.Example: floats, whole numbers, or one string."""

    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2]) + _varint(len(content)) + content

    def feature(values: Sequence[float] | Sequence[int] | bytes) -> bytes:
        if isinstance(values, bytes):
            return field(1, field(1, values))
        if isinstance(values[0], int):
            return field(3, field(1, b"".join(_varint(int(value)) for value in values)))
        return field(2, field(1, struct.pack(f"<{len(values)}f", *values)))

    entries = (field(1, name.encode()) + field(2, feature(values)) for name, values in features.items())
    return field(1, b"".join(field(1, entry) for entry in entries))


def _varint(value: int) -> bytes:
    written_ = bytearray()
    while value > 127:
        written_.append(value & 127 | 128)
        value >>= 7
    return bytes([*written_, value])


# --- words ----------------------------------------------------------------------------------------


@written(COLUMNS, batching="rows")
def text_in(path: Path) -> None:
    """A Keras text classifier, raw strings in."""
    model = keras.Sequential(
        [
            keras.Input((1,), dtype="string", name="text"),
            keras.layers.TextVectorization(50, output_sequence_length=4, vocabulary=["good", "bad", "film"]),
            keras.layers.Embedding(50, 4),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.export(str(path), verbose=False)


@written(COLUMNS, batching="rows")
def string_lookup(path: Path) -> None:
    """Words to ids."""
    model = keras.Sequential(
        [
            keras.Input((1,), dtype="string", name="text"),
            keras.layers.StringLookup(vocabulary=["good film", "bad", "film"]),
        ]
    )
    model.export(str(path), verbose=False)


@written([{"id": np.array([0, 2], np.int64)}, {"id": np.array([1], np.int64)}, {"id": np.array([9, 0], np.int64)}])
def word_file(path: Path) -> None:
    """Ids to words, from a file among its assets."""
    words = path.with_suffix(".words")
    words.parent.mkdir(parents=True, exist_ok=True)
    words.write_text("one\ntwo\nthree\n")
    initializer = tf.lookup.TextFileInitializer(
        str(words), tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE
    )
    table = tf.lookup.StaticHashTable(initializer, "unknown")
    save(path, {"serving_default": signature(lambda number: {"word": table.lookup(number)}, "id int64 ?")}, table=table)
    words.unlink()


@computed("x float32 ?,4", asks=draw(x=("float32", 4)), batching="rows")
def label_out(x: Any) -> object:
    """Label strings beside probabilities."""
    share = tf.nn.softmax(x)
    return {"probabilities": share, "label": tf.gather(["cat", "dog", "owl", "grüne Eule"], tf.argmax(share, 1))}


@computed("text string ?", asks=WORDS, batching="rows")
def upper(text: Any) -> object:
    return {"upper": tf.strings.upper(text, "utf-8"), "length": tf.strings.length(text)}


@computed("text string ?", asks=[{"text": texts(b"\x00\xff\x80", b"", bytes(range(256)))}, *WORDS], batching="rows")
def any_bytes(text: Any) -> object:
    """Bytes that are no text, out as they came in."""
    return {"same": tf.identity(text)}


@computed(
    "text string ?,?", asks=[{"text": texts("a", "b", "c", "d", shape=shape)} for shape in ((2, 2), (1, 4), (4, 1))]
)
def table_of_words(text: Any) -> object:
    return {"joined": tf.strings.reduce_join(text, 1, separator=" ")}


@computed("first string ?", "last string ?", asks=[{"first": ask["text"], "last": ask["text"][::-1]} for ask in WORDS],
          batching="rows")  # fmt: skip
def full_name(first: Any, last: Any) -> object:
    return {"name": tf.strings.join([first, last], " ")}


@computed("text string ?", asks=WORDS, batching="whole")
def one_sentence(text: Any) -> object:
    """All strings of a request become one."""
    return {"sentence": tf.strings.reduce_join(text, separator=" ")}


@computed("text string ?", asks=WORDS, batching="whole")
def split_words(text: Any) -> object:
    """As wide as the longest sentence of the request."""
    return {"words": tf.strings.split(text).to_tensor("")}


@computed("name string", asks=[{"name": texts(name, shape=())} for name in ("Ada", "Grüße", "")], batching="whole")
def greeting(name: Any) -> object:
    """One string in, one string out."""
    return {"greeting": tf.strings.join(["hello ", name])}


@computed("text string ?", asks=[{"text": texts("12", "-3")}, {"text": texts("7.5")}, {"text": texts("1e3", "0")}])
def number_words(text: Any) -> object:
    """Strings that must be numbers."""
    return {"number": tf.strings.to_number(text)}


@computed("data string ?", asks=[{"data": texts(*map(base64.urlsafe_b64encode, values))}
                                 for values in ([b"one", b"\xff\x00"], [b""], [b"more", b"than", b"one"])])  # fmt: skip
def base64_in(data: Any) -> object:
    return {"bytes": tf.io.decode_base64(data)}


@computed("text string ?", asks=WORDS, batching="rows")
def buckets(text: Any) -> object:
    return {"bucket": tf.strings.to_hash_bucket_fast(text, 100)}


@computed("x float32 ?,2", asks=draw(x=("float32", 2)))
def spoken(x: Any) -> object:
    """Numbers to strings."""
    return {"text": tf.strings.as_string(x, precision=3)}


# --- pictures -------------------------------------------------------------------------------------


def _decoded(data: Any) -> Any:
    image = tf.io.decode_image(data, channels=3, expand_animations=False)
    image.set_shape([None, None, 3])
    return tf.image.resize(tf.cast(image, tf.float32) / 255.0, [8, 8])


@computed(
    "image_bytes string ?",
    asks=[{"image_bytes": texts(picture("JPEG", 20, 30))}, {"image_bytes": texts(picture("JPEG", 9, 9), picture("JPEG", 40, 16))},
          {"image_bytes": texts(picture("JPEG", 8, 8))}],
    rtol=1e-4,
)  # fmt: skip
def jpeg_in(image_bytes: Any) -> object:
    images = tf.map_fn(_decoded, image_bytes, fn_output_signature=tf.TensorSpec([8, 8, 3]))
    return {"mean": tf.reduce_mean(images, [1, 2])}


@computed(
    "image_bytes string ?",
    asks=[{"image_bytes": texts(picture("PNG", 20, 30))}, {"image_bytes": texts(picture("PNG", 9, 9), picture("JPEG", 9, 4))},
          {"image_bytes": texts(picture("PNG", 8, 8))}],
    rtol=1e-4,
)  # fmt: skip
def png_in(image_bytes: Any) -> object:
    images = tf.map_fn(_decoded, image_bytes, fn_output_signature=tf.TensorSpec([8, 8, 3]))
    return {"mean": tf.reduce_mean(images, [1, 2])}


@computed("data string", asks=[{"data": texts(picture("PNG", *size), shape=())} for size in ((5, 4), (8, 8), (3, 9))],
          batching="whole")  # fmt: skip
def one_png(data: Any) -> object:
    """The picture itself comes out, of whatever size."""
    return {"image": tf.io.decode_png(data, 3)}


@computed("image uint8 ?,?,3", asks=[{"image": RNG.integers(0, 256, (*size, 3), np.uint8)} for size in ((5, 4), (8, 8))],
          batching="whole")  # fmt: skip
def png_out(image: Any) -> object:
    return {"png": tf.io.encode_png(image)}


# --- serialized examples --------------------------------------------------------------------------


def _examples(*rows: Mapping[str, Any]) -> Inputs:
    return {"inputs": texts(*(example(**row) for row in rows))}


SHAPES_AND_COLOURS = [
    _examples({"size": [1.0, 2.0], "colour": b"red"}),
    _examples({"size": [0.5, -2.0], "colour": b"blue"}, {"size": [3.0, 0.25], "colour": b"red"}),
    _examples({"size": [2.0, 2.0], "colour": b"none"}),
]


def _parsed(serialized: Any) -> Any:
    spec = {"size": tf.io.FixedLenFeature([2], tf.float32), "colour": tf.io.FixedLenFeature([], tf.string)}
    features = tf.io.parse_example(serialized, spec)
    red = tf.cast(tf.equal(features["colour"], "red"), tf.float32)
    return tf.concat([features["size"], red[:, None]], 1)


@written(SHAPES_AND_COLOURS, method="classify")
def example_classifier(path: Path) -> None:
    """As estimators wrote them: serialized examples in, classes and scores out."""

    def build() -> tuple[dict[str, Any], dict[str, Any]]:
        serialized = tf.compat.v1.placeholder(tf.string, [None], "examples")
        scores = tf.nn.softmax(_parsed(serialized))
        classes = tf.tile([["wide", "high", "red"]], [tf.shape(scores)[0], 1])
        return {"inputs": serialized}, {"classes": classes, "scores": scores}

    save_graph(path, build, method="classify")


@written(SHAPES_AND_COLOURS, method="regress")
def example_regressor(path: Path) -> None:
    def build() -> tuple[dict[str, Any], dict[str, Any]]:
        serialized = tf.compat.v1.placeholder(tf.string, [None], "examples")
        return {"inputs": serialized}, {"outputs": tf.reduce_sum(_parsed(serialized), 1)}

    save_graph(path, build, method="regress")


@computed("examples string ?", asks=[{"examples": ask["inputs"]} for ask in SHAPES_AND_COLOURS])
def parsed_example(examples: Any) -> object:
    features = tf.io.parse_example(examples, {"size": tf.io.VarLenFeature(tf.float32)})
    return {"total": tf.sparse.reduce_sum(features["size"], 1)}
