"""What a .tflite file says about itself: its signatures, and where in LiteRT's order their tensors stand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from horngate_protos.datatypes import BY_NAME, Datatype
from horngate_server.core.signature import Signature, TensorSpec
from horngate_server.runtimes.litert import graph
from horngate_server.runtimes.litert.capi import MAX_RANK
from horngate_server.runtimes.litert.flatbuffer import Table, damaged, root
from horngate_server.runtimes.litert.graph import Graph, Tensor

UNNAMED = "serving_default"
"""What the signature of a file without any is called."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One signature, and where LiteRT wants what: it counts a graph's inputs and outputs.

    Attributes:
        index: its number.
        signature: what callers see.
        inputs: for each of the graph's inputs, its place among the signature's.
        outputs: for each of the graph's outputs, its place among ``results``.
        results: for each tensor that comes out, the places among the signature's outputs that it stands for.
        through: for those of the results that are an input as it came, the place of that one.
    """

    index: int
    signature: Signature
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    results: tuple[tuple[int, ...], ...]
    through: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Contents:
    """What was read.

    Attributes:
        entries: the signatures that can be served, by name.
        refused: why others cannot be, by name.
    """

    entries: Mapping[str, Entry]
    refused: Mapping[str, str]


def read(buffer: memoryview) -> Contents:
    """Read a file's signatures.

    Raises:
        ModelError: it is no .tflite file, or a damaged one.
    """
    model = root(buffer, b"TFL3")
    graphs = graph.read(model)
    entries: dict[str, Entry] = {}
    refused: dict[str, str] = {}
    for index, found in enumerate(_named(model, graphs)):
        if found.name in entries or found.name in refused:
            raise damaged(f"two signatures are called {found.name!r}")
        try:
            entries[found.name] = _entry(index, found)
        except _Refused as error:
            refused[found.name] = str(error)
    return Contents(entries, refused)


ELEMENTS = {
    "FP32": 1, "INT32": 2, "UINT8": 3, "INT64": 4, "BOOL": 6, "INT16": 7, "INT8": 9, "FP16": 10, "FP64": 11,
    "UINT64": 13, "UINT32": 16, "UINT16": 17, "BF16": 19,
}  # fmt: skip
"""LiteRT's numbers for types of elements in memory. Those in files are others."""

# --- private ------------------------------------------------------------------------------------------

_DATATYPES: Mapping[int, Datatype] = {
    number: BY_NAME[name]
    for number, name in {
        0: "FP32", 1: "FP16", 2: "INT32", 3: "UINT8", 4: "INT64", 6: "BOOL", 7: "INT16", 9: "INT8", 10: "FP64",
        12: "UINT64", 15: "UINT32", 16: "UINT16", 18: "BF16",
    }.items()
}  # fmt: skip
_OTHERS = {5: "STRING", 8: "COMPLEX64", 11: "COMPLEX128", 13: "RESOURCE", 14: "VARIANT", 17: "INT4"}
_WRITES = {graph.CALL_ONCE: "CALL_ONCE", graph.ASSIGN_VARIABLE: "ASSIGN_VARIABLE"}
# Places of fields in the file's tables.
_SIGNATURES = 7
_INPUTS, _OUTPUTS, _KEY, _GRAPH = 0, 1, 2, 4
_NAME, _TENSOR = 0, 1


class _Refused(Exception):
    """A signature that is none that can be served."""


@dataclass(frozen=True, slots=True)
class _Found:
    """A signature as the file has it: the graph's tensors by the callers' names."""

    name: str
    graph: Graph
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]


def _named(model: Table, graphs: Sequence[Graph]) -> list[_Found]:
    """Return the file's signatures; where there are none, the first graph with its tensors' own names."""
    definitions = model.tables(_SIGNATURES)
    if not definitions:
        first = graphs[0]
        return [_Found(UNNAMED, first, _own_names(first, first.inputs), _own_names(first, first.outputs))]
    found = []
    for each in definitions:
        name, place = each.text(_KEY), each.number(_GRAPH, "I")
        if place >= len(graphs):
            raise damaged(f"signature {name!r} is graph {place} of {len(graphs)}")
        found.append(_Found(name, graphs[place], _names(each, _INPUTS), _names(each, _OUTPUTS)))
    return found


def _own_names(of: Graph, places: Sequence[int]) -> Mapping[str, int]:
    return {of.tensors[place].name: place for place in places}


def _names(definition: Table, field: int) -> Mapping[str, int]:
    return {each.text(_NAME): each.number(_TENSOR, "I") for each in definition.tables(field)}


def _entry(index: int, found: _Found) -> Entry:
    """Say where a signature's tensors stand.

    Raises:
        _Refused: it cannot be served, with the reason.
    """
    tensors = found.graph.tensors
    if custom := sorted({step.custom for step in found.graph.steps} - {""}):
        raise _Refused(f"it needs {', '.join(custom)}, which LiteRT does not have")  # LiteRT computes nothing there
    if "" in found.inputs or "" in found.outputs:
        raise _Refused("a tensor has no name")
    # LiteRT finds a graph's tensors by these names, and crashes over one without.
    if sorted(found.inputs.values()) != sorted(found.graph.inputs):
        raise _Refused("its names are not those of the graph's inputs, one by one")
    if set(found.outputs.values()) != set(found.graph.outputs):
        raise _Refused("its names are not those of the graph's outputs")
    inputs = [_spec(name, tensors[place]) for name, place in sorted(found.inputs.items())]
    outputs = [_spec(name, tensors[place]) for name, place in sorted(found.outputs.items())]
    if not outputs:
        raise _Refused("it has no outputs")
    given = [found.inputs[spec.name] for spec in inputs]
    wanted = [found.outputs[spec.name] for spec in outputs]
    _check_sizes(found.graph, inputs, outputs, wanted)
    distinct = sorted(set(wanted))
    codes = {step.code for step in found.graph.steps}
    writes = {_WRITES[code] for code in codes if code in _WRITES}
    if any(tensor.variable for tensor in tensors):
        writes.add("VARIABLE")
    return Entry(
        index,
        Signature(found.name, tuple(inputs), tuple(outputs), writes=tuple(sorted(writes)), loops=graph.WHILE in codes),
        tuple(given.index(place) for place in found.graph.inputs),
        tuple(distinct.index(place) for place in found.graph.outputs),
        tuple(tuple(at for at, each in enumerate(wanted) if each == place) for place in distinct),
        {at: given.index(place) for at, place in enumerate(distinct) if place in given},
    )


def _spec(name: str, tensor: Tensor) -> TensorSpec:
    known = _DATATYPES.get(tensor.type)
    if known is None:
        raise _Refused(f"{name} has the type {_OTHERS.get(tensor.type, tensor.type)}, which this engine does not serve")
    if len(tensor.shape) > MAX_RANK:
        raise _Refused(f"{name} has {len(tensor.shape)} axes; LiteRT takes {MAX_RANK}")
    return TensorSpec(name, known, tensor.shape, tensor.name)


def _check_sizes(of: Graph, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], places: Sequence[int]) -> None:
    """Refuse outputs whose size nobody knows before they are computed: LiteRT writes past memory that is too small."""
    in_rows = any(spec.in_rows for spec in inputs)
    loose = graph.shaped_by_values(of)
    for spec, place in zip(outputs, places, strict=True):
        if spec.is_open:
            raise _Refused(f"output {spec} has an axis whose length is known only once it is computed")
        if spec.in_rows and not in_rows:
            raise _Refused(f"output {spec} has rows, and no input has")
        if spec.in_rows and place in loose:
            raise _Refused(f"output {spec} has as many rows as the values make, not as the input has")
