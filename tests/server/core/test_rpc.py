"""Replies that somebody waits for."""

import asyncio

from horngate_server.core.rpc import PendingReply, Status


def test_a_later_that_nobody_waits_for_is_done_and_takes_no_answer() -> None:
    """Cancelled, or its loop gone: giving an answer is no error."""

    async def run() -> tuple[PendingReply, bytes | Status]:
        cancelled, waited = PendingReply(), PendingReply()
        cancelled.cancel()
        assert cancelled.done()
        cancelled.give(b"late")
        waited.give(b"in time")
        return cancelled, await waited

    later, answer = asyncio.run(run())
    assert answer == b"in time"
    later.give(b"after the end of the loop")
