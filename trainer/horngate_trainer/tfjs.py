"""A SavedModel as a TF.js graph model: what a browser or Node computes with @tensorflow/tfjs.

The graph is frozen and simplified by TensorFlow, and written as JSON beside its constants in shards. Five kinds of
numbers are left of TensorFlow's: what was uint8 or int64 is int32 there, and float64 and half are float32.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.framework import attr_value_pb2, graph_pb2
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2, saved_model_pb2
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
from tensorflow.python.grappler import tf_optimizer

import horngate_protos
from horngate_trainer.errors import ExportError, first_line
from horngate_trainer.model_files import GRAPH
from horngate_trainer.tfjs_operations import OPERATIONS
from horngate_trainer.written import SIGNATURE, Predict, Tensors, as_array

FILE = Path("assets.extra/tfjs/model.json")
"""Where a version has it; its shards are beside it."""
SHARD_BYTES = 4 * 1024 * 1024
"""What a browser caches well, by TF.js's own convention."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was written.

    Attributes:
        files: their names, the model's first.
        size: bytes of them all.
        dtypes: the SavedModel's, of inputs and outputs that have another one here.
    """

    files: Sequence[str]
    size: int
    dtypes: Mapping[str, str]


def write(saved_model: Path, destination: Path) -> Report:
    """Write what a SavedModel answers by default as a graph model: ``model.json`` and its shards.

    Args:
        saved_model: the SavedModel's folder.
        destination: the graph model's; made if missing.

    Raises:
        ExportError: TF.js cannot hold the model; the text names what it lacks. Nothing was written.
        OSError: a file cannot be written.
    """
    frozen = _frozen(saved_model)
    graph = _simplified(frozen)
    _check(graph, frozen)
    weights = [_weight(node) for node in graph.node if node.op == "Const"]
    _to_kinds(graph)
    data = b"".join(each.data for each in weights)
    count = max(1, math.ceil(len(data) / SHARD_BYTES))
    shards = [f"group1-shard{number}of{count}.bin" for number in range(1, count + 1)]
    tensors = {**frozen.inputs, **frozen.outputs}
    dtypes = {name: each.dtype.name for name, each in tensors.items() if _KINDS[each.dtype] != each.dtype}
    model = {
        "format": "graph-model",
        "generatedBy": f"TensorFlow {tf.__version__}",
        "convertedBy": f"Horngate {horngate_protos.__version__}",
        "signature": {"inputs": _infos(frozen.inputs), "outputs": _infos(frozen.outputs)},
        "userDefinedMetadata": {
            "structuredOutputKeys": list(frozen.outputs),
            "savedModelDtypes": dtypes,
            "order": _order(graph),
        },
        "modelTopology": _topology(graph),
        "weightsManifest": [{"paths": shards, "weights": [each.entry for each in weights]}],
    }
    text = json.dumps(model, separators=(",", ":"), allow_nan=False).encode()
    destination.mkdir(parents=True, exist_ok=True)
    (destination / FILE.name).write_bytes(text)
    for number, shard in enumerate(shards):
        (destination / shard).write_bytes(data[number * SHARD_BYTES :][:SHARD_BYTES])
    return Report([FILE.name, *shards], len(text) + len(data), dtypes)


@contextmanager
def reload(folder: Path) -> Iterator[Predict]:
    """Read a graph model back from its files, into a session of TensorFlow's, and yield its predictions by name.

    It takes and returns the SavedModel's dtypes, but computes in those that TF.js has: what does not fit them shows.

    Raises:
        ExportError: TensorFlow cannot compute it with these dtypes.
    """
    model = json.loads((folder / FILE.name).read_bytes())
    definition = json_format.ParseDict(model["modelTopology"], graph_pb2.GraphDef())
    metadata = model["userDefinedMetadata"]
    for node in definition.node:
        node.input.extend(metadata["order"].get(node.name, []))
    (group,) = model["weightsManifest"]
    _fill(definition, group["weights"], b"".join((folder / path).read_bytes() for path in group["paths"]))
    graph = tf.Graph()
    try:
        with graph.as_default():
            tf.import_graph_def(definition, name="")
    except (tf.errors.OpError, ValueError) as exc:
        raise ExportError(_CANNOT.format(first_line(exc))) from exc
    fed = {name: info["name"] for name, info in model["signature"]["inputs"].items()}
    wanted = [info["name"] for info in model["signature"]["outputs"].values()]
    with tf.compat.v1.Session(graph=graph) as session:

        def predict(tensors: Tensors) -> dict[str, npt.NDArray[Any]]:
            try:
                answers = session.run(wanted, {fed[name]: value for name, value in tensors.items()})
            except (tf.errors.OpError, OverflowError) as exc:
                raise ExportError(_CANNOT.format(first_line(exc))) from exc
            named = zip(metadata["structuredOutputKeys"], map(as_array, answers), strict=True)
            return {name: _in(metadata["savedModelDtypes"].get(name), answer) for name, answer in named}

        yield predict


@dataclass(frozen=True, slots=True)
class TfJs:
    """The format ``tfjs`` of a version."""

    name: str = "tfjs"
    file: Path = FILE
    approximate: bool = False

    def write(self, saved_model: Path, destination: Path) -> Mapping[str, Any]:
        """Write ``model.json`` and its shards; return what the manifest says of them (`write`)."""
        report = write(saved_model, destination.parent)
        return {"files": len(report.files), "bytes": report.size, "dtypes": dict(report.dtypes)}

    def reload(self, path: Path) -> AbstractContextManager[Predict]:
        """Read them back (`reload`)."""
        return reload(path.parent)


# --- private ---------------------------------------------------------------------------------------------------------

_FLOAT, _INT, _COMPLEX = tf.float32, tf.int32, tf.complex64
_KINDS = {
    **dict.fromkeys((tf.float16, tf.bfloat16, tf.float32, tf.float64), _FLOAT),
    **dict.fromkeys((tf.int8, tf.int16, tf.int32, tf.int64, tf.uint8, tf.uint16, tf.uint32, tf.uint64), _INT),
    **dict.fromkeys((tf.complex64, tf.complex128), _COMPLEX),
    tf.bool: tf.bool,
    tf.string: tf.string,
}
"""What becomes of TensorFlow's dtypes."""
_HANDLES = (tf.resource, tf.variant)
"""Dtypes of what is passed on between operations and holds no numbers of its own."""
_CANNOT = "TensorFlow cannot compute it in TF.js's dtypes: {}"
_PASSES = ("pruning", "function", "constfold", "arithmetic", "dependency") * 2
"""Of TensorFlow's optimizer: those that bring in no operations of their own for one kind of processor."""


