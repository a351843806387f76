"""The waiting line of one model: what waits, in which order it takes its turn, and when a batch is due.

Not thread-safe and without a clock of its own: its owner, the executor, holds the lock and tells the time.

The contract. An idle executor gets whatever is there at once (or, with a delay set, once the oldest has waited that
long or a full batch is there). An interactive request that fits into a batch is never split. A larger one takes a turn
of a quarter of a batch, then goes behind those who came meanwhile. Rows waiting never exceed the capacity.

Bulk requests get the room that interactive ones leave, up to the same quarter. In as many batches as the longest
possible line of interactive rows has, bulk is owed one such turn: where it got less, it goes first, once. So it never
starves, and while an interactive request waits, it is overtaken once at most. Each of the two has the whole capacity:
bulk takes nobody's place.

While small interactive requests come, or came a moment ago, such a turn has no more rows than the model needs to
compute them at nearly its full rate (`CostModel.turn`): whoever comes meanwhile waits for all of it.

A request whose plan is ``whole`` is a batch of its own, however many rows it has.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from threading import Lock
from typing import NamedTuple

from horngate_server.core.codec import Codec
from horngate_server.core.errors import CallerGone, DeadlineExpired, QueueFull, RequestError
from horngate_server.core.inference import Data, InferenceRequest, ModelInfo
from horngate_server.core.request_context import RequestContext
from horngate_server.core.rpc import Reply
from horngate_server.engine.validation import Plan

BULK_SHARE = 4
"""A batch has this many times the rows that larger requests and bulk may have in it."""
BESIDE_S = 0.05
"""So long after the latest small interactive request, more are expected."""
MOST_PASSED = 256
"""Requests that are passed over for one batch: all of a long line would be looked at under the lock, batch by batch."""


class Work(NamedTuple):
    """The unit of work: one admitted request, with the means to answer it.

    Attributes:
        reply: where the answer goes.
        codec: writes it.
        request: as decoded.
        plan: rows and shapes.
        data: the inputs in the signature's order.
        arrived: when, on the monotonic clock.
        deadline: when nobody wants the answer any more; infinite without one.
        origin: where it comes from, if it is to be told about.
    """

    reply: Reply
    codec: Codec
    request: InferenceRequest
    plan: Plan
    data: Sequence[Data]
    arrived: float
    deadline: float
    origin: RequestContext | None = None

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
    """How far a work has come that is larger than a batch; its parts may be computed at the same time.

    Attributes:
        work: the request.
        taken: rows handed out in batches so far.
        started: when the first batch began that is over; 0 before.
        compute_s: seconds in the model so far.
        parts: per batch that it was in so far, its first row there, the shapes of the request's outputs, and its rows.
        over: it has been answered, whatever is left of it.
        computed: rows in the parts.
        lock: held by who adds to it, or ends it.
    """

    work: Work
    taken: int
    started: float
    compute_s: float
    parts: list[tuple[int, Sequence[tuple[int, ...]], Sequence[Data]]]
    over: bool
    computed: int = 0
    lock: Lock = field(default_factory=Lock)

    def ends(self) -> bool:
        """Let it be over; whether it was not before, so that it is for the one who asks to answer it."""
        with self.lock:
            ends, self.over = not self.over, True
            return ends


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
        info: the model and the signature; None where nobody is left to be computed.
        whole: requests with all their rows, in the order in which these lie: first.
        slices: parts of larger requests, in the order in which their rows lie: after those.
        rows: their sum.
        shapes: per input, the axes after the first, the first request's and the same for all that are not padded
            (`engine.lengths`); all axes where it is ``alone``.
        dropped: who needs no computing any more, with the reason.
        alone: it is one request that has the run for itself.
        kind: which requests these are, for what it costs.
    """

    info: ModelInfo | None
    whole: Sequence[Work]
    slices: Sequence[Slice]
    rows: int
    shapes: tuple[tuple[int, ...], ...]
    dropped: Sequence[tuple[Work, RequestError]] = ()
    alone: bool = False
    kind: Hashable = None

    @classmethod
    def alone_of(cls, work: Work) -> "Batch":
        """Return the run that a request has for itself."""
        plan = work.plan.alone()
        return cls(plan.info, [work], (), plan.rows, plan.shapes, alone=True, kind=plan.alike)

    def parts(self) -> "list[Batch]":
        """Return it as two batches that each have half of its requests; itself where it is one request's."""
        items: list[Work | Slice] = [*self.whole, *self.slices]
        if len(items) < 2:
            return [self]
        half = len(items) // 2
        return [self.of(items[:half]), self.of(items[half:])]

    def halves(self) -> "list[Batch]":
        """Return it as two batches that each have about half of its rows; of one request's, if need be."""
        if len(self.whole) + len(self.slices) > 1:
            return self.parts()
        if self.whole:
            work = self.whole[0]
            part = Slice(Progress(work, work.plan.rows, 0.0, 0.0, [], over=False), 0, work.plan.rows)
        else:
            part = self.slices[0]
        middle = (part.start + part.stop) // 2
        return [
            self.of([Slice(part.progress, start, stop)]) for start, stop in ((part.start, middle), (middle, part.stop))
        ]

    def of(self, items: "Sequence[Work | Slice]") -> "Batch":
        """Return a batch of some that are in this one."""
        whole = [each for each in items if isinstance(each, Work)]
        slices = [each for each in items if isinstance(each, Slice)]
        rows = sum(work.plan.rows for work in whole) + sum(part.stop - part.start for part in slices)
        first = [*whole, *(part.progress.work for part in slices)][:1]
        shapes = first[0].plan.shapes if first and not self.alone else self.shapes
        return replace(self, whole=whole, slices=slices, rows=rows, shapes=shapes, dropped=())


