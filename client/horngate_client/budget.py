"""How many retries a client may send: a token bucket that its calls fill and its retries empty."""

import threading
from dataclasses import dataclass

from horngate_client import given
from horngate_client.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """The retries that servers in trouble see from one client, beside its calls.

    Attributes:
        ratio: retries earned by a call; 0.1 is one retry for ten calls.
        per_second: retries earned by time, so that a client with few calls can retry too.
        burst: the most that can be saved up, and what a new client has.

    Raises:
        ConfigurationError: a number is out of its range.
        ConversionError: a field is no number.
    """

    ratio: float = 0.1
    per_second: float = 0.5
    burst: float = 5.0

    def __post_init__(self) -> None:
        for name in ("ratio", "per_second", "burst"):
            given.number(name, getattr(self, name), "0.5")
        if self.ratio < 0 or self.per_second < 0 or self.burst < 1:
            raise ConfigurationError(f"a retry budget is not negative, and its burst is at least 1: {self}")


class Bucket:
    """The tokens of one client; safe to share between threads. Times are of one monotonic clock, in seconds."""

    def __init__(self, budget: RetryBudget, now: float) -> None:
        self._budget = budget
        self._tokens = budget.burst
        self._filled = now
        self._lock = threading.Lock()

    def called(self) -> None:
        """Count a request that is sent for the first time."""
        with self._lock:
            self._add(self._budget.ratio)

    def take(self, now: float) -> bool:
        """Pay for a retry; False where there is nothing to pay with."""
        with self._lock:
            self._add((now - self._filled) * self._budget.per_second)
            self._filled = now
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True

    @property
    def empty(self) -> bool:
        """A retry could not be paid for now."""
        return self._tokens < 1

    def give_back(self) -> None:
        """Return the token of a retry that was answered, so that recovery is not held up by the bucket."""
        with self._lock:
            self._add(1)

    def _add(self, tokens: float) -> None:
        self._tokens = min(self._budget.burst, self._tokens + tokens)
