"""The waiting line of one model: what waits, in which order it takes its turn, and when a batch is due.

Not thread-safe and without a clock of its own: its owner, the executor, holds the lock and tells the time.

The contract. An idle executor gets whatever is there at once (or, with a delay set, once the oldest has waited that
long or a full batch is there). A request that fits into a batch is never split. A larger one takes a turn of at most
one batch, then goes behind those who came meanwhile. Rows waiting never exceed the capacity.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from horngate_server.admission import Plan
from horngate_server.errors import CallerGone, DeadlineExpired, QueueFull, RequestError
from horngate_server.request import Buffer, InferenceRequest
from horngate_server.transports import Reply


@dataclass(frozen=True, slots=True, eq=False)
class Work:
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

    def abandoned(self, now: float) -> RequestError | None:
        """Say why this need not be computed or answered any more, if so."""
        if now >= self.deadline:
            return DeadlineExpired(f"the deadline passed after {now - self.arrived:.3f} s in the queue")
        if self.reply.done():
            return CallerGone("the caller cancelled")
        return None


@dataclass(slots=True, eq=False)
class Progress:
    """How far a work has come; only the executor's thread and the line touch it.

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
    """Rows ``start`` to ``stop`` of one request, in a batch."""

    progress: Progress
    start: int
    stop: int


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What is computed together.

    Attributes:
        slices: in the order in which their rows lie.
        rows: their sum.
        shapes: per input, the axes after the first, the same for all.
        dropped: who needs no computing any more, with the reason.
    """

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
        self._waiting: deque[Progress] = deque()

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
        self._waiting.append(Progress(work, 0, 0, 0.0, 0.0, [], over=False))

    def due(self) -> float | None:
        """Return when the next batch may be taken, on the clock of ``Work.arrived``; None while nothing waits."""
        if not self._waiting:
            return None
        if self.rows >= self.max_batch_rows:
            return 0.0
        return self._waiting[0].work.arrived + self._delay_s

    def take(self, now: float) -> Batch:
        """Remove the next batch from the line, and whoever need not be computed any more."""
        slices: list[Slice] = []
        dropped: list[tuple[Work, RequestError]] = []
        passed: list[Progress] = []
        again: Progress | None = None
        shapes: tuple[tuple[int, ...], ...] = ()
        room = self.max_batch_rows
        waiting = self._waiting
        while waiting and room:
            progress = waiting.popleft()
            work = progress.work
            left = work.plan.rows - progress.taken
            if progress.over:
                self.rows -= left
                continue
            reason = work.abandoned(now)
            if reason is not None:
                self.rows -= left
                progress.over = True
                dropped.append((work, reason))
                continue
            if slices and work.plan.shapes != shapes:
                passed.append(progress)
                continue
            if left > room and work.plan.rows <= self.max_batch_rows:
                passed.append(progress)
                break  # it fits into a batch, so it waits for the next one whole; nobody overtakes it
            rows = min(left, room, self.max_batch_rows - progress.turn)
            slices.append(Slice(progress, progress.taken, progress.taken + rows))
            shapes = work.plan.shapes
            room -= rows
            self.rows -= rows
            progress.taken += rows
            progress.turn += rows
            if rows < left:
                again = progress  # at most one: it has filled the batch, or its turn is over
                if progress.turn >= self.max_batch_rows:
                    progress.turn = 0
                    waiting.append(progress)
                    again = None
                    continue
                break
        if again is not None:
            waiting.appendleft(again)
        waiting.extendleft(reversed(passed))
        return Batch(slices, self.max_batch_rows - room, shapes, dropped)

    def drain(self) -> Iterator[Work]:
        """Empty the line and yield everyone in it who has not been answered."""
        while self._waiting:
            progress = self._waiting.popleft()
            if not progress.over:
                progress.over = True
                yield progress.work
        self.rows = 0
