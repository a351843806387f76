"""What a protocol makes of a message, and what it makes a message of: the same for every protocol."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from horngate_server.signature import Signature

Buffer = bytes | memoryview


@dataclass(frozen=True, slots=True)
class InputHeader:
    """What a request says about one input, its data apart.

    Attributes:
        name: the input it is meant for.
        datatype: the Open Inference Protocol's name of its element type, unchecked.
        shape: its axes as sent, unchecked.
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


class InferenceRequest(NamedTuple):
    """One request.

    Attributes:
        header: what it says about itself.
        id: the caller's name for it, given back with the answer.
        data: per input, its elements little-endian and row-major; views of the message where that is possible.
    """

    header: Header
    id: str
    data: Sequence[Buffer]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Which model answers, and how.

    Attributes:
        name: the model's.
        version: its version in digits.
        signature: the one that answers.
        labels: of the classes, by index; empty where nobody has named them.
    """

    name: str
    version: str
    signature: Signature
    labels: Sequence[str] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Outputs:
    """What a model returned for a batch, ready to be cut.

    Attributes:
        shapes: per output of the signature, the axes after the first.
        data: per output, all rows' bytes.
        row_bytes: per output, how many of them a row has.
    """

    shapes: Sequence[tuple[int, ...]]
    data: Sequence[memoryview]
    row_bytes: Sequence[int]

    def rows(self, start: int, stop: int) -> Sequence[Buffer]:
        """Return the bytes of some rows, per output, without copying."""
        return [data[start * size : stop * size] for data, size in zip(self.data, self.row_bytes, strict=True)]


@dataclass(frozen=True, slots=True, eq=False)
class InferenceResult:
    """The rows that one request gets.

    Attributes:
        rows: how many.
        shapes: per output of the signature, the axes after the first.
        outputs: per output of the signature, its elements little-endian and row-major.
        queue_s: seconds from arrival until its first batch began.
        compute_s: seconds in the model, the neighbours in its batches included.
    """

    rows: int
    shapes: Sequence[tuple[int, ...]]
    outputs: Sequence[Buffer]
    queue_s: float
    compute_s: float
