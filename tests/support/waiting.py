"""Waiting for what has no event, as an operator would: by looking again."""

import threading
import time
from collections.abc import Callable

WAIT_S = 30.0


def until(true: Callable[[], bool], at_most_s: float = WAIT_S) -> None:
    """Look until it is so."""
    ends = time.monotonic() + at_most_s
    pause = threading.Event()
    while not true():
        assert time.monotonic() < ends
        pause.wait(0.02)
