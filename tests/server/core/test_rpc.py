"""Replies that somebody waits for."""

import asyncio

from horngate_server.core.rpc import PendingReply, Status, deliver_own
from support.in_process import FakeReply


def test_a_later_that_nobody_waits_for_is_done_and_takes_no_answer() -> None:
    """Cancelled, or its loop gone: giving an answer is no error."""

    async def run() -> tuple[PendingReply, bytes | Status]:
        cancelled, waited = PendingReply(), PendingReply()
        cancelled.cancel()
        assert cancelled.done()
        assert deliver_own([(cancelled, b"late"), (waited, b"in time")]) == []
        return cancelled, await waited

    later, answer = asyncio.run(run())
    assert answer == b"in time"
    deliver_own([(later, b"after the end of the loop")])


def test_those_who_wait_get_their_answers_among_a_transports() -> None:
    """One batch may be for both: the transport's are left to it."""
    theirs = FakeReply()

    async def run() -> bytes | Status:
        ours = PendingReply()
        assert deliver_own([(theirs, b"theirs"), (ours, b"ours")]) == [(theirs, b"theirs")]
        return await ours

    assert asyncio.run(run()) == b"ours"
