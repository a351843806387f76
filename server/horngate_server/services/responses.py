"""The answers of a batch as bytes. Neighbours whose answers look alike are written together.

They differ in nothing but the outputs' bytes, which NumPy copies into place for all of them at once.
"""

from collections.abc import Sequence

import numpy as np

from horngate_server.core.errors import RequestError
from horngate_server.core.inference import InferenceResult, ModelInfo, Outputs
from horngate_server.engine.batch_queue import Work
from horngate_server.engine.batch_runner import BatchReport


def write(work: Work, result: InferenceResult) -> bytes:
    """Write one request's answer."""
    return work.codec.encode(work.request, work.plan.info, result)


def write_whole(report: BatchReport, queue_s: Sequence[float]) -> list[bytes | RequestError]:
    """Write the answers of all requests that were in a batch whole; an error for those that cannot be written.

    Args:
        report: the batch.
        queue_s: per request, the seconds from its arrival until the batch began.
    """
    works, outputs = report.whole, report.outputs
    requests = [work.request for work in works]
    answers: list[bytes | RequestError] = []
    start = row = 0
    while start < len(works):
        header, rows = requests[start].header, works[start].plan.rows  # who has the same header has as many
        stop = start + 1
        if not requests[start].id:
            while stop < len(works) and requests[stop].header is header and not requests[stop].id:
                stop += 1
        count = stop - start
        alike = None
        if count >= _WORTH_IT:
            alike = _write_alike(works[start], report.info, outputs, row, count)
        answers += alike or [
            _written(
                works[start + index],
                InferenceResult(
                    rows,
                    outputs.shapes_of(rows, row + index * rows),
                    outputs.rows(row + index * rows, row + (index + 1) * rows),
                    queue_s[start + index],
                    report.seconds,
                ),
            )
            for index in range(count)
        ]
        start = stop
        row += count * rows
    return answers


# --- private ------------------------------------------------------------------------------------------


def _written(work: Work, result: InferenceResult) -> bytes | RequestError:
    try:
        return write(work, result)
    except RequestError as error:  # its neighbours' answers may be as good as ever
        return error.with_traceback(None)


_WORTH_IT = 4
"""From this many answers on, setting up the common way costs less than it saves."""
_ALIKE_BYTES = 65536
"""Longer answers are copied once each rather than three times together."""


def _write_alike(first: Work, info: ModelInfo, outputs: Outputs, row: int, count: int) -> list[bytes] | None:
    """Write as many answers as ``count`` to requests like the first, whose rows begin at ``row``; None if not so."""
    if not outputs.uniform:
        return None
    rows = first.plan.rows
    template = first.codec.template(first.request.header, info, rows, outputs)
    if template is None or len(template.bytes) > _ALIKE_BYTES:
        return None
    length = len(template.bytes)
    table = np.empty((count, length), np.uint8)
    table[:] = np.frombuffer(template.bytes, np.uint8)
    for place, start in template.columns:
        row_bytes, bytes_of_all = outputs.row_sizes[place], outputs.data[place]
        assert row_bytes is not None
        assert isinstance(bytes_of_all, memoryview)
        size = rows * row_bytes
        data = np.frombuffer(bytes_of_all[row * row_bytes : row * row_bytes + count * size], np.uint8)
        table[:, start : start + size] = data.reshape(count, size)
    block = table.tobytes()
    return [block[start : start + length] for start in range(0, len(block), length)]
