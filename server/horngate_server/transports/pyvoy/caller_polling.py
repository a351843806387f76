"""Finding callers that disconnect while they wait: pyvoy has no event for that, so they are polled, ever less often."""

import asyncio
from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import count
from math import inf

from horngate_server.core.clock import Clock
from horngate_server.transports.pyvoy.background_tasks import BackgroundTasks
from horngate_server.transports.pyvoy.reply import Reply

POLL_AFTER_S = 0.05
"""A caller that has waited this long is polled, and again after three times as long, and so on.

Longer than a small request takes on a busy server: where each waited 10 ms, polling them all at 10 ms was 8 % of what
Python did."""
TOGETHER_S = 0.01
"""Those that come within so long are polled together, when the first of them is due: a timer for each request took a
tenth of the time that Python had for it."""


class CallerPolling:
    """Polls the callers of one asyncio loop until they are answered or gone.

    The new ones are a queue, since all of them wait equally long until they are polled; those polled before are a heap.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._new: deque[tuple[float, list[Reply]]] = deque()
        self._polled: list[tuple[float, int, float, Sequence[Reply]]] = []
        self._numbers = count()
        self._next = inf
        self._timer: asyncio.TimerHandle | None = None
        self._tasks = BackgroundTasks()

    def watch(self, replies: Sequence[Reply]) -> None:
        """Poll these callers, who begin to wait now, unless they have been answered."""
        waiting = [reply for reply in replies if not reply.answered]
        if not waiting:
            return
        now = self._clock()
        if self._new and now < self._new[-1][0] + TOGETHER_S:
            self._new[-1][1].extend(waiting)
            return
        self._new.append((now, waiting))
        due = now + POLL_AFTER_S
        if due < self._next:
            self._poll_at(due, now)

    # --- private --------------------------------------------------------------------------------------

    def _poll_at(self, due: float, now: float) -> None:
        """Poll then, instead of at a later time if that was planned."""
        if self._timer:
            self._timer.cancel()
        self._next = due
        self._timer = asyncio.get_running_loop().call_later(max(0.0, due - now), self._poll)

    def _poll(self) -> None:
        """Poll those whose time has come, and plan their next time."""
        now = self._clock()
        for came, replies in self._due(now):
            left = [reply for reply in replies if not reply.answered and not reply.gone]
            for reply in left:
                self._tasks.spawn(reply.poll())
            if left:
                heappush(self._polled, (now + 2 * (now - came), next(self._numbers), came, left))
        self._next = inf
        if self._new or self._polled:
            new = self._new[0][0] + POLL_AFTER_S if self._new else inf
            self._poll_at(min(new, self._polled[0][0] if self._polled else inf), now)

    def _due(self, now: float) -> Sequence[tuple[float, Sequence[Reply]]]:
        """Take those that are due out, with the time at which they came."""
        due: list[tuple[float, Sequence[Reply]]] = []
        while self._new and self._new[0][0] + POLL_AFTER_S <= now:
            due.append(self._new.popleft())
        while self._polled and self._polled[0][0] <= now:
            due.append(heappop(self._polled)[2:])
        return due
