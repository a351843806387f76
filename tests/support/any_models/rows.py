"""Models whose rows look at each other, each in another way; and some whose rows do not."""

from pathlib import Path
from typing import Any

import numpy as np

from support.any_models.kinds import computed, draw, save, signature, tf, written

FLOATS = "x float32 ?,4"
ROWS = draw(x=("float32", 4))
SEVERAL = draw(2, 3, 5, 4, x=("float32", 4))


@computed(FLOATS, asks=ROWS, batching="rows")
def identity4(x: Any) -> object:
    return {"y": x * 1.0}


@computed("a float32 ?,4", "b float32 ?,4", asks=draw(a=("float32", 4), b=("float32", 4)), batching="rows")
def two_inputs(a: Any, b: Any) -> object:
    return {"diff": a - b}


@computed(FLOATS, asks=ROWS, batching="rows")
def softmax_in_rows(x: Any) -> object:
    return {"y": tf.nn.softmax(x)}


@written(ROWS, batching="rows")
def with_variables(path: Path) -> None:
    weights = tf.Variable(np.arange(8, dtype=np.float32).reshape(4, 2))
    save(path, {"serving_default": signature(lambda x: {"y": x @ weights}, FLOATS)}, weights=weights)


@computed("candidates float32 ?,4", asks=draw(candidates=("float32", 4)), batching="whole")
def ranker(candidates: Any) -> object:
    """The candidates of one query are normalised among each other."""
    return {"share": tf.nn.softmax(candidates @ tf.constant([[1.0], [2.0], [3.0], [4.0]]), axis=0)}


@computed(FLOATS, asks=SEVERAL, batching="whole")
def batch_norm(x: Any) -> object:
    """Normalised by the batch's own statistics, as in training."""
    mean, variance = tf.nn.moments(x, [0])
    return {"y": (x - mean) / tf.sqrt(variance + 1e-3)}


@computed(FLOATS, asks=SEVERAL, batching="whole")
def centred(x: Any) -> object:
    return {"y": x - tf.reduce_mean(x, 0, keepdims=True)}


@computed(FLOATS, asks=SEVERAL, batching="whole")
def running_sum(x: Any) -> object:
    return {"y": tf.cumsum(x, axis=0)}


@computed(FLOATS, asks=SEVERAL, batching="whole")
def in_order(x: Any) -> object:
    return {"y": tf.sort(x, axis=0)}


@computed("x float32 ?", asks=draw(1, 3, 2, 5, x=("float32",)), batching="whole")
def ranks(x: Any) -> object:
    return {"rank": tf.argsort(tf.argsort(x))}


@computed("x float32 ?", asks=draw(3, 6, 4, 5, x=("float32",)), batching="whole")
def best_three(x: Any) -> object:
    values, places = tf.math.top_k(x, 3)
    return {"values": values, "places": places}


@computed(FLOATS, asks=SEVERAL, batching="whole")
def to_the_first(x: Any) -> object:
    return {"y": x - x[:1]}


@computed(FLOATS, asks=SEVERAL, batching="whole")
def neighbours(x: Any) -> object:
    return {"y": x + tf.roll(x, 1, axis=0)}


@computed(FLOATS, asks=SEVERAL, batching="whole")
def backwards(x: Any) -> object:
    return {"y": tf.reverse(x, [0])}


@computed(FLOATS, asks=SEVERAL, batching="whole")
def positions(x: Any) -> object:
    """Every row knows its place."""
    return {"y": x, "place": tf.range(tf.shape(x)[0])}


@computed(FLOATS, asks=SEVERAL, batching="whole")
def group_size(x: Any) -> object:
    return {"y": tf.fill([tf.shape(x)[0]], tf.shape(x)[0])}


@computed(FLOATS, asks=SEVERAL, batching="whole")
def share_of_all(x: Any) -> object:
    return {"y": tf.exp(x) / tf.reduce_sum(tf.exp(x))}


