"""Models whose inputs and outputs have unusual axes: no batch, several, fixed ones, free ones that must be long."""

from pathlib import Path
from typing import Any

import numpy as np

from support.any_models.kinds import Inputs, computed, draw, keras, numbers, save_graph, tf, written

RNG = np.random.default_rng(3)
FLOATS = "x float32 ?,4"
ROWS = draw(x=("float32", 4))


def shaped(dtype: str, *shapes: tuple[int, ...], name: str = "x", high: int = 10) -> list[Inputs]:
    """Return one request for each shape."""
    return [{name: numbers(RNG, dtype, shape, 0, high)} for shape in shapes]


# --- no batch axis --------------------------------------------------------------------------------


@computed("image uint8 ?,?,3", asks=shaped("uint8", (4, 5, 3), (8, 2, 3), (5, 4, 3), name="image", high=256),
          batching="whole")  # fmt: skip
def one_image(image: Any) -> object:
    return {"scores": tf.nn.softmax(tf.reduce_mean(tf.cast(image, tf.float32), [0, 1]) / 50.0)}


@computed("image float32 8,8,3", asks=shaped("float32", *[(8, 8, 3)] * 3, name="image"), batching="whole")
def one_small_image(image: Any) -> object:
    return {"mean": tf.reduce_mean(image, [0, 1])}


@computed("x float32", asks=shaped("float32", (), (), ()), batching="whole")
def scalar(x: Any) -> object:
    return {"y": x * 2.0 + 1.0}


@computed("wave float32 ?", asks=shaped("float32", (400,), (1000,), (640,), name="wave"), batching="whole")
def audio(wave: Any) -> object:
    """The first axis is time."""
    frames = tf.signal.frame(wave, 160, 80)
    return {"energy": tf.reduce_mean(frames * frames, axis=1), "loudest": tf.reduce_max(tf.abs(wave))}


@computed(asks=[{}], batching="whole")
def no_input() -> object:
    return {"classes": tf.constant([1, 2, 3]), "version": tf.constant("7.1")}


@computed(
    "x float32 ?,4",
    "training bool",
    asks=[{**ask, "training": np.array(place % 2 == 0)} for place, ask in enumerate(ROWS)],
    batching="whole",
)
def scalar_flag(x: Any, training: Any) -> object:
    return {"y": tf.where(training, x * 0.0, x)}


@computed(
    "x float32 ?,4", "top int32", asks=[{**ask, "top": np.array(place % 3 + 1, np.int32)} for place, ask in enumerate(ROWS)],
    batching="whole",
)  # fmt: skip
def how_many(x: Any, top: Any) -> object:
    """The caller says how many answers a row has."""
    values, places = tf.math.top_k(x, top)
    return {"values": values, "places": places}


# --- other numbers of rows ------------------------------------------------------------------------


def _pairs(*counts: tuple[int, int]) -> list[Inputs]:
    return [
        {"query": numbers(RNG, "float32", (left, 4)), "candidate": numbers(RNG, "float32", (right, 4))}
        for left, right in counts
    ]


@computed("query float32 ?,4", "candidate float32 ?,4", asks=_pairs((1, 3), (2, 5), (3, 1), (3, 3)), batching="whole")
def two_batch_axes(query: Any, candidate: Any) -> object:
    return {"score": query @ tf.transpose(candidate)}


@computed(
    "query float32 ?,?", "candidate float32 ?,?",
    asks=[{"query": numbers(RNG, "float32", (rows, width)), "candidate": numbers(RNG, "float32", (rows, width))}
          for rows, width in ((3, 3), (2, 4), (3, 18))],
    batching="whole",
)  # fmt: skip
def query_and_candidates(query: Any, candidate: Any) -> object:
    """A square of scores, of any width."""
    return {"score": query @ tf.transpose(candidate)}


@computed(
    "table float32 ?,3", "ids int32 ?",
    asks=[{"table": numbers(RNG, "float32", (rows, 3)), "ids": numbers(RNG, "int32", (ids,), 0, rows)}
          for rows, ids in ((5, 2), (3, 4), (9, 1))],
    batching="whole",
)  # fmt: skip
def looked_up(table: Any, ids: Any) -> object:
    return {"rows": tf.gather(table, ids)}


