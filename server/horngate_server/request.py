"""What a protocol makes of a message, and what it makes a message of: the same for every protocol."""

from collections.abc import Sequence
from dataclasses import dataclass

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

    Attributes:
        model: the model's name.
        version: the version's number in digits; empty for the one that serves by default.
        inputs: in the order of the data.
        outputs: the names wanted; empty for all.
        raw: answer with raw bytes rather than with typed lists.
        timing: answer with how long the request queued and was computed.
    """

    model: str
    version: str
    inputs: tuple[InputHeader, ...]
    outputs: tuple[str, ...] = ()
    raw: bool = True
    timing: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class InferenceRequest:
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
    """Which model answers: its name, its version in digits, and its signature."""

    name: str
    version: str
    signature: Signature


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
