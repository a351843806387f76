"""What a SavedModel's graph tells before it runs: what a signature changes, whether it loops, which ones are the same.

Read from the MetaGraphDef alone, from a signature's outputs backwards and through the functions that it calls.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from horngate_protos.datatypes import BYTES
from horngate_protos.tensorflow_pb2 import AttrValue, FunctionDef, MetaGraphDef, NodeDef, TensorShapeProto
from horngate_server.core.signature import FREE, Feature, Signature

WRITES = re.compile(
    r"""
    Assign(Add|Sub|Variable|AddVariable|SubVariable)?(Op)?$ | Assign\w*Variable\w*
    | (Resource)?StridedSliceAssign | ResourceScatter\w+ | Scatter(Nd)?(Add|Sub|Mul|Div|Min|Max|Update)
    | (Resource)?(Sparse)?Apply[A-Z]\w+ | (Resource)?CountUpTo | \w*Accumulator\w*
    | LookupTable(Insert|Remove|Import)(V2)? | InitializeTable\w* | Reader(Read|Reset|Restore)\w*
    | Queue(Enqueue|Dequeue|Close)\w* | Stack(Push|Pop)(V2)? | Barrier(Insert|Take|Close)\w*
    | (Ordered)?Map(Un)?[sS]tage\w* | (Un)?[sS]tage(Clear)? | IteratorGetNext\w*
    | Stateful(Uniform|StandardNormal|TruncatedNormal|RandomBinomial)\w* | Rng(Skip|ReadAndSkip)
    | (Eager)?PyFunc(Stateless)? | Write(File|\w*Summary) | Save(V2|Slices)?
    """,
    re.VERBOSE,
)
"""Operations after which a model, or a file, is not what it was: a run of them cannot be taken back or repeated."""
LOOPS = frozenset({"While", "StatelessWhile", "For", "Enter", "RefEnter", "NextIteration", "RefNextIteration"})
"""Operations that may run others any number of times."""
PLAIN = frozenset({"PartitionedCall", "StatefulPartitionedCall", "Identity", "NoOp"})
"""All that a wrapper of another function has in it."""
PARSERS = frozenset({"ParseExample", "ParseExampleV2", "ParseSingleExample"})
"""Operations that read serialized tf.Examples."""


def annotated(signatures: Sequence[Signature], definition: MetaGraphDef) -> list[Signature]:
    """Return signatures with what the graph says about them (`Signature.writes`, ``loops``, ``same_as``, features).

    Args:
        signatures: the one that others may be the same as first.
        definition: whose graph they are in.
    """
    graph = _Graph(definition)
    first: dict[object, str] = {}
    found = []
    for signature in signatures:
        reached = graph.reached(_node(spec.tensor) for spec in signature.outputs)
        inputs = signature.inputs
        features = graph.features(reached)
        if features and sum(spec.datatype is BYTES for spec in inputs) == 1:  # else, which one is parsed is not plain
            inputs = tuple(replace(spec, features=features) if spec.datatype is BYTES else spec for spec in inputs)
        kind = graph.kind(signature)
        same_as = "" if kind is None else first.setdefault(kind, signature.name)
        found.append(
            replace(
                signature,
                inputs=inputs,
                writes=tuple(sorted(op for op in reached.operations if WRITES.fullmatch(op))),
                loops=not LOOPS.isdisjoint(reached.operations),
                same_as="" if same_as == signature.name else same_as,
            )
        )
    return found


# --- private ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Reached:
    """What is run for some outputs: operations by name, and what parses tf.Examples, beside the nodes around it."""

    operations: frozenset[str]
    parsers: Sequence[tuple[NodeDef, Mapping[str, NodeDef]]]


class _Graph:
    """A MetaGraphDef's nodes and functions by name."""

    def __init__(self, definition: MetaGraphDef) -> None:
        self._nodes = {node.name: node for node in definition.graph_def.node}
        self._functions = {each.signature.name: each for each in definition.graph_def.library.function}

    def reached(self, names: Iterable[str]) -> _Reached:
        """Follow nodes backwards, and into every function that they call, all of whose nodes count."""
        operations: set[str] = set()
        parsers: list[tuple[NodeDef, Mapping[str, NodeDef]]] = []
        functions: dict[str, FunctionDef] = {}
        waiting = list(names)
        seen = set(waiting)
        while waiting:
            node = self._nodes.get(waiting.pop())
            if node is None:
                continue
            self._enter(node, self._nodes, operations, parsers, functions)
            for name in map(_node, node.input):
                if name not in seen:
                    seen.add(name)
                    waiting.append(name)
        done: set[str] = set()
        while left := functions.keys() - done:
            for name in left:
                done.add(name)
                body = {node.name: node for node in functions[name].node_def}
                for node in body.values():
                    self._enter(node, body, operations, parsers, functions)
        return _Reached(frozenset(operations), parsers)

    def features(self, reached: _Reached) -> tuple[Feature, ...]:
        """Return what is read of serialized tf.Examples."""
        found: dict[str, Feature] = {}
        for node, nodes in reached.parsers:
            for feature in _parsed(node, nodes):
                found.setdefault(feature.name, feature)
        return tuple(found.values())

    def kind(self, signature: Signature) -> object | None:
        """Return what is equal for signatures that run one function on the same inputs; None where that is not plain.

        Keras exports ``serve`` and ``serving_default``, and TensorFlow wraps each in a function of its own: these
        differ in their names alone.
        """
        calls = {_node(spec.tensor) for spec in signature.outputs}
        if len(calls) != 1:
            return None
        call = self._nodes.get(calls.pop())
        if call is None or call.op not in {"PartitionedCall", "StatefulPartitionedCall"}:
            return None
        wrapper = self._functions.get(call.attr["f"].func.name)
        if wrapper is None or not PLAIN.issuperset(node.op for node in wrapper.node_def):
            return None  # others have attributes that are not read here
        body = FunctionDef()
        body.CopyFrom(wrapper)
        body.signature.name = ""
        body.DiscardUnknownFields()  # where its code was, and what its arguments were called before
        given = {_node(spec.tensor): spec.name for spec in signature.inputs}
        arguments = tuple(("input", given[name]) if (name := _node(each)) in given else each for each in call.input)
        outputs = tuple((spec, _index(spec.tensor)) for spec in signature.outputs)
        return call.op, body.SerializeToString(deterministic=True), arguments, signature.inputs, outputs

    def _enter(
        self,
        node: NodeDef,
        nodes: Mapping[str, NodeDef],
        operations: set[str],
        parsers: list[tuple[NodeDef, Mapping[str, NodeDef]]],
        functions: dict[str, FunctionDef],
    ) -> None:
        operations.add(node.op)
        if node.op in PARSERS:
            parsers.append((node, nodes))
        for name in _called(node):
            if name in self._functions:
                functions[name] = self._functions[name]


