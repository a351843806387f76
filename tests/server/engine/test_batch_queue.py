"""The waiting line, without threads and with time in the test's hand."""

from itertools import pairwise
from math import inf
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from horngate_server.core.errors import CallerGone, DeadlineExpired, QueueFull
from horngate_server.core.inference import Header, InferenceRequest, ModelInfo
from horngate_server.engine.batch_queue import BESIDE_S, MOST_PASSED, Batch, BatchQueue, Work
from horngate_server.engine.validation import Plan
from horngate_server.protocols.open_inference import INFER
from support.in_process import SIGNATURE, FakeReply

NO_REQUEST = InferenceRequest(Header("m", "", ()), "", ())
BULK = InferenceRequest(Header("m", "", (), bulk=True), "", ())
INFO = ModelInfo("m", "3", SIGNATURE)


def work(rows: int, *, arrived: float = 0.0, deadline: float = inf, shapes: Any = ((2,),), bulk: bool = False) -> Work:
    """Make a request of so many rows."""
    plan = Plan(INFO, rows=rows, order=(0,), sizes=(rows * 8,), shapes=shapes, alike=("s", False, shapes))
    return Work(FakeReply(), INFER, BULK if bulk else NO_REQUEST, plan, (np.arange(rows).tobytes(),), arrived, deadline)


def line(*works: Work, capacity: int = 1000, batch: int = 8, bulk: int | None = None, delay: float = 0.0) -> BatchQueue:
    """Make a line with these works in it."""
    made = BatchQueue(capacity_rows=capacity, max_batch_rows=batch, bulk_rows=bulk, delay_s=delay)
    for each in works:
        made.put(each, float)
    return made


def cut(batch: Batch, *works: Work) -> list[tuple[int, int, int]]:
    """A batch as (which work, start, stop), in the order in which the rows lie."""
    places = {id(each): place for place, each in enumerate(works)}
    return [
        *((places[id(each)], 0, each.plan.rows) for each in batch.whole),
        *((places[id(s.progress.work)], s.start, s.stop) for s in batch.slices),
    ]


def test_batch_is_not_due_one_tick_before_the_deadline_and_due_at_it() -> None:
    """With a delay of 5, a row that came at 10 makes a batch due at 15 and not before."""
    waiting = line(work(1, arrived=10.0), delay=5.0)
    assert waiting.due() == 15.0


def test_a_full_batch_is_due_at_once_whatever_the_delay() -> None:
    """Rows enough for a whole batch do not wait for the delay."""
    waiting = line(work(4, arrived=10.0), work(4, arrived=11.0), delay=5.0)
    assert waiting.due() == 0.0


def test_nothing_is_due_while_nothing_waits() -> None:
    """An empty line has no batch to offer."""
    assert line().due() is None


def test_without_a_delay_a_single_row_is_due_at_once() -> None:
    """Work-conserving: what is there may start when it arrives."""
    assert line(work(1, arrived=10.0)).due() == 10.0


def test_a_request_that_fits_a_batch_is_never_split() -> None:
    """Six rows behind four wait for the next batch of eight, whole."""
    first, second = work(4), work(6)
    waiting = line(first, second)
    assert cut(waiting.take(0), first, second) == [(0, 0, 4)]
    assert cut(waiting.take(0), first, second) == [(1, 0, 6)]


def test_a_large_request_takes_turns_with_those_who_came_meanwhile() -> None:
    """A bulk request gets its share of a batch, and goes behind those who wait; they get the rest of each batch."""
    bulk, other, single, full = work(10), work(9), work(1), work(8)
    waiting = line(bulk, other, single, full, bulk=4)
    rounds = [cut(waiting.take(0), bulk, other, single, full) for _ in range(7)]
    assert rounds == [
        [(2, 0, 1), (0, 0, 4)],  # the single row need not wait for the rest of the bulk
        [(1, 0, 4)],
        [(3, 0, 8)],
        [(0, 4, 8)],
        [(1, 4, 8)],
        [(0, 8, 10), (1, 8, 9)],
        [],
    ]
    assert waiting.rows == 0


