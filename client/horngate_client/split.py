"""How many rows go into one request."""

import itertools

REQUEST_BYTES = 4 * 1024 * 1024 - 64 * 1024
"""gRPC's default limit for a message is 4 MiB, less some for names, shapes and framing."""

ROWS_PER_REQUEST = 1024


def row_ranges(rows: int, row_bytes: int, limit: int) -> tuple[range, ...]:
    """Cut ``rows`` into ranges of equal length, as few as fit; they cover every row once and in order.

    Args:
        rows: how many there are.
        row_bytes: the size of one; a row that alone is larger than a request travels alone.
        limit: the most rows in one request.
    """
    limit = max(1, min(limit, REQUEST_BYTES // max(1, row_bytes)))
    parts = -(-rows // limit)
    bounds = [rows * part // parts for part in range(parts + 1)]
    return tuple(range(start, stop) for start, stop in itertools.pairwise(bounds))
