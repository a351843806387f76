"""What callers may have of the requests that a version recorded: load is made of them, or a call to begin with."""

from collections.abc import Iterable, Mapping, Sequence

from horngate_server.core.model import Array
from horngate_server.core.signature import Signature
from horngate_server.lifecycle.verification import Record

MOST_BYTES = 1 << 17
"""What is kept of them, for each version: as much as callers who do not read an answer may leave in memory by one."""
Inputs = Mapping[str, Array]


def sample(records: Iterable[Record], signature: Signature, *, rows: bool) -> Sequence[Inputs]:
    """Return requests, by input name, that have `MOST_BYTES` together at most.

    Args:
        records: a version's, of one signature.
        signature: whose.
        rows: a request may be cut to its first rows.
    """
    names = [spec.name for spec in signature.inputs]
    kept: list[Inputs] = []
    room = MOST_BYTES
    for record in records:
        inputs = record.inputs
        size = sum(map(_size, inputs))
        if size > room and rows and all(array.ndim for array in inputs):
            most = room * min(map(len, inputs)) // size
            inputs = [array[:most] for array in inputs]
            size = sum(map(_size, inputs))
        if size > room or not all(map(len, inputs)):
            break
        room -= size
        kept.append({name: array.copy() for name, array in zip(names, inputs, strict=True)})  # not the whole file
    return tuple(kept)


# --- private ------------------------------------------------------------------------------------------


def _size(array: Array) -> int:
    if array.dtype.hasobject:
        return sum(map(len, array.reshape(-1).tolist()))
    return array.nbytes