def _called(node: NodeDef) -> Iterator[str]:
    """Yield the names of functions that a node may call; an operation's name may be one."""
    yield node.op
    for value in node.attr.values():
        kind = value.WhichOneof("value")
        if kind == "func":
            yield value.func.name
        elif kind == "list":
            for each in value.list.func:
                yield each.name


def _node(tensor: str) -> str:
    """Return the node of "node:index", of "node:output:index" in functions, or of "^node"."""
    return tensor.lstrip("^").partition(":")[0]


def _index(tensor: str) -> int:
    return int(tensor.partition(":")[2] or 0)


def _parsed(node: NodeDef, nodes: Mapping[str, NodeDef]) -> Iterator[Feature]:
    """Yield the features that a parser reads: dense ones with their sizes, sparse and ragged ones of any."""
    attributes = node.attr
    shapes = [_size(shape) for shape in attributes["dense_shapes"].list.shape]
    dense_types = list(attributes["Tdense"].list.type)
    loose_types = [*attributes["sparse_types"].list.type, *attributes["ragged_value_types"].list.type]
    loose: Sequence[bytes]
    dense: Sequence[bytes]
    if node.op == "ParseSingleExample":
        loose, dense = attributes["sparse_keys"].list.s, attributes["dense_keys"].list.s
    elif node.op == "ParseExampleV2":
        sparse_keys, dense_keys, ragged_keys = (_strings(nodes, each) for each in node.input[2:5])
        loose, dense = [*sparse_keys, *ragged_keys], dense_keys
    else:
        sparse, keys = attributes["Nsparse"].i, [key for each in node.input[2:] for key in _strings(nodes, each)[:1]]
        loose, dense = keys[:sparse], keys[sparse : sparse + attributes["Ndense"].i]
    for key, type_, size in zip(dense, dense_types, shapes, strict=False):
        yield Feature(key.decode(errors="replace"), type_, size)
    for key, type_ in zip(loose, loose_types, strict=False):
        yield Feature(key.decode(errors="replace"), type_, FREE)


def _size(shape: TensorShapeProto) -> int:
    sizes = [dim.size for dim in shape.dim]
    return FREE if shape.unknown_rank or FREE in sizes else prod(sizes)


def _strings(nodes: Mapping[str, NodeDef], tensor: str) -> list[bytes]:
    """Return the strings of a constant; none where it is none."""
    node = nodes.get(_node(tensor))
    while node is not None and node.op == "Identity" and node.input:
        node = nodes.get(_node(node.input[0]))
    if node is None or node.op != "Const":
        return []
    value: AttrValue = node.attr["value"]
    return list(value.tensor.string_val)
