"""Rows together, rows apart: slices of requests into a model's memory, and its outputs back to the slices."""

from collections.abc import Sequence
from itertools import chain
from typing import cast

import numpy as np

from horngate_server.core.errors import ModelFailed, NotInRows
from horngate_server.core.inference import Buffer, Data, ModelInfo, Outputs, numbers, strings
from horngate_server.core.model import Array, Feed, Model
from horngate_server.core.signature import Signature
from horngate_server.engine import lengths
from horngate_server.engine.batch_queue import Batch, Slice

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
    """Write a batch into the model's memory, once; its first row again in those that pad it to ``rows``.

    One request that has the run for itself is written as it is.
    """
    if batch.alone:
        feed = model.feed(signature, batch.shapes)
        for place, array in enumerate(feed.arrays):
            _write(array, [batch.whole[0].data[place]], array.size if array.dtype.hasobject else array.nbytes)
        return feed
    longest = lengths.longest(batch)
    feed = model.feed(signature, [(rows, *shape) for shape in longest or batch.shapes])
    if longest is not None:
        lengths.write(batch, feed.arrays)
    for place, array in enumerate(feed.arrays):
        if longest is None:
            row_size = array.size // rows * (1 if array.dtype.hasobject else array.dtype.itemsize)
            parts = [work.data[place] for work in batch.whole]
            parts += [_rows(part, place, row_size) for part in batch.slices]
            _write(array, parts, batch.rows * row_size)
        if rows > batch.rows:
            array[batch.rows :] = array[0]  # any other padding could be what the model refuses
    return feed


def outputs(
    arrays: Sequence[Array], info: ModelInfo, rows: int, *, alone: bool = False, padded: Batch | None = None
) -> Outputs:
    """Check that the model answered for every row, with what its signature promises.

    Args:
        arrays: what it returned.
        info: the model, with the signature.
        rows: how many it was given.
        alone: one request had the run for itself, and gets all of it as it is.
        padded: the batch, where its requests may have different lengths.

    Raises:
        ModelFailed: another number of outputs than expected, or an output that does not end where the inputs did.
        NotInRows: another number of rows; nobody may get another's answer.
    """
    signature, shared = info.signature, info.batching.shared
    if len(arrays) != len(signature.outputs):
        raise ModelFailed(f"the model returned {len(arrays)} outputs; expected {len(signature.outputs)}")
    flat = [_flat(array) for array in arrays]
    if alone:
        return Outputs([array.shape for array in arrays], flat, [None] * len(flat), uniform=False)
    for place, (array, spec) in enumerate(zip(arrays, signature.outputs, strict=True)):
        if place not in shared and (array.ndim == 0 or array.shape[0] != rows):
            raise NotInRows(
                f"the model returned shape {list(array.shape)} for output {spec.name!r}; "
                f"expected {rows} rows, as many as it was given"
            )
    cut = None if padded is None else lengths.to_cut(padded, arrays)
    if not shared and cut is None and not any(isinstance(data, list) for data in flat):
        return Outputs([array.shape[1:] for array in arrays], flat, [len(data) // rows for data in flat])
    return Outputs(
        shapes=[array.shape if place in shared else array.shape[1:] for place, array in enumerate(arrays)],
        data=flat,
        row_sizes=[None if place in shared else len(data) // rows for place, data in enumerate(flat)],
        uniform=False,
        lengths=cut.lengths if cut else (),
        cut=cut.axes if cut else (),
    )


def joined(pieces: Sequence[Data]) -> Data:
    """Return the parts of one tensor as a whole."""
    if isinstance(pieces[0], list):
        return list(chain.from_iterable(map(strings, pieces)))
    return b"".join(map(numbers, pieces))


# --- private ------------------------------------------------------------------------------------------


def _write(array: Array, parts: Sequence[Data], size: int) -> None:
    """Write the parts into an array, one behind the other; they fill ``size`` bytes of it, or elements of BYTES."""
    if array.dtype.hasobject:
        array.reshape(-1)[:size] = list(chain.from_iterable(map(strings, parts)))
        return
    flat = array.reshape(-1).view(np.uint8)
    if size > SMALL_BYTES * len(parts):
        start = 0
        for part in parts:
            flat[start : start + len(part)] = np.frombuffer(numbers(part), np.uint8)
            start += len(part)
    else:
        flat[:size] = np.frombuffer(b"".join(cast("Sequence[Buffer]", parts)), np.uint8)


def _flat(array: Array) -> memoryview | list[bytes]:
    """Return an output's elements: bytes of numbers without copying, where they lie in order; strings as a list."""
    if array.dtype.hasobject:
        elements: list[bytes] = array.reshape(-1).tolist()
        return elements
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _rows(part: Slice, place: int, row_size: int) -> Data:
    """Return one slice's data of one input."""
    data = part.progress.work.data[place]
    start, stop = part.start * row_size, part.stop * row_size
    return data[start:stop] if isinstance(data, list) else memoryview(data)[start:stop]
