"""Whether traffic is welcome, overall and for every model: not until warm, and not again from the drain on."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

OVERALL = ""
"""Stands for the whole server, among the names of models."""


class Readiness:
    """The serving state overall (the empty name) and of every model. Callable from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._states = {OVERALL: False}
        self._watchers: set[Callable[[], object]] = set()
        self._stopping = False

    def set(self, name: str, *, serving: bool) -> None:
        """Change one state. After `shut_down`, only to not serving."""
        with self._lock:
            self._states[name] = serving and not self._stopping
            self._wake()

    def shut_down(self) -> None:
        """Let nothing serve any more, for good."""
        with self._lock:
            self._stopping = True
            self._states = dict.fromkeys(self._states, False)
            self._wake()

    def serving(self, name: str = OVERALL) -> bool:
        """Whether traffic is welcome."""
        return self._states.get(name, False)

    def state(self, name: str) -> bool | None:
        """Whether traffic is welcome; None where the name is no model's."""
        return self._states.get(name)

    @contextmanager
    def watched(self, wake: Callable[[], object]) -> Iterator[None]:
        """Meanwhile, call ``wake`` at each change, on the thread that makes it; it must be quick and must not raise."""
        with self._lock:
            self._watchers.add(wake)
        try:
            yield
        finally:
            with self._lock:
                self._watchers.discard(wake)

    def _wake(self) -> None:
        for wake in self._watchers:
            wake()