@computed(
    "values float32 ?", "lengths int32 ?",
    asks=[{"values": numbers(RNG, "float32", (sum(lengths),)), "lengths": np.array(lengths, np.int32)}
          for lengths in ([2, 3], [1], [4, 0, 2], [5])],
    batching="whole",
)  # fmt: skip
def ragged(values: Any, lengths: Any) -> object:
    """Rows of different lengths, one after the other."""
    return {"sums": tf.reduce_sum(tf.RaggedTensor.from_row_lengths(values, lengths), axis=1)}


@computed("x float32 ?,4", asks=draw(3, 6, 2, 5, x=("float32", 4)), batching="whole")
def filtered(x: Any) -> object:
    """Rows that it does not like are left out."""
    return {"kept": tf.boolean_mask(x, tf.reduce_sum(x, 1) > 0.0)}


@computed("x float32 ?", asks=draw(5, 6, 2, 3, x=("float32",)), batching="whole")
def places_found(x: Any) -> object:
    return {"places": tf.where(x > 0.0)}


@computed("boxes float32 ?,4", "scores float32 ?", asks=draw(3, 6, 1, 5, boxes=("float32", 4), scores=("float32",)),
          batching="whole")  # fmt: skip
def detections(boxes: Any, scores: Any) -> object:
    """Overlapping boxes are left out."""
    kept = tf.image.non_max_suppression(tf.abs(boxes), scores, 3)
    return {"kept": kept, "boxes": tf.gather(boxes, kept)}


@computed(FLOATS, asks=ROWS, batching="whole")
def fanout(x: Any) -> object:
    """Two answers for each row."""
    return {"y": tf.repeat(x, 2, axis=0)}


@computed(FLOATS, asks=ROWS, batching="whole")
def flat(x: Any) -> object:
    return {"y": tf.reshape(x, [-1])}


@computed(FLOATS, asks=ROWS, batching="whole")
def on_its_side(x: Any) -> object:
    """The rows are the last axis of what comes out."""
    return {"y": tf.transpose(x)}


# --- outputs without rows -------------------------------------------------------------------------


@computed(FLOATS, asks=ROWS, batching="whole")
def loss_out(x: Any) -> object:
    return {"y": x * 2.0, "mean": tf.reduce_mean(x)}


@computed(FLOATS, asks=ROWS, batching="rows")
def const_out(x: Any) -> object:
    return {"y": x * 2.0, "anchors": tf.constant(np.arange(12, dtype=np.float32).reshape(6, 2))}


@computed(FLOATS, asks=ROWS, batching="rows")
def large_const_out(x: Any) -> object:
    return {"y": x * 2.0, "anchors": tf.constant(np.arange(120_000, dtype=np.float32).reshape(-1, 4))}


@computed(FLOATS, asks=ROWS, batching="rows")
def scalar_const_out(x: Any) -> object:
    return {"y": x * 2.0, "version": tf.constant(7, tf.int64)}


@computed(FLOATS, asks=ROWS, batching="whole")
def only_const_out(x: Any) -> object:
    """Nothing depends on what comes in."""
    return {"classes": tf.constant([1.0, 2.0, 3.0]) + 0.0 * tf.reduce_sum(x[:0])}


@computed(FLOATS, asks=ROWS)
def one_row_const_out(x: Any) -> object:
    """One constant row, whatever the number of rows."""
    return {"y": x * 2.0, "mean": tf.constant([[1.0, 2.0]])}


@computed(FLOATS, asks=ROWS)
def nothing_out(x: Any) -> object:
    """Rows that hold nothing."""
    return {"y": x[:, :0], "sum": tf.reduce_sum(x, 1)}


@computed(FLOATS, asks=ROWS, batching="rows")
def big_out(x: Any) -> object:
    return {"y": tf.tile(x, [1, 100_000])}


# --- any number of axes ---------------------------------------------------------------------------


@computed(FLOATS, asks=ROWS)
def no_shape(x: Any) -> object:
    """Unknown rank out, as in many detectors of TensorFlow 1."""
    return {"y": tf.raw_ops.PlaceholderWithDefault(input=x * 2.0, shape=None)}


@computed("x float32 any", asks=shaped("float32", (2, 3), (4,), (), (1, 2, 2)))
def any_shape(x: Any) -> object:
    return {"y": x * 2.0, "axes": tf.rank(x)}


