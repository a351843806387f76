"""The graphs in a .tflite file: their tensors and operations, and whose shapes depend on values."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from horngate_server.core.signature import FREE
from horngate_server.runtimes.litert.flatbuffer import Table, damaged


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: its name, the file's number of its type, its axes, and whether runs remember it."""

    name: str
    type: int
    shape: tuple[int, ...]
    variable: bool


@dataclass(frozen=True, slots=True)
class Step:
    """One operation: the file's number for it, its own name where it is not LiteRT's, and its tensors by place."""

    code: int
    custom: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Graph:
    """One graph, its steps in the order in which they run."""

    tensors: tuple[Tensor, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    steps: tuple[Step, ...]


def read(model: Table) -> list[Graph]:
    """Read all graphs of a model.

    Raises:
        ModelError: the file is damaged.
    """
    operations = [_operation(each) for each in model.tables(_OPERATORS)]
    graphs = [_graph(each, operations) for each in model.tables(_GRAPHS)]
    if not graphs:
        raise damaged("it has no graph")
    return graphs


def shaped_by_values(graph: Graph) -> frozenset[int]:
    """Return the tensors whose shapes depend on the values of the graph's inputs, and not on their shapes alone."""
    values = {*graph.inputs}  # what depends on the inputs' values
    shapes: set[int] = set()
    for step in graph.steps:
        if step.code in _SHAPES_OF:
            if step.inputs and step.inputs[0] in shapes:
                values.update(step.outputs)
            continue
        if step.code == READ_VARIABLE or not values.isdisjoint(step.inputs):
            values.update(step.outputs)
        sizes = {step.inputs[place] for place in _SIZES.get(step.code, ()) if place < len(step.inputs)}
        carried = sizes if step.code in _SIZED_ALONE else step.inputs
        if (
            not values.isdisjoint(sizes)
            or not shapes.isdisjoint(carried)
            or (step.code in _BY_VALUES and not values.isdisjoint(step.outputs))
        ):
            shapes.update(step.outputs)
            values.update(step.outputs)
    return frozenset(shapes)


CALL_ONCE, READ_VARIABLE, ASSIGN_VARIABLE, WHILE = 129, 143, 144, 119
"""Operations, by the file's numbers for them."""

# --- private ------------------------------------------------------------------------------------------

# Places of fields in the file's tables.
_OPERATORS, _GRAPHS = 1, 2
_TENSORS, _INPUTS, _OUTPUTS, _STEPS = 0, 1, 2, 3
_SHAPE, _TYPE, _NAME, _VARIABLE, _FREE_SHAPE = 0, 1, 3, 5, 7
_OLD_CODE, _CUSTOM_CODE, _CODE = 0, 1, 3
_STEP_CODE, _STEP_INPUTS, _STEP_OUTPUTS = 0, 1, 2

_CUSTOM = 32
_OWN = 162
"""The last number of TensorFlow Lite's own operations; those beyond are StableHLO's."""
_SHAPES_OF = {77, 110}  # SHAPE, RANK
_BY_VALUES = frozenset({
    _CUSTOM, 30, 31, 33, 103, 109, 118, WHILE, 120, 121, 125, 136, 137, 138, 139, *range(_OWN + 1, 256)
})  # fmt: skip
"""WHERE, UNIQUE, NON_MAX_SUPPRESSION and what may hide such a thing: control flow, operations nobody here knows."""
_AXES = {40, 56, 74, 79, 81, 82, 89, 91, 140}  # MEAN, ARG_MAX, SUM, ARG_MIN, and other reductions
_SIZES: Mapping[int, tuple[int, ...]] = {
    **dict.fromkeys(_AXES, (1,)),
    22: (1,),  # RESHAPE
    23: (1,), 97: (1,),  # RESIZE_BILINEAR, RESIZE_NEAREST_NEIGHBOR
    34: (1,), 60: (1,), 100: (1,),  # PAD, PADV2, MIRROR_PAD
    37: (1, 2), 38: (1, 2),  # BATCH_TO_SPACE_ND, SPACE_TO_BATCH_ND
    39: (1,),  # TRANSPOSE
    45: (1, 2, 3), 65: (1, 2),  # STRIDED_SLICE, SLICE
    48: (1,),  # TOPK_V2
    49: (0,), 102: (1, 2),  # SPLIT, SPLIT_V
    67: (0,), 141: (0,),  # TRANSPOSE_CONV, CONV_3D_TRANSPOSE
    68: (1,), 122: (2,),  # SPARSE_TO_DENSE, SCATTER_ND
    69: (1,), 130: (1,),  # TILE, BROADCAST_TO
    70: (1,),  # EXPAND_DIMS
    85: (1,),  # ONE_HOT
    94: (0,), 96: (0, 1, 2),  # FILL, RANGE
    131: (1,),  # RFFT2D
    146: (0,), 148: (0,), 149: (1,),  # RANDOM_STANDARD_NORMAL, RANDOM_UNIFORM, MULTINOMIAL
    **dict.fromkeys(range(153, 158), (2,)),  # UNSORTED_SEGMENT_PROD and its like
}  # fmt: skip
"""By operation: the inputs whose values are sizes, axes or places that make the output's shape."""
_SIZED_ALONE = {67, 68, 94, 96, 122, 130, 141, 146, 148}
"""Those whose output has the shape that such an input says, whatever the others' shapes."""


def _operation(table: Table) -> tuple[int, str]:
    code = max(table.number(_OLD_CODE, "b"), table.number(_CODE, "i"))
    return code, table.text(_CUSTOM_CODE) if code == _CUSTOM else ""


def _graph(table: Table, operations: Sequence[tuple[int, str]]) -> Graph:
    tensors = tuple(_tensor(each) for each in table.tables(_TENSORS))
    graph = Graph(
        tensors,
        table.numbers(_INPUTS, "i") or (),
        table.numbers(_OUTPUTS, "i") or (),
        tuple(_step(each, operations) for each in table.tables(_STEPS)),
    )
    _known(graph.inputs, tensors, 0)
    _known(graph.outputs, tensors, 0)
    for step in graph.steps:
        _known(step.inputs, tensors, -1)  # -1 is one that is left out
        _known(step.outputs, tensors, -1)
    return graph


def _step(table: Table, operations: Sequence[tuple[int, str]]) -> Step:
    place = table.number(_STEP_CODE, "I")
    if place >= len(operations):
        raise damaged(f"operation {place} of {len(operations)} is asked for")
    return Step(*operations[place], table.numbers(_STEP_INPUTS, "i") or (), table.numbers(_STEP_OUTPUTS, "i") or ())


def _known(places: Iterable[int], tensors: Sequence[Tensor], least: int) -> None:
    for place in places:
        if not least <= place < len(tensors):
            raise damaged(f"tensor {place} of {len(tensors)} is asked for")


def _tensor(table: Table) -> Tensor:
    shape = table.numbers(_SHAPE, "i") or ()
    free = table.numbers(_FREE_SHAPE, "i") or shape
    name = table.text(_NAME)
    if len(free) != len(shape) or any(
        theirs < 0 or mine not in (theirs, FREE) for mine, theirs in zip(free, shape, strict=True)
    ):
        raise damaged(f"tensor {name!r} has the shapes {list(shape)} and {list(free)}")
    return Tensor(name, table.number(_TYPE, "b"), free, bool(table.number(_VARIABLE, "b")))
