"""Signals: what they mean here, and the wish to stop, which some of them are."""

import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from horngate_server.core.file_changes import every_second
from horngate_server.process.orphans import Orphans

log = logging.getLogger(__name__)

ENDING: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})
"""Drain; a second one ends at once."""
RELOAD: Final = signal.SIGHUP
"""Look at what is on disk now. A terminal that goes away sends it, too, and that ends no server."""
STACKS: Final = signal.SIGUSR1
"""Say in the log what every thread of Python's is doing."""
OTHERS: Final = frozenset({signal.SIGUSR2, signal.SIGALRM})
"""They mean nothing here, and would end a process by default."""
SIGNALS: Final = ENDING | OTHERS | {RELOAD, STACKS}


def block_signals() -> None:
    """Keep `SIGNALS` pending until `Stop.on_signals` waits for them.

    Before any other thread starts: they inherit it, and so does the program that this process becomes. A signal that
    no thread takes by itself cannot end up with one that does not know what to do with it.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _nothing() -> None:
    """Do nothing."""


class Stop(threading.Event):
    """An event that signals set."""

    def __init__(self) -> None:
        super().__init__()
        self._told: list[Callable[[], None]] = []

    def set(self) -> None:
        """Set it, and tell those who wait for more than it, once."""
        if not self.is_set():
            super().set()
            for tell in self._told:
                tell()

    def tell(self, call: Callable[[], None]) -> None:
        """Have this called once it is set; at once if it is."""
        self._told.append(call)
        if self.is_set():
            call()

    @contextmanager
    def on_signals(
        self,
        reload: Callable[[], None] = _nothing,
        at_once: Callable[[], None] = _nothing,
    ) -> Iterator[None]:
        """Let `SIGNALS` do what they are for, from a thread that waits for them.

        Works on any thread of any process whose signals are blocked, where Python's handlers need the main one. The
        first process of a container takes in the ends of children that others have left to it from now on, too.

        Args:
            reload: looks at what is on disk; must be quick.
            at_once: called before a second signal ends the process.
        """
        if os.getpid() == 1:
            every_second(Orphans().look, "orphans")
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        left = threading.Event()

        def wait() -> None:
            draining = False
            while True:
                number = signal.Signals(signal.sigwait(SIGNALS))
                if left.is_set():
                    return
                if number is RELOAD:
                    log.info("%s: looking at the disk now; nothing ends", number.name)
                    reload()
                elif number is STACKS:
                    _log_stacks()
                elif number in OTHERS:
                    log.info("%s: means nothing here; SIGTERM drains", number.name)
                elif draining:
                    at_once()
                    os._exit(128 + number)
                else:
                    log.info("%s: draining; a second signal ends at once", number.name)
                    draining = True
                    self.set()

        waiter = threading.Thread(target=wait, name="signals", daemon=True)
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


# --- private ------------------------------------------------------------------------------------------


def _log_stacks() -> None:
    """Say where every thread is, a line for each frame."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():  # noqa: SLF001 - public by its documentation
        log.info("thread %s", names.get(ident, ident))
        for entry in traceback.extract_stack(frame):
            log.info("  %s:%s %s", entry.filename, entry.lineno, entry.name)
