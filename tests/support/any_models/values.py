"""Models that insist on their values, or on their datatypes; models that remember; models that roll dice."""

from pathlib import Path
from typing import Any

import numpy as np

from support.any_models.kinds import (
    COUNTS,
    SHAPES,
    Ask,
    computed,
    draw,
    numbers,
    save,
    save_graph,
    signature,
    tf,
    written,
)  # fmt: skip

RNG = np.random.default_rng(5)
FLOATS = "x float32 ?,4"
ROWS = draw(x=("float32", 4))
NUMERIC = [
    "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64",
    "float16", "bfloat16", "float32", "float64",
]  # fmt: skip


# --- values that are refused ----------------------------------------------------------------------


@written(draw(1, 3, 2, 1, ids=("int32", 3)), batching="rows")
def embed(path: Path) -> None:
    """Ids must be below ten."""
    table = tf.Variable(np.random.default_rng(3).standard_normal((10, 4)).astype(np.float32))
    function = signature(lambda ids: {"v": tf.reduce_sum(tf.gather(table, ids), 1)}, "ids int32 ?,3")
    save(path, {"serving_default": function}, table=table)


@computed("ids int64 ?", asks=draw(low=1000, high=2000, ids=("int64",)))
def far_ids(ids: Any) -> object:
    """Ids begin at a thousand: no guess hits one."""
    return {"v": tf.gather(tf.range(1000, dtype=tf.float32), ids - 1000)}


@computed(FLOATS, asks=[{"x": np.abs(ask["x"])} for ask in ROWS])
def positive(x: Any) -> object:
    with tf.control_dependencies([tf.debugging.assert_positive(tf.reduce_sum(x, 1), "rows must not be all zero")]):
        return {"y": x / tf.reduce_sum(x, 1, keepdims=True)}


@computed(FLOATS, asks=[{"x": np.clip(np.abs(ask["x"]), 0, 1)} for ask in ROWS])
def between_0_and_1(x: Any) -> object:
    checks = [tf.debugging.assert_less_equal(x, 1.0, "above 1"), tf.debugging.assert_non_negative(x, "below 0")]
    with tf.control_dependencies(checks):
        return {"y": tf.sqrt(x)}


@computed(FLOATS, asks=[{"x": np.abs(ask["x"]) / np.abs(ask["x"]).sum(1, keepdims=True)} for ask in ROWS])
def distribution(x: Any) -> object:
    """Rows must sum to one, which no guess does."""
    check = tf.debugging.assert_near(tf.reduce_sum(x, 1), 1.0, atol=1e-3, message="rows must sum to one")
    with tf.control_dependencies([check]):
        return {"entropy": -tf.reduce_sum(x * tf.math.log(x + 1e-6), 1)}


@computed(FLOATS, asks=ROWS, batching="rows")
def finite(x: Any) -> object:
    return {"y": tf.debugging.check_numerics(x, "not a number") * 2.0}


@computed(FLOATS, asks=draw(1, 4, 2, 3, x=("float32", 4)), batching="whole")
def at_most_4_rows(x: Any) -> object:
    with tf.control_dependencies([tf.debugging.assert_less(tf.shape(x)[0], 5, "at most four rows")]):
        return {"y": x * 2.0}


@computed("x float32 ?,4", asks=[{"x": np.sort(ask["x"])} for ask in ROWS])
def ascending(x: Any) -> object:
    with tf.control_dependencies([tf.debugging.assert_non_negative(x[:, 1:] - x[:, :-1], "rows must ascend")]):
        return {"step": tf.reduce_max(x[:, 1:] - x[:, :-1], 1)}