def test_a_bulk_request_is_not_starved_by_a_stream_of_small_ones() -> None:
    """Small requests that fill every batch cannot keep a bulk request's turn from coming."""
    bulk = work(16)
    waiting = line(work(7), bulk)
    taken = 0
    for _ in range(22):
        taken += sum(s.stop - s.start for s in waiting.take(0).slices if s.progress.work is bulk)
        waiting.put(work(7), float)
    assert taken == 16


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    """A put beyond the capacity raises at once and changes nothing."""
    waiting = line(work(9), capacity=10)
    with pytest.raises(QueueFull, match="9 of 10 rows wait, no room for 2 more") as refused:
        waiting.put(work(2), lambda rows: rows / 32)
    assert refused.value.retry_after_s == 9 / 32
    assert waiting.rows == 9


def test_whoever_has_gone_or_expired_is_dropped_before_the_batch_is_formed() -> None:
    """Cancelled and expired requests take no rows of a batch, and are handed back with the reason."""
    gone, late, good = work(2), work(2, deadline=5.0), work(2)
    assert isinstance(gone.reply, FakeReply)
    gone.reply.gone = True
    waiting = line(gone, late, good)
    batch = waiting.take(5.0)
    assert cut(batch, gone, late, good) == [(2, 0, 2)]
    assert [(w, type(reason)) for w, reason in batch.dropped] == [(gone, CallerGone), (late, DeadlineExpired)]
    assert waiting.rows == 0


def test_a_batch_holds_one_shape_and_the_others_keep_their_place() -> None:
    """Requests whose rows have other axes wait for a batch of their own kind, in their order."""
    a, b, c, d = (work(1, shapes=((n,),)) for n in (2, 3, 2, 3))
    waiting = line(a, b, c, d)
    assert cut(waiting.take(0), a, b, c, d) == [(0, 0, 1), (2, 0, 1)]
    assert cut(waiting.take(0), a, b, c, d) == [(1, 0, 1), (3, 0, 1)]


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=30), batch=st.integers(1, 16))
def test_every_row_is_taken_exactly_once_and_in_order(sizes: list[int], batch: int) -> None:
    """Whatever the sizes, the slices of each request cover its rows once, ascending, in batches within the limit."""
    works = [work(rows) for rows in sizes]
    waiting = line(*works, capacity=sum(sizes), batch=batch)
    reached = [0] * len(works)
    while waiting.due() is not None:
        taken = waiting.take(0)
        assert 0 < taken.rows <= batch
        for index, start, stop in cut(taken, *works):
            assert start == reached[index] < stop
            reached[index] = stop
    assert reached == sizes
    assert waiting.rows == 0


@given(
    arrivals=st.lists(st.lists(st.integers(1, 8), max_size=4), min_size=1, max_size=80),
    bulk=st.lists(st.integers(1, 16), min_size=1, max_size=4),
)
def test_an_interactive_request_is_overtaken_by_bulk_once_at_most_while_it_waits(
    arrivals: list[list[int]], bulk: list[int]
) -> None:
    """Bulk gets what interactive requests leave; room that they could have used, once in a whole line's length."""
    waiting = line(*(work(rows, bulk=True) for rows in bulk), capacity=64)
    interactive: list[Work] = []
    overtaken: dict[int, int] = {}
    for sizes in [*arrivals, *[[]] * 200]:
        for rows in sizes:
            if sum(each.plan.rows for each in interactive) + rows <= 64:  # a full line of eight batches
                interactive.append(work(rows))
                waiting.put(interactive[-1], float)
        alone = line(*interactive, capacity=200).take(0).rows if interactive else 0
        batch = waiting.take(0)
        whole = [each for each in batch.whole if not each.request.header.bulk]
        assert [*map(id, whole)] == [*map(id, interactive[: len(whole)])], "interactive requests keep their order"
        left = interactive[len(whole) :]
        if sum(each.plan.rows for each in whole) < alone:
            for each in left:
                overtaken[id(each)] = overtaken.get(id(each), 0) + 1
        interactive[:] = left
    assert max(overtaken.values(), default=0) <= 1
    assert not waiting, "everyone is answered in the end"


