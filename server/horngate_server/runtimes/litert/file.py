"""What a .tflite file says about itself: its signatures, and where in LiteRT's order their tensors stand."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from horngate_protos.datatypes import BY_NAME, Datatype
from horngate_server.core.signature import FREE, Signature, TensorSpec
from horngate_server.runtimes.litert.capi import MAX_RANK
from horngate_server.runtimes.litert.flatbuffer import Table, damaged, root

UNNAMED = "serving_default"
"""What the signature of a file without any is called."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One signature, and where LiteRT wants what: it counts a graph's inputs and outputs, and knows no names for them.

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
        custom: operations that are not LiteRT's own, by name.
    """

    entries: Mapping[str, Entry]
    refused: Mapping[str, str]
    custom: tuple[str, ...]


def read(buffer: memoryview) -> Contents:
    """Read a file's signatures.

    Raises:
        ModelError: it is no .tflite file, or a damaged one.
    """
    model = root(buffer, b"TFL3")
    operations = [_operation(each) for each in model.tables(_Model.OPERATORS)]
    graphs = [_graph(each, operations) for each in model.tables(_Model.GRAPHS)]
    if not graphs:
        raise damaged("it has no graph")
    entries: dict[str, Entry] = {}
    refused: dict[str, str] = {}
    for index, found in enumerate(_named(model, graphs)):
        if found.name in entries or found.name in refused:
            raise damaged(f"two signatures are called {found.name!r}")
        try:
            entries[found.name] = _entry(index, found)
        except _Refused as error:
            refused[found.name] = str(error)
    custom = sorted({operations[each.code].custom for graph in graphs for each in graph.steps} - {""})
    return Contents(entries, refused, tuple(custom))


# --- private ------------------------------------------------------------------------------------------


class _Model:
    """Places of a Model's fields; so below."""

    OPERATORS, GRAPHS, SIGNATURES = 1, 2, 7


class _Graph:
    TENSORS, INPUTS, OUTPUTS, STEPS = 0, 1, 2, 3


class _Tensor:
    SHAPE, TYPE, NAME, VARIABLE, FREE_SHAPE = 0, 1, 3, 5, 7


class _Operator:
    OLD_CODE, CUSTOM, CODE = 0, 1, 3


class _Step:
    CODE, INPUTS, OUTPUTS = 0, 1, 2


class _SignatureDef:
    INPUTS, OUTPUTS, KEY, GRAPH = 0, 1, 2, 4


class _Name:
    NAME, TENSOR = 0, 1


class _Refused(Exception):
    """A signature that is none that can be served."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A kind of step: its number, and the name of one that is not LiteRT's own."""

    code: int
    custom: str


@dataclass(frozen=True, slots=True)
class Step:
    """One operation of a graph, with the tensors that it takes and gives, by place."""

    code: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor as the file has it."""

    name: str
    type: int
    shape: tuple[int, ...]
    variable: bool


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph as the file has it."""

    tensors: tuple[Tensor, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    steps: tuple[Step, ...]
    operations: Sequence[Operation]


@dataclass(frozen=True, slots=True)
class Found:
    """A signature as the file has it: the graph's tensors by the callers' names."""

    name: str
    graph: Graph
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]


_CUSTOM = 32
_WHILE = 119
_WRITES = {129: "CALL_ONCE", 144: "ASSIGN_VARIABLE"}
_OLD_CODES_END = 127
"""From here on an operation's number stands in a field of its own."""

DATATYPES: Mapping[int, tuple[Datatype, int]] = {
    number: (BY_NAME[name], element)
    for number, name, element in (
        (0, "FP32", 1), (1, "FP16", 10), (2, "INT32", 2), (3, "UINT8", 3), (4, "INT64", 4), (6, "BOOL", 6),
        (7, "INT16", 7), (9, "INT8", 9), (10, "FP64", 11), (12, "UINT64", 13), (15, "UINT32", 16),
        (16, "UINT16", 17), (18, "BF16", 19),
    )
}  # fmt: skip
"""By a type's number in the file: ours, and LiteRT's number for it in memory."""
ELEMENTS = {datatype.name: element for datatype, element in DATATYPES.values()}
_OTHERS = {5: "STRING", 8: "COMPLEX64", 11: "COMPLEX128", 13: "RESOURCE", 14: "VARIANT", 17: "INT4"}


def _operation(table: Table) -> Operation:
    code = max(table.number(_Operator.OLD_CODE, "b"), table.number(_Operator.CODE, "i"))
    return Operation(code, table.text(_Operator.CUSTOM) if code == _CUSTOM else "")


def _graph(table: Table, operations: Sequence[Operation]) -> Graph:
    tensors = tuple(_tensor(each) for each in table.tables(_Graph.TENSORS))
    steps = tuple(
        Step(
            each.number(_Step.CODE, "I"), each.numbers(_Step.INPUTS, "i") or (), each.numbers(_Step.OUTPUTS, "i") or ()
        )
        for each in table.tables(_Graph.STEPS)
    )
    graph = Graph(
        tensors, table.numbers(_Graph.INPUTS, "i") or (), table.numbers(_Graph.OUTPUTS, "i") or (), steps, operations
    )
    for step in steps:
        if step.code >= len(operations):
            raise damaged(f"a step is operation {step.code} of {len(operations)}")
        _known(step.inputs, tensors, -1)  # -1 is an input that is left out
        _known(step.outputs, tensors, -1)
    _known(graph.inputs, tensors, 0)
    _known(graph.outputs, tensors, 0)
    return graph


