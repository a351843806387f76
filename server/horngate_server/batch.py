"""Rows together, rows apart: slices of requests into a model's memory, and its outputs back to the slices."""

from collections.abc import Sequence

import numpy as np

from horngate_server.errors import ModelFailed
from horngate_server.model import Array, Feed, Model
from horngate_server.queue import Batch, Slice
from horngate_server.request import Buffer, Outputs
from horngate_server.signature import Signature

SMALL_BYTES = 8192
"""Requests smaller than this are joined first and copied together: a NumPy call each would cost more."""


def ladder(max_rows: int) -> tuple[int, ...]:
    """The batch sizes that are computed: powers of two, and ``max_rows`` itself at the top."""
    rungs = [1]
    while rungs[-1] * 2 < max_rows:
        rungs.append(rungs[-1] * 2)
    if max_rows > 1:
        rungs.append(max_rows)
    return tuple(rungs)


def join(batch: Batch, signature: Signature, model: Model, rows: int) -> Feed:
    """Write a batch into the model's memory, once; zeros in the rows that pad it to ``rows``."""
    feed = model.feed(signature, [(rows, *shape) for shape in batch.shapes])
    for place, array in enumerate(feed.arrays):
        flat = array.reshape(-1).view(np.uint8)
        row_bytes = flat.size // rows
        views = [work.data[place] for work in batch.whole]
        views += [_rows(part, place, row_bytes) for part in batch.slices]
        end = batch.rows * row_bytes
        if end > SMALL_BYTES * len(views):
            start = 0
            for view in views:
                flat[start : start + len(view)] = np.frombuffer(view, np.uint8)
                start += len(view)
        else:
            flat[:end] = np.frombuffer(b"".join(views), np.uint8)
        flat[end:] = 0
    return feed


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
    """Return one slice's bytes of one input."""
    return memoryview(part.progress.work.data[place])[part.start * row_bytes : part.stop * row_bytes]
