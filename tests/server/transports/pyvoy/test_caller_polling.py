"""When callers that wait are polled, on a loop whose time moves by itself to the next thing that is due."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from horngate_server.transports.access.byte_budget import ByteBudget
from horngate_server.transports.pyvoy.caller_polling import POLL_AFTER_S, TOGETHER_S, CallerPolling
from horngate_server.transports.pyvoy.reply import Reply
from support.in_process import Clock


class Skipping(selectors.DefaultSelector):
    """Moves a clock on instead of waiting."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._clock.now += timeout or 0.0
        return super().select(0)


def run(body: Callable[[Clock], Coroutine[Any, Any, None]]) -> None:
    """Run a test on such a loop."""
    clock = Clock()

    def new_loop() -> asyncio.AbstractEventLoop:
        loop = asyncio.SelectorEventLoop(Skipping(clock))
        loop.time = clock  # type: ignore[method-assign]
        return loop

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(body(clock))


class Caller:
    """One that waits; it says when it was polled."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._came = clock()
        self.polled: list[float] = []
        self.left = False
        self.reply = Reply(self.receive, self.send, ByteBudget(1))

    async def receive(self) -> dict[str, Any]:
        self.polled.append(self._clock() - self._came)
        return {"type": "http.disconnect" if self.left else "http.request"}

    async def send(self, _event: dict[str, Any]) -> None:
        raise AssertionError

    def waits(self, *expected: int) -> bool:
        """Whether it was polled after so many times the first wait."""
        return self.polled == pytest.approx([POLL_AFTER_S * times for times in expected])


def watched(polling: CallerPolling, clock: Clock, count: int) -> Sequence[Caller]:
    """Callers that come together."""
    callers = [Caller(clock) for _ in range(count)]
    polling.watch([caller.reply for caller in callers])
    return callers


def test_who_waits_is_polled_three_times_as_late_each_time() -> None:
    """Often at first, and few times in all."""

    async def body(clock: Clock) -> None:
        [caller] = watched(CallerPolling(clock), clock, 1)
        await asyncio.sleep(50 * POLL_AFTER_S)
        assert caller.waits(1, 3, 9, 27)

    run(body)


def test_who_is_answered_or_gone_is_polled_no_more() -> None:
    """Those who came with them are polled on."""

    async def body(clock: Clock) -> None:
        answered, gone, stays = watched(CallerPolling(clock), clock, 3)
        answered.reply.answered = True
        gone.left = True
        await asyncio.sleep(5 * POLL_AFTER_S)
        assert answered.waits()
        assert gone.waits(1)
        assert gone.reply.done()
        assert stays.waits(1, 3)

    run(body)


def test_who_comes_while_others_have_waited_long_is_polled_first() -> None:
    """A poll that is planned for later does not keep the new ones waiting, and still takes place."""

    async def body(clock: Clock) -> None:
        polling = CallerPolling(clock)
        [first] = watched(polling, clock, 1)
        await asyncio.sleep(5 * POLL_AFTER_S)
        [second] = watched(polling, clock, 1)
        await asyncio.sleep(5 * POLL_AFTER_S)
        assert first.waits(1, 3, 9)
        assert second.waits(1, 3)

    run(body)


def test_who_comes_a_moment_after_others_is_polled_with_them() -> None:
    """One poll is for all that came within ten milliseconds; a later one is polled in its own time."""

    async def body(clock: Clock) -> None:
        polling = CallerPolling(clock)
        [first] = watched(polling, clock, 1)
        await asyncio.sleep(TOGETHER_S / 2)
        [soon] = watched(polling, clock, 1)
        await asyncio.sleep(TOGETHER_S)
        [later] = watched(polling, clock, 1)
        await asyncio.sleep(2 * POLL_AFTER_S)
        assert first.waits(1)
        assert soon.polled == pytest.approx([POLL_AFTER_S - TOGETHER_S / 2])
        assert later.waits(1)

    run(body)


def test_who_was_answered_at_once_is_not_waited_for() -> None:
    """Nothing is planned for them: the loop has no more to do."""

    async def body(clock: Clock) -> None:
        caller = Caller(clock)
        caller.reply.answered = True
        CallerPolling(clock).watch([caller.reply])
        began = clock()
        await asyncio.sleep(0)
        assert clock() == began
        assert not asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]

    run(body)


def test_polling_begins_anew_after_nobody_waited() -> None:
    """The timer of the last ones has passed: the next ones plan their own."""

    async def body(clock: Clock) -> None:
        polling = CallerPolling(clock)
        [first] = watched(polling, clock, 1)
        first.reply.answered = True
        await asyncio.sleep(100 * POLL_AFTER_S)
        [second] = watched(polling, clock, 1)
        await asyncio.sleep(2 * POLL_AFTER_S)
        assert second.waits(1)

    run(body)