def _known(places: Iterable[int], tensors: Sequence[Tensor], least: int) -> None:
    for place in places:
        if not least <= place < len(tensors):
            raise damaged(f"tensor {place} of {len(tensors)} is asked for")


def _tensor(table: Table) -> Tensor:
    shape = table.numbers(_Tensor.SHAPE, "i") or ()
    free = table.numbers(_Tensor.FREE_SHAPE, "i") or shape
    name = table.text(_Tensor.NAME)
    if len(free) != len(shape) or any(mine not in (theirs, FREE) for mine, theirs in zip(free, shape, strict=True)):
        raise damaged(f"tensor {name!r} has the shapes {list(shape)} and {list(free)}")
    return Tensor(name, table.number(_Tensor.TYPE, "b"), free, bool(table.number(_Tensor.VARIABLE, "b")))


def _named(model: Table, graphs: Sequence[Graph]) -> list[Found]:
    """Return the file's signatures; where there are none, the first graph with its tensors' own names."""
    definitions = model.tables(_Model.SIGNATURES)
    if not definitions:
        graph = graphs[0]
        return [Found(UNNAMED, graph, _own_names(graph, graph.inputs), _own_names(graph, graph.outputs))]
    found = []
    for each in definitions:
        name, place = each.text(_SignatureDef.KEY), each.number(_SignatureDef.GRAPH, "I")
        if place >= len(graphs):
            raise damaged(f"signature {name!r} is graph {place} of {len(graphs)}")
        graph = graphs[place]
        found.append(Found(name, graph, _names(each, _SignatureDef.INPUTS), _names(each, _SignatureDef.OUTPUTS)))
    return found


def _own_names(graph: Graph, places: Sequence[int]) -> Mapping[str, int]:
    return {graph.tensors[place].name: place for place in places}


def _names(definition: Table, field: int) -> Mapping[str, int]:
    return {each.text(_Name.NAME): each.number(_Name.TENSOR, "I") for each in definition.tables(field)}


def _entry(index: int, found: Found) -> Entry:
    """Say where a signature's tensors stand.

    Raises:
        _Refused: it cannot be served, with the reason.
    """
    graph = found.graph
    if "" in found.inputs or "" in found.outputs:
        raise _Refused("a tensor has no name")
    if sorted(found.inputs.values()) != sorted(graph.inputs):
        raise _Refused("its names are not those of the graph's inputs, one by one")
    if set(found.outputs.values()) != set(graph.outputs):
        raise _Refused("its names are not those of the graph's outputs")
    inputs = [_spec(name, graph.tensors[place]) for name, place in sorted(found.inputs.items())]
    outputs = [_spec(name, graph.tensors[place]) for name, place in sorted(found.outputs.items())]
    if not outputs:
        raise _Refused("it has no outputs")
    _check_rows(inputs, outputs)
    given = [found.inputs[spec.name] for spec in inputs]
    wanted = [found.outputs[spec.name] for spec in outputs]
    distinct = sorted(set(wanted))
    codes = [graph.operations[step.code].code for step in graph.steps]
    writes = {_WRITES[code] for code in codes if code in _WRITES}
    if any(tensor.variable for tensor in graph.tensors):
        writes.add("VARIABLE")
    return Entry(
        index,
        Signature(found.name, tuple(inputs), tuple(outputs), writes=tuple(sorted(writes)), loops=_WHILE in codes),
        tuple(given.index(place) for place in graph.inputs),
        tuple(distinct.index(place) for place in graph.outputs),
        tuple(tuple(at for at, each in enumerate(wanted) if each == place) for place in distinct),
        {at: given.index(place) for at, place in enumerate(distinct) if place in given},
    )


def _spec(name: str, tensor: Tensor) -> TensorSpec:
    known = DATATYPES.get(tensor.type)
    if known is None:
        raise _Refused(f"{name} has the type {_OTHERS.get(tensor.type, tensor.type)}, which LiteRT here does not serve")
    if len(tensor.shape) > MAX_RANK:
        raise _Refused(f"{name} has {len(tensor.shape)} axes; LiteRT takes {MAX_RANK}")
    return TensorSpec(name, known[0], tensor.shape, tensor.name)


def _check_rows(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
    """Refuse outputs whose size nobody knows before they are computed: LiteRT writes past memory that is too small."""
    in_rows = any(spec.in_rows for spec in inputs)
    for spec in outputs:
        if spec.is_open:
            raise _Refused(f"output {spec} has an axis whose length is known only once it is computed")
        if spec.in_rows and not in_rows:
            raise _Refused(f"output {spec} has rows, and no input has")
