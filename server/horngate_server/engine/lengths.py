"""Requests of different lengths in one run: padded to the longest of them, their answers cut back to their own."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from horngate_server.core.errors import ModelFailed
from horngate_server.core.inference import numbers, strings
from horngate_server.core.model import Array
from horngate_server.core.padding import Padding
from horngate_server.engine.batch_queue import Batch, Slice, Work


def longest(batch: Batch) -> tuple[tuple[int, ...], ...] | None:
    """Return, per input, the axes after the batch's that the longest requests have; None where all have the same."""
    if batch.info is None or batch.info.batching.padding is None or batch.alone:
        return None
    shapes = {_work(item).plan.shapes for item in _items(batch)}
    if len(shapes) < 2:
        return None
    return tuple(tuple(map(max, *each)) for each in zip(*shapes, strict=True))


def write(batch: Batch, arrays: Sequence[Array]) -> None:
    """Write a batch's requests into the first rows of a model's inputs, each padded at its end.

    Args:
        batch: the requests.
        arrays: per input, memory for at least as many rows, as long as the longest of them.
    """
    padding = _padding(batch)
    for place, (array, axis) in enumerate(zip(arrays, padding.axes, strict=True)):
        start = 0
        for item in _items(batch):
            rows = _rows(item, place)
            mine = array[start : start + len(rows)]
            start += len(rows)
            if axis is None:
                mine[:] = rows
            else:
                along = np.moveaxis(mine, axis, 0)
                along[: rows.shape[axis]] = np.moveaxis(rows, axis, 0)
                along[rows.shape[axis] :] = filling(array.dtype, padding.values[place])


def filling(dtype: np.dtype[np.generic], value: int) -> Any:
    """Return what fills up an input: the number in its type, or the empty string."""
    return b"" if dtype.hasobject else dtype.type(value)


def apart(batch: Batch) -> list[Batch]:
    """Return a batch as one of those that may be padded, and one for each request that may not.

    One may not that has a row which is all padding, where that changes what comes out, or a mask of other numbers than
    0 and 1: of these nothing was seen.
    """
    shapes = longest(batch)
    if shapes is None:
        return [batch]
    padding = _padding(batch)
    together: list[Work | Slice] = []
    alone: list[Work | Slice] = []
    for item in _items(batch):
        odd = _work(item).plan.shapes != shapes and (
            any(_is_empty(_rows(item, place), padding.values[place]) for place in padding.guarded)
            or any(not np.isin(_rows(item, place), (0, 1)).all() for place in padding.masks)
        )
        (alone if odd else together).append(item)
    if not alone:
        return [batch]
    return [batch.of(items) for items in (together, *([item] for item in alone)) if items]


class Cut(NamedTuple):
    """What of a batch's outputs is not a request's own.

    Attributes:
        lengths: how long each row was before it was padded.
        axes: per output, the axes that are cut back to that.
    """

    lengths: Sequence[int]
    axes: Sequence[tuple[int, ...]]


def to_cut(batch: Batch, arrays: Sequence[Array]) -> Cut | None:
    """Return how a batch's outputs are to be cut; None where they are as they should be.

    Args:
        batch: what was run.
        arrays: the outputs.

    Raises:
        ModelFailed: an output that was as long as the inputs while loading is not now.
    """
    shapes = longest(batch)
    if shapes is None or not any(_padding(batch).cut):
        return None
    padding = _padding(batch)
    assert batch.info is not None
    length = padding.length(shapes)
    for array, axes, spec in zip(arrays, padding.cut, batch.info.signature.outputs, strict=True):
        if any(axis >= array.ndim or array.shape[axis] != length for axis in axes):
            raise ModelFailed(
                f"the model returned shape {list(array.shape)} for output {spec.name!r} of inputs that are {length} "
                f"long; expected as much on axis {axes[0]}, as while it was loaded"
            )
    found: list[int] = []
    for item in _items(batch):
        mine = padding.length(_work(item).plan.shapes)
        assert mine is not None, "a request was padded that has no length. This is a bug."
        found += [mine] * (item.stop - item.start if isinstance(item, Slice) else item.plan.rows)
    return Cut(found, padding.cut)


# --- private ------------------------------------------------------------------------------------------


def _items(batch: Batch) -> list[Work | Slice]:
    return [*batch.whole, *batch.slices]


def _work(item: Work | Slice) -> Work:
    return item if isinstance(item, Work) else item.progress.work


def _padding(batch: Batch) -> Padding:
    assert batch.info is not None
    assert batch.info.batching.padding is not None
    return batch.info.batching.padding


def _rows(item: Work | Slice, place: int) -> Array:
    """Return a request's rows of one input, or those of a part of it."""
    plan, data = _work(item).plan, _work(item).data[place]
    dtype = plan.info.signature.inputs[place].datatype.numpy
    if dtype.hasobject:
        array: Array = np.empty(len(data), object)
        array[:] = strings(data)
    else:
        array = np.frombuffer(numbers(data), dtype)
    array = array.reshape(plan.rows, *plan.shapes[place])
    return array[item.start : item.stop] if isinstance(item, Slice) else array


def _is_empty(rows: Array, value: int) -> bool:
    """Whether a row has nothing but padding."""
    same = rows.reshape(len(rows), -1) == filling(rows.dtype, value)
    return bool(same.all(axis=1).any())
