"""A log that says one line of a kind per interval, however often it happens, and how many it left out."""

import logging
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass


@dataclass(slots=True)
class _Kind:
    """Lines of one kind: when the last one was written, how many were not since, and the latest of these."""

    said: float
    left_out: int = 0
    latest: tuple[int, str, tuple[object, ...]] = (0, "", ())


class RateLimitedLog:
    """Writes the first line of a kind at once, then at most one in ``every_s`` seconds. Thread-safe.

    The number of lines left out is told with the next line of the kind, or by itself once the interval is over and
    `note` or `flush` is called. Only kinds of the last interval are remembered.

    Args:
        log: where to write.
        clock: monotonic seconds.
        every_s: seconds between two lines of a kind.
    """

    def __init__(self, log: logging.Logger, clock: Callable[[], float], every_s: float = 1.0) -> None:
        self._log = log
        self._clock = clock
        self._every_s = every_s
        self._lock = threading.Lock()
        self._kinds: dict[Hashable, _Kind] = {}

    def note(self, kind: Hashable, level: int, message: str, *args: object, error: BaseException | None = None) -> None:
        """Write a line, unless one of its kind was written just now; it is counted then.

        Args:
            kind: what counts as the same; not a text of callers' own, which could be another one each time.
            level: of `logging`.
            message: with ``%`` places for the arguments.
            args: for the message.
            error: its traceback follows the line.
        """
        now = self._clock()
        with self._lock:
            known = self._kinds.get(kind)
            if known is not None and now - known.said < self._every_s:
                known.left_out += 1
                known.latest = level, message, args
                return
            before = known.left_out if known else 0
            self._kinds[kind] = _Kind(now)
        if before:
            message, args = f"{message} (and %d such lines before it were left out)", (*args, before)
        self._log.log(level, message, *args, exc_info=error)
        self.flush()

    def flush(self, *, everything: bool = False) -> None:
        """Tell what was left out of kinds whose interval is over; of every kind, before the end."""
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
                self._log.log(
                    level, f"{message} (the latest of %d such lines that were left out)", *args, known.left_out
                )