@computed("x float32 any", asks=shaped("float32", (2, 3, 2), (1, 3, 4), (4, 1, 1)))
def any_shape_of_rank_three(x: Any) -> object:
    with tf.control_dependencies([tf.debugging.assert_rank(x, 3, "expected three axes")]):
        return {"y": tf.reduce_sum(x, 2)}


# --- a fixed first axis ---------------------------------------------------------------------------


@computed("input_tensor uint8 1,?,?,3", batching="whole",
          asks=shaped("uint8", (1, 4, 5, 3), (1, 8, 2, 3), (1, 5, 5, 3), name="input_tensor", high=256))  # fmt: skip
def detector_b1(input_tensor: Any) -> object:
    """The detection zoo's: one image, free height and width."""
    x = tf.cast(input_tensor, tf.float32) / 255.0
    return {"detection_scores": tf.reduce_mean(x, [1, 2]), "num_detections": tf.reduce_sum(x, [1, 2, 3])}


@computed("x float32 8,4", asks=shaped("float32", *[(8, 4)] * 3), batching="whole")
def batch_of_8(x: Any) -> object:
    return {"y": x * 2.0, "mean": tf.reduce_mean(x, 0)}


@computed("x float32 1", asks=shaped("float32", *[(1,)] * 3), batching="whole")
def list_of_1(x: Any) -> object:
    return {"y": x * 2.0}


@written(draw(1, 1, 1, x=("float32", 2048)), batching="whole")
def inner_b1(path: Path) -> None:
    """The signature says any batch; inside, it is one row."""

    def build() -> tuple[dict[str, Any], dict[str, Any]]:
        x = tf.compat.v1.placeholder(tf.float32, [None, 2048], "x")
        y = tf.reshape(tf.reshape(x, [1, 64, 32]) * 2.0, [-1, 2048])
        return {"x": x}, {"y": tf.compat.v1.placeholder_with_default(y, [None, 2048], "y")}

    save_graph(path, build)


# --- free axes ------------------------------------------------------------------------------------


@computed("x float32 ?,?", asks=shaped("float32", (2, 3), (1, 5), (2, 0), (3, 1)), batching="rows")
def free_axis(x: Any) -> object:
    """Axes of length zero are allowed."""
    return {"sum": tf.reduce_sum(x, 1), "same": x}


WIDE = shaped("float32", (2, 3), (1, 5), (3, 2), (1, 7))


@computed("x float32 ?,?", asks=WIDE)
def wide_mean(x: Any) -> object:
    """Zeros at the end change it."""
    return {"mean": tf.reduce_mean(x, 1)}


@computed("x float32 ?,?", asks=WIDE)
def wide_softmax(x: Any) -> object:
    return {"share": tf.nn.softmax(x)}


@computed("x float32 ?,?", asks=WIDE)
def last_column(x: Any) -> object:
    return {"last": x[:, -1]}


@computed("x float32 ?,?,2", asks=shaped("float32", (2, 3, 2), (1, 5, 2), (2, 4, 2), (1, 1, 2)))
def attention_without_mask(x: Any) -> object:
    return {"y": tf.nn.softmax(x @ tf.transpose(x, [0, 2, 1])) @ x}


@computed("x float32 ?,?,3", asks=shaped("float32", (2, 9, 3), (1, 5, 3), (3, 12, 3)))
def convolution(x: Any) -> object:
    """Shorter than five it cannot be."""
    kernel = tf.constant(np.arange(30, dtype=np.float32).reshape(5, 3, 2) / 30)
    return {"y": tf.reduce_mean(tf.nn.conv1d(x, kernel, 1, "VALID"), 1)}


@computed("x float32 ?,?,?,2", asks=shaped("float32", (1, 64, 64, 2), (2, 64, 96, 2), (1, 70, 64, 2)))
def many_poolings(x: Any) -> object:
    """Smaller than 64 by 64, nothing is left."""
    for _ in range(6):
        x = tf.nn.max_pool2d(x, 2, 2, "VALID")
    with tf.control_dependencies([tf.debugging.assert_positive(tf.size(x), "the image is too small")]):
        return {"y": tf.reduce_max(x, [1, 2])}


@computed("x float32 ?,?,?,1", asks=shaped("float32", (1, 32, 32, 1), (2, 32, 64, 1), (1, 64, 32, 1)))
def multiple_of_32(x: Any) -> object:
    """Down and up again, beside what came in: only multiples of 32 fit."""
    small = tf.nn.avg_pool2d(x, 32, 32, "VALID")
    return {"y": x + tf.repeat(tf.repeat(small, 32, axis=1), 32, axis=2)}


