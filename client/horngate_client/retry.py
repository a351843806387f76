"""When to try again: a pure function of what happened, how often, and how much time is left."""

from collections.abc import Callable
from dataclasses import dataclass

from horngate_client import given
from horngate_client.budget import RetryBudget
from horngate_client.errors import (
    CallError,
    ConfigurationError,
    DeadlineExceeded,
    ServerFault,
    TryLater,
    Unavailable,
)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How a failed request is tried again. Inference changes nothing on the server, so a repeat is harmless.

    ``Overloaded`` and ``Unavailable`` are tried again until the time is up; a ``ServerFault`` with code INTERNAL
    once; an attempt that used up its share of the time, at another address; nothing else. The wait doubles each
    time, and half of it is random, so that many clients do not return together. A server that says when to return
    (``grpc-retry-pushback-ms``) is obeyed, and one that says "do not" as well. What lasts, such as a certificate that
    is not trusted, is tried at other addresses only. Never is a wait begun that would
    outlast the deadline: then the failure itself is raised, at once.

    Attributes:
        attempts: the most tries of one request, the first included; None: as many as fit into the time. 1 never
            retries.
        initial_seconds: the wait before the second try.
        multiplier: what each wait is multiplied with.
        max_seconds: the longest wait of our own choice.
        share: of the time that is left, what an attempt may take where another address can be asked after it.
        budget: how many retries the servers see; one that has nothing to pay with waits. A connection that could
            not be made costs nothing.

    Raises:
        ConfigurationError: a number is out of its range.
        ConversionError: a field is of a type that cannot be meant.
    """

    attempts: int | None = None
    initial_seconds: float = 0.1
    multiplier: float = 2.0
    max_seconds: float = 2.0
    share: float = 1 / 3
    budget: RetryBudget = RetryBudget()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        if self.attempts is not None:
            given.whole("attempts", self.attempts, "3, or None")
        for name in ("initial_seconds", "multiplier", "max_seconds", "share"):
            given.number(name, getattr(self, name), "0.5")
        given.kind("budget", self.budget, RetryBudget, "a RetryBudget")
        if self.attempts is not None and self.attempts < 1:
            raise ConfigurationError(f"attempts counts the first try too, so it is at least 1, not {self.attempts}")
        if self.initial_seconds < 0 or self.max_seconds < 0 or self.multiplier < 1:
            raise ConfigurationError(f"waits are not negative and do not shrink: {self}")
        if not 0 < self.share <= 1:
            raise ConfigurationError(f"share is above 0 and at most 1, not {self.share}")

    def delay(
        self,
        error: CallError,
        *,
        attempt: int,
        remaining: float,
        other_address: bool,
        random: Callable[[], float],
        idempotent: bool = True,
    ) -> float | None:
        """Return the seconds to wait before the next try, or None to give up.

        Args:
            error: how this try failed.
            attempt: the number of this try, from 1.
            remaining: seconds until the deadline.
            other_address: the next try goes to an address that this request has not tried yet.
            random: a number from 0 up to 1.
            idempotent: a repeat is harmless. Where it is not, only what was never sent is tried again.
        """
        if (self.attempts is not None and attempt >= self.attempts) or not (idempotent or error.unsent):
            return None
        if not self._may_repeat(error, attempt, other_address=other_address):
            return None
        if error.pushback is not None:
            wait = error.pushback
        elif other_address and isinstance(error, Unavailable | DeadlineExceeded):
            wait = 0.0
        else:
            wait = self.backoff(attempt, random)
        return wait if 0 <= wait < remaining else None

    def backoff(self, attempt: int, random: Callable[[], float]) -> float:
        """Return the seconds to wait between two tries, where the server does not say how long.

        Args:
            attempt: the number of the try that failed, from 1.
            random: a number from 0 up to 1.
        """
        ceiling = min(self.initial_seconds * self.multiplier ** min(attempt - 1, 64), self.max_seconds)
        return ceiling * (0.5 + 0.5 * random())

    def _may_repeat(self, error: CallError, attempt: int, *, other_address: bool) -> bool:
        if error.lasting:
            return other_address
        if isinstance(error, DeadlineExceeded):
            return error.share_only and other_address
        if isinstance(error, ServerFault):
            return error.code == "INTERNAL" and attempt == 1
        return isinstance(error, TryLater)


def pushback_seconds(value: str | bytes | None) -> float | None:
    """Read ``grpc-retry-pushback-ms`` as seconds; negative is "do not retry", and so is what cannot be read."""
    if value is None:
        return None
    try:
        milliseconds = int(value)
    except ValueError:
        return -1.0
    return milliseconds / 1000 if milliseconds >= 0 else -1.0