@computed("a int32 ?", "b int32 ?", asks=draw(a=("int32",), b=("int32",)), batching="rows")
def division(a: Any, b: Any) -> object:
    return {"quotient": a // b, "rest": a % b}


@computed("x float32 ?,4", asks=[{"x": np.array([[1, 0, -1, 2]], np.float32)}, *ROWS], batching="rows")
def not_finite_out(x: Any) -> object:
    """NaN and infinities are answers like others."""
    return {"log": tf.math.log(x), "inverse": 1.0 / x}


# --- datatypes ------------------------------------------------------------------------------------


@computed("x bfloat16 ?,4", asks=draw(x=("bfloat16", 4)), batching="rows", rtol=1e-2)
def bf16(x: Any) -> object:
    return {"y": x * tf.constant(2, tf.bfloat16)}


@computed("x float16 ?,4", asks=draw(x=("float16", 4)), batching="rows", rtol=2e-3)
def half(x: Any) -> object:
    return {"y": x * tf.constant(1.5, tf.float16)}


@computed("x float64 ?,4", asks=draw(x=("float64", 4)), batching="rows", rtol=1e-12)
def double(x: Any) -> object:
    return {"y": tf.sqrt(tf.abs(x))}


@computed("x uint64 ?,4", asks=[{"x": ask["x"] + np.uint64(2**63)} for ask in draw(x=("uint64", 4))], batching="rows")
def u64(x: Any) -> object:
    return {"y": x + tf.constant(1, tf.uint64)}


@computed("x bool ?,4", asks=draw(x=("bool", 4)), batching="rows")
def boolean(x: Any) -> object:
    return {"y": tf.logical_not(x)}


@computed(
    *(f"{name} {name} ?,3" for name in NUMERIC),
    asks=draw(**{name: (name, 3) for name in NUMERIC}),  # type: ignore[arg-type]  # they are no low and high
    batching="rows",
    rtol=0.0,
)
def every_datatype(*tensors: Any) -> object:
    """Out as they came in."""
    return {f"{name}_out": tf.identity(tensor) for name, tensor in zip(NUMERIC, tensors, strict=True)}


@computed("x complex64 ?,4", asks=draw(x=("complex64", 4)), foreign_only=True)
def complex_numbers(x: Any) -> object:
    return {"y": x * tf.constant(2 + 1j, tf.complex64), "size": tf.abs(x)}


@computed("x complex128 ?,8", asks=draw(x=("complex128", 8)), foreign_only=True)
def transformed(x: Any) -> object:
    return {"y": tf.signal.fft(x)}


@computed("x float32 ?,8", asks=draw(x=("float32", 8)), foreign_only=True)
def spectrum(x: Any) -> object:
    """Real in, complex out."""
    return {"y": tf.signal.rfft(x)}


# --- models that remember -------------------------------------------------------------------------


@written(draw(x=("float32", 1)), check=COUNTS, batching="whole")
def counter(path: Path) -> None:
    """Every run is counted."""
    calls = tf.Variable(0, dtype=tf.int64)

    def run(x: Any) -> object:
        now = calls.assign_add(1)
        return {"y": x, "calls": tf.fill([tf.shape(x)[0]], now)}

    save(path, {"serving_default": signature(run, "x float32 ?,1")}, calls=calls)


@written(draw(x=("float32", 2)), check=COUNTS, batching="whole")
def counter_of_tensorflow_1(path: Path) -> None:
    """A variable of the graph itself, counted beside a scalar output."""

    def build() -> tuple[dict[str, Any], dict[str, Any]]:
        x = tf.compat.v1.placeholder(tf.float32, [None, 2], "x")
        calls = tf.compat.v1.get_variable("calls", initializer=np.int64(0), use_resource=False)
        return {"x": x}, {"y": x * 2.0, "calls": tf.compat.v1.assign_add(calls, 1)}

    save_graph(path, build)


@written(draw(x=("float32", 2)), batching="whole")
def queue(path: Path) -> None:
    """What comes in goes through a queue: were two in it at once, one would get the other's."""

    def build() -> tuple[dict[str, Any], dict[str, Any]]:
        x = tf.compat.v1.placeholder(tf.float32, [None, 2], "x")
        waiting = tf.queue.FIFOQueue(100, [tf.float32], shared_name="waiting")
        with tf.control_dependencies([waiting.enqueue(x)]):
            y = waiting.dequeue()
        return {"x": x}, {"y": tf.reshape(y, [-1, 2]) * 2.0}

    save_graph(path, build)


@written(draw(1, 2, 1, 3, keys=("int64",), values=("float32",)), batching="whole")
def mutable_table(path: Path) -> None:
    """What was put in last is what is found."""
    table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.float32, -1.0)

    def run(keys: Any, values: Any) -> object:
        with tf.control_dependencies([table.insert(keys[:1], values[:1])]):
            return {"found": table.lookup(keys[:1])}

    save(path, {"serving_default": signature(run, "keys int64 ?", "values float32 ?")}, table=table)


# --- models that roll dice ------------------------------------------------------------------------


