"""What a protocol makes of a message, and what it makes a message of: the same for every protocol."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

import numpy as np

from horngate_server.core.signature import Batching, Signature

Buffer = bytes | memoryview
Data = Buffer | list[bytes]
"""A tensor's elements, row-major: numbers as little-endian bytes, strings (BYTES) one by one."""


def numbers(data: Data) -> Buffer:
    """Return a tensor's elements that are known to be numbers."""
    assert not isinstance(data, list)
    return data


def strings(data: Data) -> list[bytes]:
    """Return a tensor's elements that are known to be strings."""
    assert isinstance(data, list)
    return data


@dataclass(frozen=True, slots=True)
class InputHeader:
    """What a request says about one input, its data apart.

    Attributes:
        name: the input it is meant for.
        datatype: the Open Inference Protocol's name of its element type, unchecked.
        shape: its axes as sent: from 0 to 2^31-1, their product too, and not yet compared with a signature.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Header:
    """A request without its data and its id. Equal headers are often one object: a caller repeats itself.

    A protocol adds what it must know to answer.

    Attributes:
        model: the model's name.
        version: the version's number in digits, or a label; empty for the one that serves by default.
        inputs: in the order of the data.
        outputs: the names wanted; empty for all.
        signature: the SavedModel's key for it; empty for the default one.
        bulk: it stands back behind those who are not.
        timeout_s: how long the caller waits, beside the call's own deadline.
        filled: an input's data may be shorter than its shape: its last element stands for all that is missing.
    """

    model: str
    version: str
    inputs: tuple[InputHeader, ...]
    outputs: tuple[str, ...] = ()
    signature: str = ""
    bulk: bool = False
    timeout_s: float = inf
    filled: bool = False

    def check(self, signature: Signature) -> None:
        """Refuse what the protocol cannot carry of a signature, before the request is compared with it.

        Raises:
            InvalidRequest: what was expected and what the signature has.
        """


class InferenceRequest(NamedTuple):
    """One request.

    Attributes:
        header: what it says about itself.
        id: the caller's name for it, given back with the answer.
        data: per input, its elements; views of the message where that is possible.
    """

    header: Header
    id: str
    data: Sequence[Data]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Which model answers, and how.

    Attributes:
        name: the model's.
        version: its version in digits.
        signature: the one that answers.
        labels: of the classes, by index; empty where nobody has named them.
        batching: whether requests share runs.
        engine: what computes it: "tensorflow" or "litert".
    """

    name: str
    version: str
    signature: Signature
    labels: Sequence[str] = ()
    batching: Batching = field(default_factory=Batching)
    engine: str = "tensorflow"


@dataclass(frozen=True, slots=True, eq=False)
class Outputs:
    """What a model returned for a batch, ready to be cut.

    Attributes:
        shapes: per output of the signature, the axes after the first; all axes where ``row_sizes`` is None.
        data: per output, all of its elements.
        row_sizes: per output, how much of its data a row has, in bytes, or in elements of BYTES; None for an output
            that has no rows: every request gets all of it.
        uniform: every output has rows of numbers, all as long.
        lengths: of requests that were padded, how long each row was before; empty where none was.
        cut: per output, the axes that are cut back to that; the batch's is 0.
    """

    shapes: Sequence[tuple[int, ...]]
    data: Sequence[memoryview | list[bytes]]
    row_sizes: Sequence[int | None]
    uniform: bool = True
    lengths: Sequence[int] = ()
    cut: Sequence[tuple[int, ...]] = ()

    def rows(self, start: int, stop: int) -> Sequence[Data]:
        """Return the data of some rows of one request, per output; without copying where nothing is cut."""
        mine = [
            data if size is None else data[start * size : stop * size]
            for data, size in zip(self.data, self.row_sizes, strict=True)
        ]
        if not self.lengths:
            return mine
        length, rows = self.lengths[start], stop - start
        return [
            _cut(data, (rows, *shape), axes, length) if axes and shape[axes[0] - 1] != length else data
            for data, shape, axes in zip(mine, self.shapes, self.cut, strict=True)
        ]

    def shapes_of(self, rows: int, start: int = 0) -> Sequence[tuple[int, ...]]:
        """Return the whole shape of every output of a request with so many rows, which begin at ``start``."""
        shapes = [
            shape if size is None else (rows, *shape) for shape, size in zip(self.shapes, self.row_sizes, strict=True)
        ]
        if not self.lengths:
            return shapes
        length = self.lengths[start]
        return [
            tuple(length if place in axes else axis for place, axis in enumerate(shape))
            for shape, axes in zip(shapes, self.cut, strict=True)
        ]


@dataclass(frozen=True, slots=True, eq=False)
class InferenceResult:
    """The rows that one request gets.

    Attributes:
        rows: how many.
        shapes: per output of the signature, all of its axes.
        outputs: per output of the signature, its elements.
        queue_s: seconds from arrival until its first batch began.
        compute_s: seconds in the model, the neighbours in its batches included.
    """

    rows: int
    shapes: Sequence[tuple[int, ...]]
    outputs: Sequence[Data]
    queue_s: float
    compute_s: float


# --- private ------------------------------------------------------------------------------------------


def _cut(data: Data, shape: tuple[int, ...], axes: tuple[int, ...], length: int) -> Data:
    """Return a tensor's elements, of these axes only those before ``length``."""
    kept = tuple(slice(length) if place in axes else slice(None) for place in range(len(shape)))
    if isinstance(data, list):
        elements = np.empty(len(data), object)
        elements[:] = data
        texts: list[bytes] = elements.reshape(shape)[kept].reshape(-1).tolist()
        return texts
    if not len(data):
        return data
    return np.ascontiguousarray(np.frombuffer(data, np.uint8).reshape(*shape, -1)[kept]).reshape(-1).data