@computed("x float32 ?,?", asks=shaped("float32", (2, 4), (1, 8), (3, 12)))
def multiple_of_4(x: Any) -> object:
    return {"y": tf.reduce_sum(tf.reshape(x, [tf.shape(x)[0], -1, 4]), 2)}


@computed("x float32 ?,?", asks=shaped("float32", (2, 7), (1, 7), (3, 7)))
def only_7(x: Any) -> object:
    """Free in the signature, and fixed by the weights."""
    return {"y": x @ tf.constant(np.arange(14, dtype=np.float32).reshape(7, 2))}


@written([{"ids": numbers(RNG, "int32", shape, 0, 20)} for shape in ((1, 3), (2, 5), (1, 8))], lengths="apart")
def seq_vars(path: Path) -> None:
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int32", name="ids"),
            keras.layers.Embedding(20, 8),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    model.export(str(path), verbose=False)


@written([{"ids": numbers(RNG, "int32", shape, 1, 20)} for shape in ((1, 3), (2, 5), (1, 8))], lengths="padded")
def recurrent(path: Path) -> None:
    """A loop over the width, which stops at the mask."""
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int32", name="ids"),
            keras.layers.Embedding(20, 4, mask_zero=True),
            keras.layers.GRU(3),
        ]
    )
    model.export(str(path), verbose=False)


@written([{"ids": numbers(RNG, "int32", shape, 1, 20)} for shape in ((1, 3), (2, 7), (1, 8), (3, 1))], lengths="padded")
def tagger(path: Path) -> None:
    """An answer for each token, from what is before and behind it."""
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int32", name="ids"),
            keras.layers.Embedding(20, 4, mask_zero=True),
            keras.layers.Bidirectional(keras.layers.LSTM(3, return_sequences=True)),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    model.export(str(path), verbose=False)


@written(
    [
        {"ids": numbers(RNG, "int32", shape, 1, 20), "attention_mask": np.ones(shape, np.int32)}
        for shape in ((1, 3), (2, 7), (1, 8))
    ]
    + [
        {"ids": np.array([[7, 3, 9, 4, 4]], np.int32), "attention_mask": np.array([[1, 1, 0, 0, 0]], np.int32)},
        {"ids": np.array([[7, 3]], np.int32), "attention_mask": np.zeros((1, 2), np.int32)},
    ],
    lengths="padded",
)
def attention_with_mask(path: Path) -> None:
    """Places that the mask leaves out are not looked at; where it leaves out all, all are."""
    ids = keras.Input((None,), dtype="int32", name="ids")
    mask = keras.Input((None,), dtype="int32", name="attention_mask")
    x = keras.layers.Embedding(20, 8)(ids)
    there = keras.ops.not_equal(mask, 0)
    x = x + keras.layers.MultiHeadAttention(2, 4)(x, x, attention_mask=there[:, None, :])
    y = keras.layers.Dense(3)(x[:, 0])
    keras.Model({"ids": ids, "attention_mask": mask}, {"y": y}).export(str(path), verbose=False)


@written(draw(x=("float32", 16, 16, 3)), batching="rows")
def small_images(path: Path) -> None:
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3), name="x"),
            keras.layers.Conv2D(4, 3),
            keras.layers.BatchNormalization(),
            keras.layers.MaxPooling2D(),
            keras.layers.Dropout(0.5),
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.export(str(path), verbose=False)


@written(draw(low=0, user_age=("float32", 3), item_ids=("int32", 2)), batching="rows")
def keras_multi(path: Path) -> None:
    """Functional, dict in, dict out."""
    age = keras.Input((3,), name="user_age")
    ids = keras.Input((2,), dtype="int32", name="item_ids")
    items = keras.layers.Flatten()(keras.layers.Embedding(10, 2)(ids))
    joined = keras.layers.Concatenate()([keras.layers.Dense(4)(age), items])
    outputs = {"score": keras.layers.Dense(1, name="s")(joined), "aux": keras.layers.Dense(2, name="t")(joined)}
    keras.Model({"user_age": age, "item_ids": ids}, outputs).export(str(path), verbose=False)
