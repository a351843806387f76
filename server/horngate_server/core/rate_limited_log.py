"""Log lines of a kind, one a second at most: what callers can cause must not fill the log."""

import logging
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

EVERY_S = 1.0


class RateLimitedLog:
    """Logs the first line of a kind, then one in so many seconds, with the count of those left out. Thread-safe.

    The count is told with the next line of the kind, or by itself once the interval is over and `note` or `flush` is
    called. Only the kinds of the last interval are remembered.

    Args:
        log: where they go.
        clock: monotonic seconds.
        every_s: between two lines of a kind.
    """

    def __init__(self, log: logging.Logger, clock: Callable[[], float], every_s: float = EVERY_S) -> None:
        self._log = log
        self._clock = clock
        self._every_s = every_s
        self._lock = threading.Lock()
        self._kinds: dict[Hashable, _Kind] = {}

    def note(self, kind: Hashable, level: int, message: str, *args: object, **more: Any) -> None:
        """Log a line (`logging.Logger.log`), unless one of its kind was just now: that is counted.

        Args:
            kind: what counts as the same; not a text of callers' own, which could be another one each time.
            level: of `logging`.
            message: with ``%`` places for the arguments.
            args: for the message.
            more: ``exc_info``, for a traceback, and the like.
        """
        now = self._clock()
        with self._lock:
            known = self._kinds.get(kind)
            if known is not None and now - known.said < self._every_s:
                known.left_out += 1
                known.latest = level, message, args
                return
            unsaid = known.left_out if known else 0
            self._kinds[kind] = _Kind(now)
        if unsaid:
            message += " (and %d more like it since the last line)"
            args = (*args, unsaid)
        self._log.log(level, message, *args, **more)
        self.flush()

    def flush(self, *, everything: bool = False) -> None:
        """Tell what was left out of kinds whose interval is over; before the end, of every kind."""
        now = self._clock()
        with self._lock:
            over = {
                kind: known for kind, known in self._kinds.items() if everything or now - known.said >= self._every_s
            }
            for kind in over:
                del self._kinds[kind]
        for known in over.values():
            if known.left_out:
                level, message, args = known.latest
                self._log.log(level, message + " (the last of %d like it that were left out)", *args, known.left_out)


# --- private ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Kind:
    """Lines of one kind: when the last one was logged, how many were left out since, and the latest of these."""

    said: float
    left_out: int = 0
    latest: tuple[int, str, tuple[object, ...]] = (0, "", ())
