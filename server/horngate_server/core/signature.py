"""What a model takes and returns, and whether requests may share a run of it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from math import inf, prod
from typing import NamedTuple

from horngate_protos.datatypes import Datatype
from horngate_server.core.errors import ModelError
from horngate_server.core.padding import Padding

FREE = -1
"""An axis of any length."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature of a serialized tf.Example that a graph parses.

    Attributes:
        name: its key.
        tensorflow: TensorFlow's number of its type: FLOAT 1, INT64 9 or STRING 7.
        size: how many values a row has; FREE where any number will do.
    """

    name: str
    tensorflow: int
    size: int


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One named input or output.

    Attributes:
        name: the signature's name for it, which callers use.
        datatype: its element type.
        shape: its axes, any of which may be FREE; where the first is, it may be the batch. None: any number of axes.
        tensor: the graph's name for it, "node:index".
        features: of an input of serialized tf.Examples, what the graph reads of them; empty for all others.
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...] | None
    tensor: str = field(default="", compare=False)
    features: tuple[Feature, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.name} {self.datatype.name} of any shape"
        axes = ",".join("?" if axis == FREE else str(axis) for axis in self.shape)
        return f"{self.name} {self.datatype.name}[{axes}]"

    @property
    def in_rows(self) -> bool:
        """Whether its first axis may be a batch: one of any length."""
        return bool(self.shape) and self.shape is not None and self.shape[0] == FREE

    @property
    def row(self) -> tuple[int, ...]:
        """The axes after the first; of a tensor whose axes are known."""
        assert self.shape is not None
        return self.shape[1:]

    @property
    def is_open(self) -> bool:
        """Whether anything but the number of its rows is left to the caller."""
        return self.shape is None or FREE in self.shape[1:] or self.datatype.numpy.hasobject

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether a tensor of this shape can be fed, whatever its number of rows."""
        return self.shape is None or (
            len(shape) == len(self.shape)
            and all(mine in (FREE, theirs) for mine, theirs in zip(self.shape, shape, strict=True))
        )

    def size(self, shape: Sequence[int]) -> int:
        """How much fills a tensor of this shape: bytes of numbers, or elements of BYTES."""
        return prod(shape) if self.datatype.numpy.hasobject else prod(shape) * self.datatype.numpy.itemsize


@dataclass(frozen=True, slots=True)
class Signature:
    """A model's inputs and outputs, in the order in which batches hold them.

    Attributes:
        name: the SavedModel's key for it.
        inputs: what a request must bring, sorted by name.
        outputs: what comes back, sorted by name.
        method: what the SavedModel calls it for, as TensorFlow Serving's metadata show it.
        writes: operations of its graph that change what the model remembers; a run cannot be taken back then.
        loops: its graph has loops: what a run costs may depend on the values.
        same_as: the signature that runs the same function, by name; empty for its own.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    method: str = "tensorflow/serving/predict"
    writes: tuple[str, ...] = field(default=(), compare=False)
    loops: bool = field(default=False, compare=False)
    same_as: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.inputs))}) -> ({', '.join(map(str, self.outputs))})"

    @property
    def function(self) -> str:
        """The name of the signature that stands for what it runs: equal ones cost the same and are proved once."""
        return self.same_as or self.name

    def stands_in_for(self, other: "Signature") -> bool:
        """Whether callers of another version can be answered: its inputs fit, and its outputs are all there."""
        outputs = {spec.name: spec for spec in self.outputs}
        return (
            [(spec.name, spec.datatype) for spec in self.inputs]
            == [(spec.name, spec.datatype) for spec in other.inputs]
            and all(
                mine.shape is None or (theirs.shape is not None and mine.fits(theirs.shape))
                for mine, theirs in zip(self.inputs, other.inputs, strict=True)
            )
            and all(outputs.get(spec.name) == spec for spec in other.outputs)
        )


USUAL = ("serving_default", "predict")
"""The names of signatures that answer callers who name none, the usual one first."""


def default_name(known: Collection[str], asked: str) -> str:
    """Return the name of the signature that answers callers who name none: the usual one, or the only one.

    Args:
        known: all names.
        asked: what the operator wants; empty for nothing.

    Raises:
        ModelError: there is none, or not the one that was asked for.
    """
    if not known:
        raise ModelError("it has no signatures")
    if asked:
        if asked not in known:
            raise ModelError(f"it has no signature {asked}; it has: {', '.join(sorted(known))}")
        return asked
    if len(known) == 1:
        return next(iter(known))
    return next((name for name in USUAL if name in known), min(known))


ROWS = "rows"
WHOLE = "whole"
PADDED = "padded"
APART = "apart"


class Growth(NamedTuple):
    """How something grows with the bytes of an input.

    Attributes:
        per_byte: so much for each byte.
        power: beyond a size, with this power of it: 2 where everything is compared with everything.
        beyond: that size, in bytes.
    """

    per_byte: float = 0.0
    power: float = 1.0
    beyond: int = 1

    def of(self, size: int) -> float:
        """Return how much that is for so many bytes."""
        grown = size * self.per_byte
        return grown if self.power == 1.0 else grown * max(1.0, size / self.beyond) ** (self.power - 1.0)


NOTHING, LIKE_ITSELF = Growth(), Growth(1.0)


@dataclass(frozen=True, slots=True)
class Batching:
    """Whether requests for a signature may share a run, and how many of their rows.

    Attributes:
        mode: ROWS: their rows are computed together. WHOLE: one request, one run.
        why: how that is known.
        shared: the outputs without rows, by place: each request gets all of them.
        max_rows: rows that pay and fit in one run; of an input with free axes, at the size that was tried.
        batch_bytes: bytes of inputs with free axes in one run.
        memory: bytes that a run needs, its outputs included, by the bytes of its inputs.
        answer: bytes of its outputs, by the bytes of its inputs.
        row_bytes: bytes that a row's outputs have at least.
        memory_bytes: what one run may need.
        aside: its requests are computed beside those for the default signature, which a run of them would hold up.
        padding: how requests of different lengths share a run; None where they do not.
        lengths: how that is known; empty where the question does not arise.
    """

    mode: str = ROWS
    why: str = ""
    shared: frozenset[int] = frozenset()
    max_rows: int = 1 << 30
    batch_bytes: float = inf
    memory: Growth = LIKE_ITSELF
    answer: Growth = NOTHING
    row_bytes: float = 0.0
    memory_bytes: float = inf
    aside: bool = False
    padding: Padding | None = None
    lengths: str = ""

    @property
    def whole(self) -> bool:
        """Whether each request has a run of its own."""
        return self.mode == WHOLE

    @property
    def of_lengths(self) -> str:
        """How requests of different lengths are computed, and how that is known; empty where there are none."""
        if not self.lengths:
            return ""
        if self.padding is None:
            return f"lengths {APART} ({self.lengths})"
        return f"lengths {PADDED} up to {self.padding.longest} ({self.lengths})"

    def __str__(self) -> str:
        of_lengths = self.of_lengths and f"; {self.of_lengths}"
        return f"{self.mode}{', aside' * self.aside} ({self.why}){of_lengths}"
