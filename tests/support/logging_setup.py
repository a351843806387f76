"""Python's logging, set up as the server does it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from horngate_server.telemetry import log_format


@contextmanager
def set_up(style: str) -> Iterator[None]:
    """Log as the server does, meanwhile."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    root.handlers[:] = []  # those of before must not be closed
    try:
        log_format.set_up(style, "info")
        yield
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers[:], root.level = before
