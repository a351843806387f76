"""Rows together, rows apart: slices of requests into a model's memory, and its outputs back to the slices."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from horngate_server.errors import ModelFailed
from horngate_server.model import Array, Feed, Model
from horngate_server.queue import Batch, Slice
from horngate_server.request import Buffer
from horngate_server.signature import Signature


def ladder(max_rows: int) -> tuple[int, ...]:
    """The batch sizes that are computed: powers of two, and ``max_rows`` itself at the top."""
    rungs = [1]
    while rungs[-1] * 2 < max_rows:
        rungs.append(rungs[-1] * 2)
    if max_rows > 1:
        rungs.append(max_rows)
    return tuple(rungs)


def join(batch: Batch, model: Model, rows: int) -> Feed:
    """Write a batch into the model's memory, zeros in the rows that pad it to ``rows``."""
    feed = model.feed([(rows, *shape) for shape in batch.shapes])
    for place, array in enumerate(feed.arrays):
        flat = array.reshape(-1).view(np.uint8)
        row_bytes = flat.size // rows
        views = [_rows(part, place, row_bytes) for part in batch.slices]
        end = batch.rows * row_bytes
        if len(views) == 1:
            flat[:end] = np.frombuffer(views[0], np.uint8)
        else:
            flat[:end] = np.frombuffer(b"".join(views), np.uint8)
        flat[end:] = 0
    return feed


@dataclass(frozen=True, slots=True, eq=False)
class Outputs:
    """What a model returned for a batch, ready to be cut into slices.

    Attributes:
        shapes: per output, the axes after the first.
        data: per output, all rows' bytes.
        row_bytes: per output, how many of them a row has.
    """

    shapes: Sequence[tuple[int, ...]]
    data: Sequence[memoryview]
    row_bytes: Sequence[int]

    def rows(self, start: int, stop: int) -> Sequence[Buffer]:
        """Return the bytes of some rows, per output, without copying."""
        return [data[start * size : stop * size] for data, size in zip(self.data, self.row_bytes, strict=True)]


def outputs(arrays: Sequence[Array], signature: Signature, rows: int) -> Outputs:
    """Check that the model answered for every row, with what its signature promises.

    Raises:
        ModelFailed: another number of outputs or rows than expected; nobody may get another's answer.
    """
    if len(arrays) != len(signature.outputs):
        raise ModelFailed(f"the model returned {len(arrays)} outputs; expected {len(signature.outputs)}")
    for array, spec in zip(arrays, signature.outputs, strict=True):
        if array.ndim == 0 or array.shape[0] != rows:
            raise ModelFailed(
                f"the model returned shape {list(array.shape)} for output {spec.name!r}; "
                f"expected {rows} rows, as many as it was given"
            )
    flat = [np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in arrays]
    return Outputs(
        shapes=[array.shape[1:] for array in arrays],
        data=[array.data for array in flat],
        row_bytes=[array.size // rows for array in flat],
    )


# --- private ------------------------------------------------------------------------------------------


def _rows(part: Slice, place: int, row_bytes: int) -> Buffer:
    """Return one slice's bytes of one input; the whole buffer where it is the whole request."""
    work = part.progress.work
    buffer = work.data[place]
    if part.stop - part.start == work.plan.rows:
        return buffer
    return memoryview(buffer)[part.start * row_bytes : part.stop * row_bytes]