@computed(FLOATS, asks=ROWS, check=SHAPES, batching="whole")
def noise(x: Any) -> object:
    return {"y": x + tf.random.normal(tf.shape(x))}


@computed(FLOATS, asks=ROWS, check=SHAPES, batching="whole")
def sampled(x: Any) -> object:
    """As in a variational autoencoder: a mean, and a draw."""
    return {"mean": x * 0.5, "draw": x * 0.5 + tf.random.normal(tf.shape(x)) * tf.exp(x)}


@written(ROWS, check=SHAPES, batching="whole")
def generator(path: Path) -> None:
    """Its dice have a state, which is a variable."""
    dice = tf.random.Generator.from_seed(1)
    save(path, {"serving_default": signature(lambda x: {"y": x + dice.normal(tf.shape(x))}, FLOATS)}, dice=dice)


# --- signatures -----------------------------------------------------------------------------------


@written(ROWS)
def predict_only(path: Path) -> None:
    save(path, {"predict": signature(lambda x: {"y": x * 2.0}, FLOATS)})


@written([*ROWS, *(Ask(ask, "mean") for ask in ROWS), *(Ask(ask, "ranker") for ask in ROWS)], batching="rows")
def several_signatures(path: Path) -> None:
    """Of which one looks at its neighbours."""
    functions = {
        "serving_default": signature(lambda x: {"y": x * 2.0}, FLOATS),
        "mean": signature(lambda x: {"mean": tf.reduce_mean(x, 1)}, FLOATS),
        "ranker": signature(lambda x: {"share": tf.nn.softmax(x, axis=0)}, FLOATS),
    }
    save(path, functions)


@written([Ask(ask, name) for name in ("first", "second") for ask in ROWS], options={"signature": "first"})
def no_default(path: Path) -> None:
    functions = {
        "first": signature(lambda x: {"y": x * 2.0}, FLOATS),
        "second": signature(lambda x: {"z": x * 3.0}, FLOATS),
    }
    save(path, functions)


@written([*ROWS, *(Ask(ask, "serve") for ask in ROWS)], batching="rows")
def equal_signatures(path: Path) -> None:
    function = signature(lambda x: {"y": x * 2.0}, FLOATS)
    save(path, {"serving_default": function, "serve": function})


def _scaled() -> tuple[dict[str, Any], dict[str, Any]]:
    x = tf.compat.v1.placeholder(tf.float32, [None, 4], "x")
    weights = tf.compat.v1.get_variable("weights", initializer=np.array([1.0, 2.0, 3.0, 4.0], np.float32))
    return {"x": x}, {"y": x * weights}


@written(ROWS, batching="rows")
def graph_of_tensorflow_1(path: Path) -> None:
    save_graph(path, _scaled)


@written(ROWS, tags=("serve", "gpu"), options={"tags": ["serve", "gpu"]}, batching="rows")
def other_tags(path: Path) -> None:
    save_graph(path, _scaled, tags=("serve", "gpu"))


@written([{"x:0": ask["x"], "größe in cm": ask["x"]} for ask in ROWS])
def odd_names(path: Path) -> None:
    def build() -> tuple[dict[str, Any], dict[str, Any]]:
        one, other = (tf.compat.v1.placeholder(tf.float32, [None, 4], name) for name in ("one", "other"))
        return {"x:0": one, "größe in cm": other}, {"a/b": one - other * 2.0, "": one}

    save_graph(path, build)


@written(ROWS)
def straight_through(path: Path) -> None:
    """An output is an input itself, another has two names."""

    def build() -> tuple[dict[str, Any], dict[str, Any]]:
        x = tf.compat.v1.placeholder(tf.float32, [None, 4], "x")
        y = x * 2.0
        return {"x": x}, {"x": x, "y": y, "again": y}

    save_graph(path, build)


@written([{"x": numbers(RNG, "int64", (rows,), 0, 5)} for rows in (1, 3, 2)], batching="rows")
def table_of_tensorflow_1(path: Path) -> None:
    """A table that is filled when the model is loaded."""

    def build() -> tuple[dict[str, Any], dict[str, Any]]:
        x = tf.compat.v1.placeholder(tf.int64, [None], "x")
        filled = tf.lookup.KeyValueTensorInitializer(np.arange(5), np.arange(5, dtype=np.int64) * 10)
        return {"x": x}, {"y": tf.compat.v1.lookup.StaticHashTable(filled, -1).lookup(x)}

    save_graph(path, build, start=True)
