"""The waiting line of one model: what waits, in which order it takes its turn, and when a batch is due.

Not thread-safe and without a clock of its own: its owner, the executor, holds the lock and tells the time.

The contract. An idle executor gets whatever is there at once (or, with a delay set, once the oldest has waited that
long or a full batch is there). A request that fits into a batch is never split. A larger one takes a turn of a quarter
of a batch, then goes behind those who came meanwhile. Rows waiting never exceed the capacity.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from horngate_server.admission import Plan
from horngate_server.errors import CallerGone, DeadlineExpired, QueueFull, RequestError
from horngate_server.request import Buffer, InferenceRequest
from horngate_server.transports import Reply

BULK_SHARE = 4
"""A batch has this many times the rows that larger requests may have in it."""


class Work(NamedTuple):
    """The unit of work: one admitted request, with the means to answer it.

    Attributes:
        reply: where the answer goes.
        request: as decoded.
        plan: rows and shapes.
        data: the inputs in the signature's order.
        arrived: when, on the monotonic clock.
        deadline: when nobody wants the answer any more; infinite without one.
    """

    reply: Reply
    request: InferenceRequest
    plan: Plan
    data: Sequence[Buffer]
    arrived: float
    deadline: float

    def is_abandoned(self, now: float) -> bool:
        """Whether this need not be computed or answered any more."""
        return now >= self.deadline or self.reply.done()

    def abandoned(self, now: float) -> RequestError:
        """Say why."""
        if now >= self.deadline:
            return DeadlineExpired(f"the deadline passed after {now - self.arrived:.3f} s in the queue")
        return CallerGone("the caller cancelled")


@dataclass(slots=True, eq=False)
class Progress:
    """How far a work has come that is larger than a batch; only the executor's thread and the line touch it.

    Attributes:
        work: the request.
        taken: rows handed out in batches so far.
        started: when its first batch began; 0 before.
        compute_s: seconds in the model so far.
        parts: per batch that it was in so far, its outputs' axes after the first and their bytes.
        over: it has been answered, whatever is left of it.
    """

    work: Work
    taken: int
    started: float
    compute_s: float
    parts: list[tuple[Sequence[tuple[int, ...]], Sequence[Buffer]]]
    over: bool


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """Rows ``start`` to ``stop`` of a request that is larger than a batch."""

    progress: Progress
    start: int
    stop: int


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What is computed together.

    Attributes:
        whole: requests with all their rows, in the order in which these lie: first.
        slices: parts of larger requests, in the order in which their rows lie: after those.
        rows: their sum.
        shapes: per input, the axes after the first, the same for all.
        dropped: who needs no computing any more, with the reason.
    """

    whole: Sequence[Work]
    slices: Sequence[Slice]
    rows: int
    shapes: tuple[tuple[int, ...], ...]
    dropped: Sequence[tuple[Work, RequestError]]


class Line:
    """The waiting line.

    Args:
        capacity_rows: rows that may wait; a put that would exceed them is refused.
        max_batch_rows: rows in a batch at most.
        bulk_rows: of these, how many may be parts of larger requests: what a small one may have to wait for.
        delay_s: how long the first of a batch may be kept waiting for more; 0 for not at all.
    """

    def __init__(
        self, *, capacity_rows: int, max_batch_rows: int, bulk_rows: int | None = None, delay_s: float = 0.0
    ) -> None:
        self.capacity_rows = capacity_rows
        self.max_batch_rows = max_batch_rows
        self.rows = 0
        self._bulk_rows = bulk_rows or max(1, max_batch_rows // BULK_SHARE)
        self._delay_s = delay_s
        self._waiting: deque[Work | Progress] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, work: Work, retry_after_s: float) -> None:
        """Add a request at the end.

        Raises:
            QueueFull: at once, where its rows have no room.
        """
        if self.rows + work.plan.rows > self.capacity_rows:
            raise QueueFull(
                f"the queue is full: {self.rows} of {self.capacity_rows} rows wait, no room for {work.plan.rows} more",
                retry_after_s=retry_after_s,
            )
        self.rows += work.plan.rows
        fits = work.plan.rows <= self.max_batch_rows
        self._waiting.append(work if fits else Progress(work, 0, 0.0, 0.0, [], over=False))

    def due(self) -> float | None:
        """Return when the next batch may be taken, on the clock of ``Work.arrived``; None while nothing waits."""
        if not self._waiting:
            return None
        if self.rows >= self.max_batch_rows:
            return 0.0
        first = self._waiting[0]
        work = first if isinstance(first, Work) else first.work
        return work.arrived + self._delay_s

    def take(self, now: float) -> Batch:
        """Remove the next batch from the line, and whoever need not be computed any more."""
        whole: list[Work] = []
        slices: list[Slice] = []
        dropped: list[tuple[Work, RequestError]] = []
        passed: list[Work | Progress] = []
        shapes: tuple[tuple[int, ...], ...] | None = None
        again: list[Work | Progress] = []
        room, bulk_room = self.max_batch_rows, self._bulk_rows
        waiting = self._waiting
        while waiting and room:
            item = waiting.popleft()
            large = None if isinstance(item, Work) else item
            work = item if isinstance(item, Work) else item.work
            left = work.plan.rows - (large.taken if large else 0)
            if (large and large.over) or work.is_abandoned(now):
                self.rows -= left
                if not (large and large.over):
                    dropped.append((work, work.abandoned(now)))
                if large:
                    large.over = True
                continue
            if shapes is None:
                shapes = work.plan.shapes
            elif work.plan.shapes != shapes or (large and not bulk_room):
                passed.append(item)
                continue
            rows = left
            if large:
                rows = min(left, room, bulk_room)
                slices.append(Slice(large, large.taken, large.taken + rows))
                large.taken += rows
                bulk_room -= rows
                if rows < left:
                    (passed if bulk_room else again).append(large)  # its turn goes on, or is over
            elif left > room:
                passed.append(item)
                break  # it fits into a batch, so it waits for the next one whole; nobody overtakes it
            else:
                whole.append(work)
            room -= rows
            self.rows -= rows
        waiting.extendleft(reversed(passed))
        waiting.extend(again)
        return Batch(whole, slices, self.max_batch_rows - room, shapes or (), dropped)

    def drain(self) -> Iterator[Work]:
        """Empty the line and yield everyone in it who has not been answered."""
        while self._waiting:
            item = self._waiting.popleft()
            if isinstance(item, Work):
                yield item
            elif not item.over:
                item.over = True
                yield item.work
        self.rows = 0