class BatchQueue:
    """The waiting line.

    Args:
        capacity_rows: interactive rows that may wait, and bulk ones; a put that would exceed them is refused.
        max_batch_rows: rows in a batch at most.
        bulk_rows: of these, how many may be bulk or parts of larger requests: what a small one may have to wait for.
        delay_s: how long the first of a batch may be kept waiting for more; 0 for not at all.
        capacity_bytes: bytes that the answers of those who wait may have.
        turn: says how many rows of a kind a turn has while others wait for it, of so many at most.
    """

    def __init__(
        self,
        *,
        capacity_rows: int,
        max_batch_rows: int,
        bulk_rows: int | None = None,
        delay_s: float = 0.0,
        capacity_bytes: float = inf,
        turn: Callable[[Hashable, int], int] = lambda _kind, most: most,
    ) -> None:
        self.capacity_rows = capacity_rows
        self.capacity_bytes = capacity_bytes
        self.delay_s = delay_s
        self._given_bulk_rows = bulk_rows
        self._turn = turn
        self.limit(max_batch_rows)
        self._interactive = _Lane(bulk=False)
        self._bulk = _Lane(bulk=True)
        self._owed = 0.0
        self._small_at = -inf

    def limit(self, max_batch_rows: int) -> None:
        """Take so many rows into a batch at most from now on."""
        self.max_batch_rows = max_batch_rows
        self._bulk_rows = self._given_bulk_rows or max(1, max_batch_rows // BULK_SHARE)
        self._patience = -(-self.capacity_rows // max_batch_rows)

    def __len__(self) -> int:
        return len(self._interactive.waiting) + len(self._bulk.waiting)

    @property
    def rows(self) -> int:
        """Rows that wait."""
        return self._interactive.rows + self._bulk.rows

    @property
    def bulk_rows(self) -> int:
        """Bulk rows that wait."""
        return self._bulk.rows

    def ahead(self, work: Work) -> int:
        """Return the rows that a request would have to wait for."""
        return self.rows if work.request.header.bulk else self._interactive.rows

    def put(self, work: Work, wait: Callable[[int], float]) -> None:
        """Add a request at the end.

        Args:
            work: the request.
            wait: says how many seconds so many rows take: when those who are refused may come again.

        Raises:
            QueueFull: at once, where its rows have no room.
        """
        lane = self._bulk if work.request.header.bulk else self._interactive
        plan = work.plan
        rows = plan.rows
        if lane.rows + rows > self.capacity_rows:
            raise QueueFull(
                f"the queue is full: {lane.rows} of {self.capacity_rows} {'bulk ' * lane.bulk}rows wait, "
                f"no room for {rows} more",
                retry_after_s=wait(lane.rows),
            )
        if plan.answer_bytes:
            held = self._interactive.bytes + self._bulk.bytes
            if held + plan.answer_bytes > self.capacity_bytes:
                raise QueueFull(
                    f"the queue is full: the answers of those who wait will have about {held} of {self.capacity_bytes} "
                    f"bytes (--max-request-bytes), no room for {plan.answer_bytes} more",
                    retry_after_s=wait(max(1, lane.rows)),
                )
            lane.bytes += plan.answer_bytes
        lane.rows += rows
        fits = rows <= plan.max_rows and rows <= self.max_batch_rows
        if lane.bulk:
            fits = fits and rows <= min(self._bulk_rows, _share(min(self.max_batch_rows, plan.max_rows)))
        elif fits and rows <= self._bulk_rows:
            self._small_at = work.arrived
        lane.waiting.append(work if fits or plan.whole else Progress(work, 0, 0.0, 0.0, [], over=False))

    def first(self) -> Work | None:
        """Return whose turn is next; None while nothing waits."""
        for lane in (self._interactive, self._bulk):
            if lane.waiting:
                item = lane.waiting[0]
                return item if isinstance(item, Work) else item.work
        return None

    def due(self) -> float | None:
        """Return when the next batch may be taken, on the clock of ``Work.arrived``; None while nothing waits."""
        first = self.first()
        if first is None:
            return None
        if first.plan.whole or self.rows >= min(first.plan.max_rows, self.max_batch_rows):
            return 0.0
        return first.arrived + self.delay_s

    def take(self, now: float) -> Batch:
        """Remove the next batch from the line, and whoever need not be computed any more."""
        beside = now - self._small_at < BESIDE_S
        taking = _Taking(self.max_batch_rows, self._bulk_rows, self._turn if beside else None)
        if not self._bulk.waiting:
            self._owed = 0.0
            taking.take(self._interactive, now)
            return taking.batch()
        lanes = [self._interactive, self._bulk]
        if self._owed >= self._patience:
            lanes.reverse()
        before = self._bulk.rows
        for lane in lanes:
            taking.take(lane, now)
        turns = (before - self._bulk.rows) / taking.turn_rows
        self._owed = max(0.0, self._owed + 1 - self._patience * turns)
        return taking.batch()

    def drain(self) -> Iterator[Work]:
        """Empty the line and yield everyone in it who has not been answered."""
        for lane in (self._interactive, self._bulk):
            while lane.waiting:
                item = lane.waiting.popleft()
                if isinstance(item, Work):
                    yield item
                elif item.ends():
                    yield item.work
            lane.rows = lane.bytes = 0


# --- private ------------------------------------------------------------------------------------------


class _Lane:
    """Requests in the order in which they take their turns, and how many rows they have."""

    __slots__ = ("bulk", "bytes", "rows", "waiting")

    def __init__(self, *, bulk: bool) -> None:
        self.bulk = bulk
        self.waiting: deque[Work | Progress] = deque()
        self.rows = 0
        self.bytes = 0


def _share(rows: int) -> int:
    """Return how many rows of a batch larger requests and bulk may have."""
    return max(1, rows // BULK_SHARE)


class _Taking:
    """A batch while it is put together."""

    def __init__(self, rows: int, bulk_rows: int, turn: Callable[[Hashable, int], int] | None) -> None:
        self.turn_rows = bulk_rows
        """Rows of bulk and of larger requests that it takes at most."""
        self._turn = turn
        self._rows = rows
        self._room = rows
        self._bulk_room = bulk_rows
        self._plan: Plan | None = None
        self._whole: list[Work] = []
        self._slices: list[Slice] = []
        self._dropped: list[tuple[Work, RequestError]] = []

    def take(self, lane: _Lane, now: float) -> None:  # noqa: C901 - the contract's cases, on the hot path
        """Fill the room from a lane's front."""
        waiting = lane.waiting
        passed: list[Work | Progress] = []
        again: list[Work | Progress] = []
        room, bulk_room, plan, whole = self._room, self._bulk_room, self._plan, self._whole
        while waiting and room:
            item = waiting.popleft()
            large = None if isinstance(item, Work) else item
            work = item if isinstance(item, Work) else item.work
            mine = work.plan
            left = mine.rows - large.taken if large else mine.rows
            if (large and large.over) or work.is_abandoned(now):
                lane.rows -= left
                lane.bytes -= work.plan.answer_bytes
                self._drop(work, large, now)
                continue
            bulk = large or lane.bulk
            if plan is None:
                plan = mine
                room, bulk_room = self._begin(plan)
            elif (mine is not plan and mine.alike != plan.alike) or (bulk and not bulk_room):
                passed.append(item)
                if (lane.bulk and not bulk_room) or len(passed) == MOST_PASSED:
                    break  # nobody behind can have a place, or the look has been long enough
                continue
            if not large and left > (self.turn_rows if bulk else self._rows):  # they were larger when it came
                item = large = bulk = Progress(work, 0, 0.0, 0.0, [], over=False)
            rows = left
            if large:
                rows = min(left, room, bulk_room)
                self._slices.append(Slice(large, large.taken, large.taken + rows))
                large.taken += rows
                if rows < left:
                    (passed if bulk_room > rows else again).append(large)  # its turn goes on, or is over
            elif left > (min(room, bulk_room) if bulk else room):
                passed.append(item)
                break  # it fits into a batch, so it waits for the next one whole; nobody overtakes it
            else:
                whole.append(work)
            if bulk:
                bulk_room -= rows
            room -= rows
            lane.rows -= rows
            if mine.answer_bytes and rows == left:
                lane.bytes -= mine.answer_bytes
        self._room, self._bulk_room, self._plan = room, bulk_room, plan
        waiting.extendleft(reversed(passed))
        waiting.extend(again)

    def batch(self) -> Batch:
        """Return it."""
        plan = self._plan
        if plan is None:
            return Batch(None, (), (), 0, (), self._dropped)
        rows = self._rows - self._room
        return Batch(plan.info, self._whole, self._slices, rows, plan.shapes, self._dropped, plan.whole, plan.alike)

    def _begin(self, plan: Plan) -> tuple[int, int]:
        """Return the room, and that for bulk, which a batch has whose first request has this plan."""
        if plan.whole:
            self._rows, self.turn_rows = plan.rows, max(1, plan.rows)
            return plan.rows, plan.rows
        if plan.max_rows < self._rows:
            self._rows = plan.max_rows
            self.turn_rows = min(self.turn_rows, _share(plan.max_rows))
        if self._turn is not None:
            self.turn_rows = self._turn(plan.alike, self.turn_rows)
        return self._rows, self.turn_rows

    def _drop(self, work: Work, large: Progress | None, now: float) -> None:
        if large is None or large.ends():
            self._dropped.append((work, work.abandoned(now)))
