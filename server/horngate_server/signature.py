"""What a model takes and returns."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

from horngate_protos.datatypes import Datatype

FREE = -1
"""An axis of any length."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One named input or output.

    Attributes:
        name: the signature's name for it, which callers use.
        datatype: its element type.
        shape: its axes; the first is the batch and FREE, others may be FREE too.
        tensor: the graph's name for it, "node:index".
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    tensor: str = field(default="", compare=False)

    def __str__(self) -> str:
        axes = ",".join("?" if axis == FREE else str(axis) for axis in self.shape)
        return f"{self.name} {self.datatype.name}[{axes}]"

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether a tensor of this shape can be fed, whatever its number of rows."""
        return len(shape) == len(self.shape) and all(
            mine in (FREE, theirs) for mine, theirs in zip(self.shape, shape, strict=True)
        )

    def nbytes(self, shape: Sequence[int]) -> int:
        """How many bytes a tensor of this shape fills."""
        return prod(shape) * self.datatype.numpy.itemsize


@dataclass(frozen=True, slots=True)
class Signature:
    """A model's inputs and outputs, in the order in which batches hold them.

    Attributes:
        name: the SavedModel's key for it.
        inputs: what a request must bring, sorted by name.
        outputs: what comes back, sorted by name.
        method: what the SavedModel calls it for, as TensorFlow Serving's metadata show it.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    method: str = "tensorflow/serving/predict"

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.inputs))}) -> ({', '.join(map(str, self.outputs))})"

    def stands_in_for(self, other: "Signature") -> bool:
        """Whether callers of another version can be answered: its inputs fit, and its outputs are all there."""
        outputs = {spec.name: spec for spec in self.outputs}
        return (
            [(spec.name, spec.datatype) for spec in self.inputs]
            == [(spec.name, spec.datatype) for spec in other.inputs]
            and all(mine.fits(theirs.shape) for mine, theirs in zip(self.inputs, other.inputs, strict=True))
            and all(outputs.get(spec.name) == spec for spec in other.outputs)
        )