def test_bulk_is_not_starved_by_interactive_requests_that_fill_every_batch() -> None:
    """In as many batches as the longest line has, bulk gets the rows of one turn."""
    bulk = work(16, bulk=True)
    waiting = line(bulk, *(work(8) for _ in range(5)), capacity=40, batch=8)
    taken = []
    for _ in range(60):
        batch = waiting.take(0)
        taken.append(sum(part.stop - part.start for part in batch.slices if part.progress.work is bulk))
        if waiting.ahead(work(1)) < 40:
            waiting.put(work(min(8, 40 - waiting.ahead(work(1)))), float)
    assert sum(taken) == 16
    assert max(taken) == 2, "a quarter of a batch"
    turns = [place for place, rows in enumerate(taken) if rows]
    assert all(later - earlier <= 6 for earlier, later in pairwise(turns))


def test_bulk_takes_what_interactive_requests_leave_and_nobodys_place_in_the_line() -> None:
    """A batch is filled up with bulk, to a quarter of it; a line full of bulk refuses bulk alone."""
    bulk, small = work(10, bulk=True), work(5)
    waiting = line(bulk, small, capacity=10, batch=8)
    with pytest.raises(QueueFull, match="10 of 10 bulk rows wait, no room for 1 more"):
        waiting.put(work(1, bulk=True), float)
    assert cut(waiting.take(0), bulk, small) == [(1, 0, 5), (0, 0, 2)]
    assert (waiting.rows, waiting.bulk_rows) == (8, 8)
    while waiting:
        assert waiting.take(0).rows == 2


def test_bulk_with_other_shapes_than_everybodys_has_its_turn_too() -> None:
    """It cannot share a batch with interactive requests, and gets one of its own."""
    bulk = work(1, bulk=True, shapes=((3,),))
    waiting = line(bulk, capacity=16, batch=8)
    computed = []
    for _ in range(12):
        waiting.put(work(8), float)
        batch = waiting.take(0)
        computed += [each is bulk for each in batch.whole]
        if any(each is bulk for each in batch.whole):
            assert batch.rows == 1
            break
    assert any(computed)


def test_a_long_line_is_not_looked_through_for_one_batch() -> None:
    """What cannot join is passed over, but only so many: those behind have their turn in a later batch."""
    others = [work(1, shapes=((3,),)) for _ in range(MOST_PASSED)]
    waiting = line(work(1), *others, work(1), capacity=10_000)
    assert waiting.take(0.0).rows == 1
    assert waiting.take(0.0).rows == 8


def test_bulk_that_finds_no_room_ends_the_look() -> None:
    """Its whole lane is bulk: nobody further back could have a place either, and the order stays."""
    bulk = [work(2, bulk=True) for _ in range(50)]
    waiting = line(*bulk, batch=8, bulk=2)
    taken = [waiting.take(0.0).whole for _ in range(3)]
    assert [each for batch in taken for each in batch] == bulk[:3]


def test_a_turn_is_no_longer_than_it_must_be_while_small_requests_come() -> None:
    """Beside small requests, bulk and larger requests get the rows that a turn needs; alone, a quarter of a batch."""
    large, bulk, small = work(20), work(4, bulk=True), work(1, arrived=1.0)
    waiting = BatchQueue(capacity_rows=1000, max_batch_rows=16, turn=lambda _kind, most: min(most, 2))
    waiting.put(large, float)
    assert cut(waiting.take(0.5), large) == [(0, 0, 4)]
    waiting.put(small, float)
    assert cut(waiting.take(1.0), large, small) == [(1, 0, 1), (0, 4, 6)]
    assert cut(waiting.take(1.0 + BESIDE_S / 2), large) == [(0, 6, 8)]
    waiting.put(bulk, float)
    assert [cut(waiting.take(1.0 + BESIDE_S), large, bulk) for _ in range(4)] == [
        [(0, 8, 12)], [(0, 12, 16)], [(0, 16, 20)], [(1, 0, 4)]
    ]  # fmt: skip
