"""One log line per burst of refusals, however many requests it has."""

import logging
from collections.abc import Callable

from horngate_server.core.rate_limited_log import RateLimitedLog

log = logging.getLogger(__name__)

QUIET_S = 10.0


class RefusalLog:
    """Notes refusals and logs the first of a reason, then at most one line in ten seconds. Thread-safe.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._lines = RateLimitedLog(log, clock, QUIET_S)

    def note(self, reason: str, example: str) -> None:
        """Count one refusal; log it unless this reason was logged just now."""
        self._lines.note(reason, logging.WARNING, "refused a request (%s): %s", reason, example)
