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
    # Several signatures, one of them of strings.
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
    # Shapes of every kind: a fixed batch, a scalar, an unknown rank; strings of any number of axes.
    save(
        root / "shapes" / "1",
        lambda fixed, scalar, any_rank: {"fixed": fixed * 2.0, "scalar": scalar + 1.0, "any_rank": any_rank},
        fixed=tf.TensorSpec([4, 2], tf.float32), scalar=tf.TensorSpec([], tf.float32),
        any_rank=tf.TensorSpec(None, tf.float32),
    )  # fmt: skip
    save(root / "strings" / "1", lambda x: {"y": x}, x=tf.TensorSpec([None, None], tf.string))
    # What a graph tells: it counts, remembers its input, loops, parses; two signatures are one function.
    count = tf.Variable(0, dtype=tf.int64)
    module = tf.Module()
    module.count = count
    module.serve = tf.function(
        lambda x: {"calls": tf.fill([tf.shape(x)[0]], count.assign_add(1))},
        input_signature=[tf.TensorSpec([None, 1], tf.float32, "x")],
    )
    tf.saved_model.save(module, str(root / "counter" / "1"), signatures={"serving_default": module.serve})
    last = tf.Variable(tf.zeros([0, 1024]), shape=[None, 1024])
    module = tf.Module()
    module.last = last

    @tf.function(input_signature=[tf.TensorSpec([None, 1024], tf.float32, "x")])
    def remember(x: tf.Tensor) -> dict[str, tf.Tensor]:
        before = tf.reduce_sum(last)
        with tf.control_dependencies([before]):
            last.assign(x)
        return {"before": tf.identity(before)}

    module.serve = remember
    tf.saved_model.save(module, str(root / "remembers" / "1"), signatures={"serving_default": remember})
    save(
        root / "loops" / "1",
        lambda x: {"y": tf.while_loop(lambda y: tf.reduce_max(y) < 100.0, lambda y: (y * 2.0,), (x,))[0]},
        x=spec("float32", 1),
    )

    def parse(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        features = tf.io.parse_example(
            serialized,
            {
                "age": tf.io.FixedLenFeature([2], tf.float32),
                "ids": tf.io.VarLenFeature(tf.int64),
                "words": tf.io.RaggedFeature(tf.string),
            },
        )
        return {"scores": tf.reduce_sum(features["age"], axis=1)}

    save(root / "example" / "1", parse, serialized=tf.TensorSpec([None], tf.string))
    module = tf.Module()
    module.once = tf.function(
        lambda x: {"y": tf.matmul(x, variable)}, input_signature=[tf.TensorSpec([None, 2], tf.float32, "x")]
    )
    module.variable = variable
    module.other = tf.function(lambda x: {"y": x}, input_signature=[tf.TensorSpec([None, 2], tf.float32, "x")])
    tf.saved_model.save(
        module,
        str(root / "equal" / "1"),
        signatures={"predict": module.once, "again": module.once, "other": module.other},
    )
    # A MetaGraph with other tags than TensorFlow's usual one, and types that are no tensor's.
    graph = tf.Graph()
    with graph.as_default(), tf.compat.v1.Session(graph=graph) as session:
        x = tf.compat.v1.placeholder(tf.float32, [None, 2], "x")
        info = tf.compat.v1.saved_model.build_tensor_info
        signature = tf.compat.v1.saved_model.build_signature_def({"x": info(x)}, {"y": info(x * 3.0)}, "predict")
        for name, sets in (("tagged", [["gpu"]]), ("several_tags", [["gpu"], ["tpu", "serve"]])):
            builder = tf.compat.v1.saved_model.Builder(str(root / name / "1"))
            builder.add_meta_graph_and_variables(session, sets[0], {"serving_default": signature})
            for tags in sets[1:]:
                builder.add_meta_graph(tags, {"serving_default": signature})
            builder.save()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
