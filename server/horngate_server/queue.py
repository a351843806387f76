"""The waiting line of one model: what waits, in which order it takes its turn, and when a batch is due.

Not thread-safe and without a clock of its own: its owner, the executor, holds the lock and tells the time.

The contract. An idle executor gets whatever is there at once (or, with a delay set, once the oldest has waited that
long or a full batch is there). A request that fits into a batch is never split. A larger one takes a turn of at most
one batch, then goes behind those who came meanwhile. Rows waiting never exceed the capacity.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from horngate_server.admission import Plan
from horngate_server.errors import CallerGone, DeadlineExpired, QueueFull, RequestError
from horngate_server.request import Buffer, InferenceRequest
from horngate_server.transports import Reply


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
        turn: rows handed out in this turn.
        started: when its first batch began; 0 before.
        compute_s: seconds in the model so far.
        parts: per batch that it was in so far, its outputs' axes after the first and their bytes.
        over: it has been answered, whatever is left of it.
    """

    work: Work
    taken: int
    turn: int
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
        delay_s: how long the first of a batch may be kept waiting for more; 0 for not at all.
    """

    def __init__(self, *, capacity_rows: int, max_batch_rows: int, delay_s: float = 0.0) -> None:
        self.capacity_rows = capacity_rows
        self.max_batch_rows = max_batch_rows
        self.rows = 0
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
        self._waiting.append(work if fits else Progress(work, 0, 0, 0.0, 0.0, [], over=False))

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
        room = self.max_batch_rows
        waiting = self._waiting
        while waiting and room:
            item = waiting.popleft()
            if isinstance(item, Work):
                work, large, left = item, None, item.plan.rows
            else:
                work, large, left = item.work, item, item.work.plan.rows - item.taken
            if large is not None and large.over:
                self.rows -= left
                continue
            if work.is_abandoned(now):
                self.rows -= left
                if large is not None:
                    large.over = True
                dropped.append((work, work.abandoned(now)))
                continue
            if shapes is None:
                shapes = work.plan.shapes
            elif work.plan.shapes != shapes:
                passed.append(item)
                continue
            if large is not None:
                rows = self._slice(large, min(left, room), slices)
            elif left > room:
                passed.append(item)
                break  # it fits into a batch, so it waits for the next one whole; nobody overtakes it
            else:
                rows = left
                whole.append(work)
            room -= rows
            self.rows -= rows
        waiting.extendleft(reversed(passed))
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

    # --- private --------------------------------------------------------------------------------------

    def _slice(self, large: Progress, rows: int, slices: list[Slice]) -> int:
        """Hand out rows of a large request; what is left of it goes in front, or last once its turn is over."""
        rows = min(rows, self.max_batch_rows - large.turn)
        slices.append(Slice(large, large.taken, large.taken + rows))
        large.taken += rows
        large.turn += rows
        if large.taken < large.work.plan.rows:
            if large.turn >= self.max_batch_rows:
                large.turn = 0
                self._waiting.append(large)
            else:
                self._waiting.appendleft(large)
        return rows
