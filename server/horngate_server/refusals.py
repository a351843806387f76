"""One log line per burst of refusals, however many requests it has."""

import logging
import threading
from collections import defaultdict

from horngate_server.executor import Clock

log = logging.getLogger(__name__)

QUIET_S = 10.0


class Refusals:
    """Notes refusals and logs the first of a reason, then at most one line in ten seconds. Thread-safe.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._unsaid: dict[str, int] = defaultdict(int)
        self._said: dict[str, float] = {}

    def note(self, reason: str, example: str) -> None:
        """Count one refusal; log it unless this reason was logged just now."""
        now = self._clock()
        with self._lock:
            self._unsaid[reason] += 1
            if now - self._said.get(reason, -QUIET_S) < QUIET_S:
                return
            count, self._unsaid[reason] = self._unsaid[reason], 0
            self._said[reason] = now
        log.warning("refused %d requests (%s), for one: %s", count, reason, example)
