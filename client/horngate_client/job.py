"""One call under way: which of its requests are in flight, which are sent again, and when. Does no I/O itself.

A driver (``sync``, ``aio``) asks ``next`` what to do, does it, and reports ``answered`` or ``failed``:

    next() -> Send    send these bytes to that address
           -> Wait    nothing to send now: wait for an answer, or until a retry is due
           -> None    every answer is there: take result()

At most ``window`` requests are unanswered at a time. One that waits to be sent again keeps its place, so an
overloaded server sees less of us. The pool chooses the addresses, and the bucket pays for retries. A failure that
may not be retried is raised by ``failed``, and ends the call.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from horngate_client.budget import Bucket
from horngate_client.calls import Call
from horngate_client.errors import CallError, DeadlineExceeded, Unavailable
from horngate_client.pool import Pool
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
        address: where to.
        request: the message's bytes.
        timeout: seconds for this attempt.
        shared: that is a share of the time that is left, so that another address can be asked after it.
    """

    part: int
    address: str
    request: bytes
    timeout: float
    shared: bool = False


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
        pool: Pool,
        bucket: Bucket,
        clock: Callable[[], float],
        random: Callable[[], float],
        first: str | None = None,
    ) -> None:
        self._call = call
        self._policy = policy
        self._span = span
        self._window = window
        self._pool = pool
        self._bucket = bucket
        self._clock = clock
        self._random = random
        self._first = first
        self._unsent = iter(range(call.parts))
        self._more = call.parts > 0
        self._open = 0
        self._again: list[tuple[float, int]] = []
        self._tried: list[list[str]] = [[] for _ in range(call.parts)]
        self._paid = [False] * call.parts
        self._errors: dict[int, CallError] = {}
        self._flying: dict[int, tuple[Send, float]] = {}
        self._answers: list[Any] = [None] * call.parts

    @property
    def method(self) -> str:
        """The RPC's name."""
        return self._call.method

    @property
    def single(self) -> bool:
        """The call is one request, so that a driver need not prepare for several."""
        return self._call.parts == 1

    @property
    def deadline(self) -> float:
        """When the time of the call is up."""
        return self._span.deadline

    @property
    def last_address(self) -> str:
        """Where the first request was sent last."""
        return self._tried[0][-1]

    def next(self) -> Send | Wait | None:
        """Return what to do now."""
        now = self._clock()
        while self._again and self._again[0][0] <= now:
            part = heapq.heappop(self._again)[1]
            if self._may_send_again(part, now):
                return self._send(part, now)
        if self._more and self._open < self._window:
            for part in self._unsent:
                self._open += 1
                self._bucket.called()
                return self._send(part, now)
            self._more = False
        if self._open == 0:
            return None
        return Wait(self._again[0][0] - now if self._again else None)

    def answered(self, part: int, payload: bytes) -> None:
        """Take an answer; a ProtocolError where it cannot be one to this request."""
        sent, started = self._flying.pop(part)
        self._pool.answered(sent.address, self._clock() - started)
        if self._paid[part]:
            self._bucket.give_back()
        self._answers[part] = self._call.answer(part, payload)
        self._open -= 1

    def failed(self, part: int, error: CallError) -> None:
        """Plan another try, or raise what ends the call."""
        now = self._clock()
        sent, started = self._flying.pop(part)
        self._note(sent, error, now - started)
        tried = self._tried[part]
        delay = self._policy.delay(
            error,
            attempt=len(tried),
            remaining=self._span.deadline - now,
            other_address=self._pool.has_other(tried),
            random=self._random,
            idempotent=self._call.idempotent,
        )
        if delay is None:
            raise self._told(part, error, now)
        self._errors[part] = error
        heapq.heappush(self._again, (now + delay, part))

    def abandon(self) -> None:
        """Release what is still in flight; for a driver that ends, whatever the reason."""
        for sent, _ in self._flying.values():
            self._pool.dropped(sent.address)
        self._flying.clear()

    def result(self) -> T:
        """Join the answers, once ``next`` has returned None."""
        return self._call.result(self._answers, self._clock() - self._span.started)

    # --- private --------------------------------------------------------------------------------------------

    def _send(self, part: int, now: float) -> Send:
        tried = self._tried[part]
        remaining = self._span.deadline - now
        if remaining <= 0:
            late = DeadlineExceeded(
                f"the time was up before {self.method} was sent: give the call a larger timeout",
                code="DEADLINE_EXCEEDED",
                address=tried[-1] if tried else "",
            )
            raise self._told(part, self._errors.get(part, late), now)
        address = self._pool.take(tried, first=None if tried else self._first)
        tried.append(address)
        timeout = remaining
        last = self._policy.attempts is not None and len(tried) >= self._policy.attempts
        if self._call.idempotent and not last and not self._bucket.empty and self._pool.has_other(tried):
            timeout = self._pool.attempt_seconds(remaining, self._policy.share)
        send = Send(part, address, self._call.request(part), timeout, timeout < remaining)
        self._flying[part] = (send, now)
        return send

    def _may_send_again(self, part: int, now: float) -> bool:
        """Pay for a retry, or put it off: waiting burdens no server."""
        error = self._errors[part]
        self._paid[part] = not error.unsent and self._bucket.take(now)
        if error.unsent or self._paid[part]:
            return True
        later = now + self._policy.backoff(len(self._tried[part]), self._random)
        if later >= self._span.deadline or later == now:
            raise self._told(part, error, now)
        heapq.heappush(self._again, (later, part))
        return False

    def _note(self, sent: Send, error: CallError, seconds: float) -> None:
        if isinstance(error, Unavailable):
            self._pool.failed(sent.address, suspected=False)
        elif isinstance(error, DeadlineExceeded):
            error.share_only = sent.shared
            if seconds >= 0.9 * sent.timeout:
                self._pool.failed(sent.address, suspected=True)
            else:  # the server itself refused, because it could not answer in time
                self._pool.dropped(sent.address)
        else:
            self._pool.answered(sent.address, 0.0)

    def _told(self, part: int, error: CallError, now: float) -> CallError:
        tried = self._tried[part]
        error.attempts, error.tried, error.seconds = max(1, len(tried)), tuple(tried), now - self._span.started
        return error
