"""The wish to stop: set by a signal or by another thread, waited for by the main thread."""

import logging
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """An event whose waiter a signal wakes whichever thread the kernel hands the signal to.

    A lock would not do: Python runs signal handlers on the main thread only, and a signal that another thread
    receives does not interrupt the main thread's wait. The bytes in a socket pair do.
    """

    def __init__(self) -> None:
        self._waker, self._sleeper = socket.socketpair()
        self._waker.setblocking(False)
        self._set = False

    def set(self) -> None:
        """Wish to stop. Callable from any thread, and more than once."""
        self._set = True
        self._waker.send(b"\0")

    def is_set(self) -> bool:
        """Whether somebody wished to stop."""
        return self._set

    def wait(self) -> None:
        """Sleep until somebody does."""
        while not self._set:
            self._sleeper.recv(64)

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Let SIGTERM and SIGINT set it; the second one gets its default and ends the process at once."""

        def handle(number: int, _frame: object) -> None:
            for each in SIGNALS:
                signal.signal(each, signal.SIG_DFL)
            log.info("%s: draining; a second signal ends at once", signal.Signals(number).name)
            self.set()

        before = {each: signal.signal(each, handle) for each in SIGNALS}
        woken_before = signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(woken_before)
            for each, handler in before.items():
                signal.signal(each, handler)

    def close(self) -> None:
        """Give the sockets back."""
        self._waker.close()
        self._sleeper.close()
