"""Calls that are collected."""

import asyncio
from math import inf

from horngate_server.core.rpc import Call, PendingReply
from horngate_server.transports.call_collector import CallCollector


def test_calls_that_are_held_back_are_handed_over_together_once_no_further_ones_come() -> None:
    """A drain waits until all callers wait for an answer; none of their calls is lost."""

    async def run() -> None:
        batches: list[list[Call]] = []
        collector = CallCollector(lambda calls: batches.append(list(calls)))
        call = Call("/s/m", b"", inf, PendingReply())
        with collector.holding():
            collector.take(call)
            await collector.silence(0.001, 10.0)
            collector.take(call)
            assert not batches
        assert batches == [[call, call]]
        collector.take(call)
        await asyncio.sleep(0)
        assert batches[1:] == [[call]]

    asyncio.run(run())