@dataclass(frozen=True, slots=True)
class _Frozen:
    """A graph without variables, and its tensors by their names in the signature, in the order in which TF.js goes."""

    graph: Any
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Weight:
    """A constant: its entry in the manifest, and its bytes."""

    entry: Mapping[str, Any]
    data: bytes


def _frozen(saved_model: Path) -> _Frozen:
    try:
        loaded = tf.saved_model.load(str(saved_model))
        function = loaded.signatures[SIGNATURE]
        frozen = convert_variables_to_constants_v2(function)
    except (tf.errors.OpError, AttributeError, KeyError, NotImplementedError, TypeError, ValueError) as exc:
        raise ExportError(f"TensorFlow cannot make constants of its variables: {first_line(exc)}") from exc
    if tables := {op.type for op in frozen.graph.get_operations()} & {"HashTableV2", "LookupTableFindV2"}:
        raise ExportError(f"lookup tables ({', '.join(sorted(tables))}) cannot be written for TF.js")
    nodes = {tensor.op.name: tensor for tensor in frozen.inputs}
    arguments = {key: spec.name for key, spec in function.structured_input_signature[1].items()}
    inputs = {name: nodes.get(arguments.get(key)) for name, key in _keys(saved_model).items()}
    if None in inputs.values() or len(frozen.inputs) != len(inputs):
        raise ExportError(f"its inputs {', '.join(inputs)} became {', '.join(nodes)} when its variables were frozen")
    outputs = dict(zip(sorted(function.structured_outputs), frozen.outputs, strict=True))
    return _Frozen(frozen.graph, _in_order(inputs), _in_order(outputs))


def _keys(saved_model: Path) -> dict[str, str]:
    """Return, by the names of the signature's inputs, what TensorFlow's Python calls them."""
    saved = saved_model_pb2.SavedModel.FromString((saved_model / GRAPH).read_bytes())
    (signature,) = [each.signature_def[SIGNATURE] for each in saved.meta_graphs if each.meta_info_def.tags == ["serve"]]
    names = {name: info.name.partition(":")[0] for name, info in signature.inputs.items()}
    return {name: node.removeprefix(f"{SIGNATURE}_") for name, node in names.items()}


