"""What a worker and its supervisor have between them: a line that both hold.

On it a worker says once that it serves, and all the time that it is alive; the supervisor says nothing.
"""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

READY = b"R"
ALIVE = b"."
ALIVE_EVERY_S = 1.0


class Line:
    """The worker's end of the line: signs of life, as long as Python has its turns.

    Args:
        number: of the inherited socket.
        on_lost: called when the supervisor has ended: a worker must not outlive it.
    """

    def __init__(self, number: int, on_lost: Callable[[], None]) -> None:
        self._socket = socket.socket(fileno=number)
        self._socket.settimeout(ALIVE_EVERY_S)
        self._on_lost = on_lost
        threading.Thread(target=self._watch, name="line", daemon=True).start()

    def ready(self) -> None:
        """Say that this worker serves."""
        with suppress(OSError):  # the supervisor has ended, which is told elsewhere
            self._socket.sendall(READY)

    def _watch(self) -> None:
        with self._socket, suppress(OSError):
            while not self._has_ended():
                self._socket.sendall(ALIVE)
        self._on_lost()

    def _has_ended(self) -> bool:
        """Wait for a while; say whether the supervisor has ended."""
        try:
            return not self._socket.recv(1)
        except TimeoutError:
            return False


def follow(line: socket.socket, hung_s: float, begins_s: float, ready: Callable[[], None]) -> bool:
    """Follow a worker's signs of life, as its supervisor, until the line ends or nothing comes any more.

    Args:
        line: the supervisor's end.
        hung_s: how long nothing may come; 0 waits for ever.
        begins_s: the same before the first sign: a process has to start.
        ready: called when the worker says that it serves.

    Returns:
        Whether it hangs; otherwise it has ended.
    """
    line.settimeout(begins_s if hung_s else None)
    while True:
        try:
            said = line.recv(64)
        except TimeoutError:
            return True
        except ConnectionError:
            return False
        if not said:
            return False
        line.settimeout(hung_s or None)
        if READY in said:
            ready()
