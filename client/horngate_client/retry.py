"""When to try again: a pure function of what happened, how often, and how much time is left."""

from collections.abc import Callable
from dataclasses import dataclass

from horngate_client.errors import CallError, ConfigurationError, ServerFault, TryLater, Unavailable


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How a failed request is tried again. Inference changes nothing on the server, so a repeat is harmless.

    ``Overloaded`` and ``Unavailable`` are tried again; a ``ServerFault`` with code INTERNAL once; nothing
    else. The wait doubles each time, and half of it is random, so that many clients do not return together. A
    server that says when to return (``grpc-retry-pushback-ms``) is obeyed, and one that says "do not" as
    well. Never is a wait begun that would outlast the deadline: then the failure itself is raised, at once.

    Attributes:
        attempts: the most tries of one request, the first included. 1 never retries.
        initial_seconds: the wait before the second try.
        multiplier: what each wait is multiplied with.
        max_seconds: the longest wait of our own choice.
    """

    attempts: int = 5
    initial_seconds: float = 0.1
    multiplier: float = 2.0
    max_seconds: float = 2.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ConfigurationError(f"attempts counts the first try too, so it is at least 1, not {self.attempts}")
        if self.initial_seconds < 0 or self.max_seconds < 0 or self.multiplier < 1:
            raise ConfigurationError(f"waits are not negative and do not shrink: {self}")

    def delay(
        self,
        error: CallError,
        *,
        attempt: int,
        remaining: float,
        other_address: bool,
        random: Callable[[], float],
    ) -> float | None:
        """Return the seconds to wait before the next try, or None to give up.

        Args:
            error: how this try failed.
            attempt: the number of this try, from 1.
            remaining: seconds until the deadline.
            other_address: the next try goes to an address that this request has not tried yet.
            random: a number from 0 up to 1.
        """
        if attempt >= self.attempts or not self._may_repeat(error, attempt):
            return None
        if error.pushback is not None:
            wait = error.pushback
        elif other_address and isinstance(error, Unavailable):
            wait = 0.0
        else:
            ceiling = min(self.initial_seconds * self.multiplier ** (attempt - 1), self.max_seconds)
            wait = ceiling * (0.5 + 0.5 * random())
        return wait if 0 <= wait < remaining else None

    def _may_repeat(self, error: CallError, attempt: int) -> bool:
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
