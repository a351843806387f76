"""The wish to stop: set by a signal or by another thread, waited for by the thread that runs the server."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def block_signals() -> None:
    """Keep SIGTERM and SIGINT pending until `Stop.on_signals` waits for them.

    Before any other thread starts: they inherit it, and so does the program that this process becomes. A signal that
    no thread takes by itself cannot end up with one that does not know what to do with it.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


class Stop(threading.Event):
    """An event that signals set."""

    def __init__(self) -> None:
        super().__init__()
        self._told: list[Callable[[], None]] = []

    def set(self) -> None:
        """Set it, and tell those who wait for more than it."""
        super().set()
        for tell in self._told:
            tell()

    def tell(self, call: Callable[[], None]) -> None:
        """Have this called once it is set; at once if it is."""
        self._told.append(call)
        if self.is_set():
            call()

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Let SIGTERM and SIGINT set it, from a thread that waits for them; a second one ends the process at once.

        Works on any thread of any process whose signals are blocked, where Python's handlers need the main one.
        """
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        left = threading.Event()

        def wait() -> None:
            number = signal.sigwait(SIGNALS)
            if left.is_set():
                return
            log.info("%s: draining; a second signal ends at once", signal.Signals(number).name)
            self.set()
            number = signal.sigwait(SIGNALS)
            if not left.is_set():
                os._exit(128 + number)

        waiter = threading.Thread(target=wait, name="signals")
        waiter.start()
        try:
            yield
        finally:
            left.set()
            while waiter.is_alive():
                assert waiter.ident
                signal.pthread_kill(waiter.ident, signal.SIGTERM)
                waiter.join(0.1)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