def _in_order(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Order them as JavaScript does: names that are whole numbers come first, whatever stands first in the file."""

    def place(name: str) -> tuple[bool, int, str]:
        number = name.isascii() and name.isdecimal() and str(int(name)) == name
        return not number, int(name) if number else 0, name

    return {name: tensors[name] for name in sorted(tensors, key=place)}


def _simplified(frozen: _Frozen) -> Any:
    """Return the graph as TensorFlow simplifies it: no functions, and without loops no order but that of the data."""
    meta = meta_graph_pb2.MetaGraphDef(graph_def=frozen.graph.as_graph_def())
    signature = meta.signature_def[SIGNATURE]  # what it must keep
    for name, each in frozen.inputs.items():
        signature.inputs[name].CopyFrom(_info(each))
    for name, each in frozen.outputs.items():
        signature.outputs[name].CopyFrom(_info(each))
    config = config_pb2.ConfigProto()
    rewriting = config.graph_options.rewrite_options
    rewriting.meta_optimizer_iterations = rewriting.ONE
    rewriting.min_graph_nodes = -1  # small graphs, too
    rewriting.optimizers.extend(_PASSES)
    try:
        graph = tf_optimizer.OptimizeGraph(config, meta)
    except (tf.errors.OpError, ValueError) as exc:
        raise ExportError(f"TensorFlow cannot simplify its graph: {first_line(exc)}") from exc
    _spell_out_erfc(graph)
    nodes = {node.name: node for node in graph.node}
    loops = any(node.op == "Enter" for node in graph.node)  # in these, order is what tells one round from the next
    waiting = [each.op.name for each in (*frozen.inputs.values(), *frozen.outputs.values())]
    kept: set[str] = set()
    while waiting:
        if (name := waiting.pop()) not in kept:
            kept.add(name)
            node = nodes[name]
            if not loops:
                node.input[:] = _data(node.input)
            waiting += [each.removeprefix("^").partition(":")[0] for each in node.input]
    return graph_pb2.GraphDef(node=[node for node in graph.node if node.name in kept], versions=graph.versions)


def _spell_out_erfc(graph: Any) -> None:
    """Compute 1 - erf(x) where TensorFlow has an operation for it, as Keras's gelu does, and TF.js has none."""
    for node in [node for node in graph.node if node.op == "Erfc"]:
        kind = node.attr["T"]
        one, erf = f"{node.name}/one", f"{node.name}/erf"
        value = tf.make_tensor_proto(1, tf.as_dtype(kind.type), ())
        beside = "^" + node.input[0].partition(":")[0]  # in the same round of a loop
        graph.node.add(
            name=one, op="Const", input=[beside], attr={"dtype": kind, "value": attr_value_pb2.AttrValue(tensor=value)}
        )
        graph.node.add(name=erf, op="Erf", input=node.input, attr={"T": kind})
        node.op = "Sub"
        node.input[:] = [one, erf]


def _data(names: Iterable[str]) -> list[str]:
    """Return the inputs that are data: TF.js would take those that only say what comes first for data, too."""
    return [name for name in names if not name.startswith("^")]


def _order(graph: Any) -> dict[str, list[str]]:
    """Return the other inputs by node: TF.js needs none, TensorFlow does."""
    order = {node.name: [name for name in node.input if name.startswith("^")] for node in graph.node}
    return {name: others for name, others in order.items() if others}


def _check(graph: Any, frozen: _Frozen) -> None:
    """Refuse by name what TF.js lacks.

    Raises:
        ExportError: operations, or dtypes.
    """
    if lacking := sorted({node.op for node in graph.node} - OPERATIONS):
        raise ExportError(f"TF.js has no {', '.join(lacking)}")
    dtypes = {tf.as_dtype(kind) for node in graph.node for kind in _dtypes(node)}
    if odd := sorted(each.name for each in dtypes - set(_KINDS) - set(_HANDLES)):
        raise ExportError(f"TF.js has no numbers of the kind {', '.join(odd)}")
    nodes = [each.op.name for each in frozen.outputs.values()]
    if len(set(nodes)) < len(nodes):
        raise ExportError(f"two of its outputs {', '.join(frozen.outputs)} are one operation's, which TF.js mixes up")


def _dtypes(node: Any) -> Iterator[int]:
    for attribute in node.attr.values():
        if attribute.WhichOneof("value") == "type":
            yield attribute.type
        yield from attribute.list.type


def _in(dtype: str | None, answer: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return answer if dtype is None else answer.astype(tf.as_dtype(dtype).as_numpy_dtype)


def _kind(number: int) -> int:
    dtype = tf.as_dtype(number)
    return int(_KINDS.get(dtype, dtype).as_datatype_enum)


def _to_kinds(graph: Any) -> None:
    """Let every operation compute in TF.js's dtypes, and let go of what TF.js does not read."""
    for node in graph.node:
        for name in [name for name in node.attr if name.startswith("_")]:
            del node.attr[name]
        for attribute in node.attr.values():
            if attribute.WhichOneof("value") == "type":
                attribute.type = _kind(attribute.type)
            elif attribute.list.type:
                attribute.list.type[:] = [_kind(each) for each in attribute.list.type]
        node.device = ""
        if node.op == "Const":
            tensor = node.attr["value"].tensor
            shape = tf.TensorShape(tensor.tensor_shape).as_proto()
            tensor.Clear()
            tensor.dtype = node.attr["dtype"].type
            tensor.tensor_shape.CopyFrom(shape)


def _weight(node: Any) -> _Weight:
    tensor = node.attr["value"].tensor
    kind = _KINDS[tf.as_dtype(tensor.dtype)]
    array = tf.make_ndarray(tensor)
    entry = {"name": node.name, "shape": list(array.shape), "dtype": kind.name}
    if kind == tf.string:
        texts = array.reshape(-1).tolist()
        return _Weight(entry, b"".join(len(text).to_bytes(4, "little") + text for text in texts))
    if kind == _INT:  # such as the end of a slice that means "to the last"
        array = np.clip(array, *(array.dtype.type(bound) for bound in _bounds(array.dtype)))
    wanted = np.dtype(kind.as_numpy_dtype).newbyteorder("<")
    return _Weight(entry, np.ascontiguousarray(array).astype(wanted).tobytes())


def _bounds(dtype: Any) -> tuple[int, int]:
    """Return the least and the largest number that both a dtype and int32 have."""
    own, int32 = np.iinfo(dtype), np.iinfo(np.int32)
    return max(own.min, int32.min), min(own.max, int32.max)


def _fill(graph: Any, entries: Sequence[Mapping[str, Any]], data: bytes) -> None:
    """Give a graph's constants the values that the shards have."""
    constants = {node.name: node for node in graph.node if node.op == "Const"}
    at = 0
    for entry in entries:
        shape, kind = entry["shape"], tf.as_dtype(entry["dtype"])
        if kind == tf.string:
            texts = []
            for _ in range(math.prod(shape)):
                end = at + 4 + int.from_bytes(data[at : at + 4], "little")
                texts.append(data[at + 4 : end])
                at = end
            array = np.array(texts, object).reshape(shape)
        else:
            wanted = np.dtype(kind.as_numpy_dtype).newbyteorder("<")
            array = np.frombuffer(data, wanted, math.prod(shape), at).reshape(shape)
            at += array.nbytes
        constants[entry["name"]].attr["value"].tensor.CopyFrom(tf.make_tensor_proto(array, kind, shape))


def _infos(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return a signature's tensors as model.json has them."""
    infos = {name: _info(each) for name, each in tensors.items()}
    for each in infos.values():
        each.dtype = _kind(each.dtype)
    return {name: json_format.MessageToDict(each) for name, each in infos.items()}


def _info(tensor: Any) -> Any:
    return meta_graph_pb2.TensorInfo(
        name=tensor.name, dtype=tensor.dtype.as_datatype_enum, tensor_shape=tensor.shape.as_proto()
    )


def _topology(graph: Any) -> dict[str, Any]:
    """Return a graph as JSON has it; equal graphs are equal texts."""
    topology = json_format.MessageToDict(graph)
    for node in topology["node"]:
        node["input"] = _data(node.get("input", []))
        node["attr"] = dict(sorted(node.get("attr", {}).items()))
    return {"node": topology["node"], "versions": topology["versions"]}
