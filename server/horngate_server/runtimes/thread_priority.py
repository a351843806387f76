"""Who computes for nobody's answer stands back behind those who do."""

import os
import threading
from contextlib import suppress

NICE = 10


def stand_back() -> None:
    """Lower this thread's priority, for good: nobody may raise it again, and threads that it starts inherit it."""
    with suppress(OSError, AttributeError):  # a nicety where the system has it
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
