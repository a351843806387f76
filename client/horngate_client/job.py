"""One call under way: which of its requests are in flight, which are sent again, and when. Does no I/O itself.

A driver (``sync``, ``aio``) asks ``next`` what to do, does it, and reports ``answered`` or ``failed``:

    next() -> Send    send these bytes to that address
           -> Wait    nothing to send now: wait for an answer, or until a retry is due
           -> None    every answer is there: take result()

At most ``window`` requests are unanswered at a time. One that waits to be sent again keeps its place, so an
overloaded server sees less of us. A failure that may not be retried is raised by ``failed``, and ends the
call.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from horngate_client.calls import Call
from horngate_client.errors import CallError, DeadlineExceeded
from horngate_client.retry import RetryPolicy

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Span:
    """The time of a user's call, on a monotonic clock: its first moment and the one when its time is up."""

    started: float
    deadline: float


@dataclass(frozen=True, slots=True)
class Send:
    """Send a request.

    Attributes:
        part: which one; ``answered`` and ``failed`` want it back.
        address: the index of the server.
        request: the message's bytes.
        timeout: seconds until the whole call's deadline.
    """

    part: int
    address: int
    request: bytes
    timeout: float


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait for the next answer, but no longer than ``seconds``; None: until it comes (each has its deadline)."""

    seconds: float | None


class Job(Generic[T]):
    """The state of one call; it belongs to one driver and is not shared between threads."""

    def __init__(
        self,
        call: Call[T],
        *,
        policy: RetryPolicy,
        span: Span,
        window: int,
        addresses: Sequence[str],
        turns: Iterator[int],
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._call = call
        self._policy = policy
        self._span = span
        self._window = window
        self._addresses = addresses
        self._turns = turns
        self._clock = clock
        self._random = random
        self._unsent = iter(range(call.parts))
        self._more = call.parts > 0
        self._open = 0
        self._again: list[tuple[float, int]] = []
        self._tries = [0] * call.parts
        self._first = [0] * call.parts
        self._answers: list[Any] = [None] * call.parts

    @property
    def method(self) -> str:
        """The RPC's name."""
        return self._call.method

    @property
    def single(self) -> bool:
        """The call is one request, so that a driver need not prepare for several."""
        return self._call.parts == 1

    def next(self) -> Send | Wait | None:
        """Return what to do now."""
        now = self._clock()
        if self._again and self._again[0][0] <= now:
            return self._send(heapq.heappop(self._again)[1], now)
        if self._more and self._open < self._window:
            part = next(self._unsent, None)
            if part is not None:
                self._open += 1
                self._first[part] = next(self._turns)
                return self._send(part, now)
            self._more = False
        if self._open == 0:
            return None
        return Wait(self._again[0][0] - now if self._again else None)

    def answered(self, part: int, payload: bytes) -> None:
        """Take an answer; a ProtocolError where it cannot be one to this request."""
        self._answers[part] = self._call.answer(part, payload)
        self._open -= 1

    def failed(self, part: int, error: CallError) -> None:
        """Plan another try, or raise what ends the call."""
        now = self._clock()
        tries = self._tries[part]
        delay = self._policy.delay(
            error,
            attempt=tries,
            remaining=self._span.deadline - now,
            other_address=tries < len(self._addresses),
            random=self._random,
        )
        if delay is None:
            error.attempts = tries
            raise error
        heapq.heappush(self._again, (now + delay, part))

    def result(self) -> T:
        """Join the answers, once ``next`` has returned None."""
        return self._call.result(self._answers, self._clock() - self._span.started)

    def _send(self, part: int, now: float) -> Send:
        address = (self._first[part] + self._tries[part]) % len(self._addresses)
        if now >= self._span.deadline:
            raise DeadlineExceeded(
                f"the time was up before {self.method} was sent to {self._addresses[address]}: "
                "give the call a larger timeout",
                code="DEADLINE_EXCEEDED",
                address=self._addresses[address],
                attempts=max(1, self._tries[part]),
            )
        self._tries[part] += 1
        return Send(part, address, self._call.request(part), self._span.deadline - now)
