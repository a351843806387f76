"""What a worker and its supervisor have between them: a line that both hold.

On it a worker says every second that it is alive, and whether it serves. The supervisor says nothing: it closes
its half when the worker is to end. A signal for that could be the second one, where a terminal or systemd sends one to
all processes, and that ends a process at once.
"""

import logging
import socket
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

READY = b"R"
ALIVE = b"."
ALIVE_EVERY_S = 1.0


class SupervisorLink:
    """The worker's end of the line: signs of life, as long as Python has its turns.

    Args:
        number: of the inherited socket.
        on_end: called when the supervisor wants us to end, or has ended: a worker must not outlive it.
    """

    def __init__(self, number: int, on_end: Callable[[], None]) -> None:
        self._socket = socket.socket(fileno=number)
        self._socket.set_inheritable(False)  # whom we start does not keep it open
        self._socket.settimeout(ALIVE_EVERY_S)
        self._sign = ALIVE
        self._on_end = on_end
        threading.Thread(target=self._watch, name="line", daemon=True).start()

    def ready(self) -> None:
        """Say that this worker serves."""
        self._sign = READY
        self._say()

    # --- private --------------------------------------------------------------------------------------

    def _watch(self) -> None:
        with self._socket:
            while self._say() and not self._over():
                pass
            log.info("the supervisor ends, or wants this worker to: draining")
            self._on_end()
            pause = threading.Event()
            while self._say():  # one that hangs while it drains is killed, too
                pause.wait(ALIVE_EVERY_S)

    def _say(self) -> bool:
        """Give a sign of life; False once nobody is there."""
        try:
            self._socket.sendall(self._sign)
        except TimeoutError:
            pass  # the supervisor stands still, and has many that it has not read
        except OSError:
            return False
        return True

    def _over(self) -> bool:
        """Wait for a while; say whether the supervisor's end is over."""
        try:
            return not self._socket.recv(1)
        except TimeoutError:
            return False
        except OSError:
            return True


def hangs(listen: Callable[[], bytes], patience_s: float, begins_s: float, ready: Callable[[], None]) -> bool:
    """Follow a worker's signs of life, as its supervisor, until its end of the line is over or it gives none.

    What counts is how often nothing came, not for how long: while everybody stands still, as in a container that is
    paused, nobody gives signs, and nobody hangs.

    Args:
        listen: returns what the worker says, nothing where its end is over; TimeoutError after `ALIVE_EVERY_S` without.
        patience_s: how long nothing may come; 0 waits for ever.
        begins_s: the same until it serves: libraries are loaded meanwhile, without a turn for other threads.
        ready: called when the worker says that it serves.

    Returns:
        Whether it hangs; otherwise it has ended.
    """
    silent, most = 0, begins_s / ALIVE_EVERY_S
    while True:
        try:
            said = listen()
        except TimeoutError:
            silent += 1
            if patience_s and silent >= most:
                return True
            continue
        except ConnectionError:
            return False
        if not said:
            return False
        silent = 0
        if READY in said:
            most = patience_s / ALIVE_EVERY_S
            ready()
