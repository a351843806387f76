"""What keeps the server's observers from doing harm: metrics, statistics, drift, shadows, logs and traces of requests.

They are called after the callers have their answers, by the thread that computes. What one of them raises is counted
and logged, and nobody else notices.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping

from horngate_server.core.rate_limited_log import RateLimitedLog

log = logging.getLogger(__name__)

EVERY_S = 10.0
"""Between two log lines about one observer."""


class ObserverGuard:
    """Takes the exceptions of observers. Thread-safe.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._limited_log = RateLimitedLog(log, clock, EVERY_S)
        self._lock = threading.Lock()
        self._errors: Counter[str] = Counter()

    @property
    def errors(self) -> Mapping[str, int]:
        """How often each observer failed."""
        with self._lock:
            return dict(self._errors)

    def failed(self, observer: str, error: Exception) -> None:
        """Count and log what an observer raised."""
        with self._lock:
            self._errors[observer] += 1
        self._limited_log.note(
            observer, logging.ERROR, "%s: %s: %s. This is a bug; callers have their answers.",
            observer, type(error).__name__, error, exc_info=error,
        )  # fmt: skip