@computed(FLOATS, asks=SEVERAL, batching="whole")
def seeded_noise(x: Any) -> object:
    """The same numbers every time, but they belong to places, not to rows."""
    return {"y": x + tf.random.stateless_normal(tf.shape(x), [1, 2])}


@computed("x float32 ?,4", asks=draw(3, 7, 5, 4, x=("float32", 4)), batching="whole")
def late_coupling(x: Any) -> object:
    """Alike up to five rows."""
    return {"y": tf.cond(tf.shape(x)[0] > 5, lambda: x - tf.reduce_mean(x, 0), lambda: tf.identity(x))}


@computed("x float32 ?,4", asks=draw(60, 130, 50, 70, x=("float32", 4)), batching="whole")
def very_late_coupling(x: Any) -> object:
    """Alike up to a hundred rows."""
    return {"y": tf.cond(tf.shape(x)[0] > 100, lambda: x - tf.reduce_mean(x, 0), lambda: tf.identity(x))}


LARGE = [{"x": ask["x"] * 3} for ask in draw(2, 3, 1, 4, x=("float32", 4))]


@computed(FLOATS, asks=LARGE, batching="whole")
def rare_coupling(x: Any) -> object:
    """Rows are alike until a value passes 2."""
    return {"y": x - tf.nn.relu(tf.reduce_max(x) - 2.0)}


@computed(
    FLOATS,
    asks=[{"x": ask["x"] * 3000} for ask in draw(2, 3, 1, 4, x=("float32", 4))],
    batching="whole",
    options={"batching": "whole"},
)
def hidden_coupling(x: Any) -> object:
    """Only with values that nobody would try: the operator says so."""
    return {"y": x - tf.nn.relu(tf.reduce_max(x) - 1000.0)}


@computed(
    "query float32 ?,4", "document float32 ?,4", asks=draw(2, 3, 1, 4, query=("float32", 4), document=("float32", 4)),
    batching="whole",
)  # fmt: skip
def in_batch_negatives(query: Any, document: Any) -> object:
    """Each query against all documents of the batch."""
    return {"share": tf.nn.softmax(query @ tf.transpose(document))}


@computed(
    "x float32 ?,2", "group int32 ?", asks=draw(4, 3, 2, 5, low=0, high=3, x=("float32", 2), group=("int32",)),
    batching="whole",
)  # fmt: skip
def group_sums(x: Any, group: Any) -> object:
    return {"sums": tf.math.unsorted_segment_sum(x, group, 3)}


@computed("ids int32 ?", asks=draw(4, 6, 3, 5, high=5, ids=("int32",)), batching="whole")
def distinct(ids: Any) -> object:
    values, places = tf.unique(ids)
    return {"values": values, "places": places}


@computed("x float32 ?,4", asks=draw(2, 4, 6, 8, x=("float32", 4)), batching="whole")
def pairs(x: Any) -> object:
    """Two rows make one."""
    return {"y": tf.reshape(x, [-1, 8])}


@computed("x float32 ?,3,4", asks=draw(1, 3, 2, 1, x=("float32", 3, 4)), batching="rows")
def attention_in_rows(x: Any) -> object:
    return {"y": tf.nn.softmax(x @ tf.transpose(x, [0, 2, 1])) @ x}


@computed(FLOATS, asks=SEVERAL, batching="whole")
def attention_among_rows(x: Any) -> object:
    return {"y": tf.nn.softmax(x @ tf.transpose(x)) @ x}


@computed(FLOATS, asks=ROWS, batching="rows")
def loop_by_values(x: Any) -> object:
    """How often it goes round depends on the values."""
    return {"y": tf.map_fn(lambda row: tf.while_loop(lambda y: tf.norm(y) > 0.5, lambda y: (y / 2.0,), (row,))[0], x)}


@computed(FLOATS, asks=SEVERAL, batching="whole")
def loop_for_all(x: Any) -> object:
    """All rows are halved until the largest of them is small."""
    return {"y": tf.while_loop(lambda y: tf.reduce_max(tf.abs(y)) > 0.5, lambda y: (y / 2.0,), (x,))[0]}
