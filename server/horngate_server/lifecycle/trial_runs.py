"""One signature run on trial: with what may be refused, and with a look at the time and the memory that it takes."""

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from horngate_server.core.errors import InputRefused, ModelFailed, OutOfMemory
from horngate_server.core.model import Array, Model
from horngate_server.core.signature import Signature
from horngate_server.lifecycle.probe_inputs import Rows
from horngate_server.runtimes import process_memory

WARM_RUNS = 3
"""The first run of a size compiles and allocates, and others may be unlucky: the fastest one is its cost."""


class TrialRuns:
    """Runs of one signature.

    Args:
        model: runs.
        signature: of it.
        clock: seconds, of time or of this thread's computing.

    Attributes:
        signature: the same.
        clock: the same.
        refused: the model's words when it last refused an input, or found no memory for one.
        failed: its words when it last failed otherwise; empty if it never did.
    """

    def __init__(self, model: Model, signature: Signature, clock: Callable[[], float]) -> None:
        self.signature = signature
        self.clock = clock
        self.refused = ""
        self.failed = ""
        self._model = model
        self._base = 0

    def run(self, request: Rows) -> Sequence[Array]:
        """Run a request.

        Args:
            request: per input, an array with all axes.

        Raises:
            RequestError: as the model does.
        """
        return computed(self._model, self.signature, request)

    def tried(self, request: Rows) -> Sequence[Array] | None:
        """Run a request; None where the model does not take it."""
        try:
            return self.run(request)
        except (InputRefused, OutOfMemory) as error:
            self.refused = str(error)
        except ModelFailed as error:
            self.failed = str(error)
        return None

    def timed(self, request: Rows, enough_s: float) -> tuple[float, Sequence[Array]]:
        """Run a request a few times; return the least seconds, and the answers.

        Args:
            request: as for `run`.
            enough_s: once a run takes longer than this, there is no other.

        Raises:
            RequestError: as the model does.
        """
        took = float("inf")
        for _ in range(WARM_RUNS):
            began = self.clock()
            answers = self.run(request)
            took = min(took, self.clock() - began)
            if took > enough_s:
                break
        return took, answers

    def forget_memory(self) -> None:
        """Let `need` begin at what the process has now, all that it can spare given back."""
        process_memory.trim()
        process_memory.forget_peak()
        self._base = process_memory.resident()

    def need(self) -> int:
        """Return the bytes of memory that the largest run took since; 0 where that cannot be known."""
        return max(0, process_memory.peak() - self._base)


def computed(model: Model, signature: Signature, request: Rows) -> Sequence[Array]:
    """Run a signature with these inputs, all axes of each; raise what the model does."""
    feed = model.feed(signature, [array.shape for array in request])
    for memory, array in zip(feed.arrays, request, strict=True):
        memory[...] = array
    return model.run(feed)


def joined(rows: Sequence[Rows], order: Sequence[int]) -> Rows:
    """Return the batch that has these rows in this order."""
    return [np.concatenate([rows[row][place] for row in order]) for place in range(len(rows[0]))]


def size_of(arrays: Sequence[Array]) -> int:
    """Return the bytes of tensors; of strings, their own."""
    size = 0
    for array in arrays:
        if array.dtype.hasobject:
            strings: list[bytes] = array.reshape(-1).tolist()
            size += sum(map(len, strings))
        else:
            size += prod(array.shape) * array.dtype.itemsize
    return size
