"""What of a request's memory is given back, and when, as its answer leaves."""

import asyncio
from typing import Any

import pytest

from horngate_server.core.errors import QueueFull
from horngate_server.core.rpc import Answer, Status
from horngate_server.transports.access.byte_budget import ByteBudget
from horngate_server.transports.pyvoy import grpc_framing
from horngate_server.transports.pyvoy.answer_sending import PIECE_BYTES, AnswerSender
from horngate_server.transports.pyvoy.reply import Reply

REFUSED = Status(3, "INVALID_ARGUMENT", "no")


class Caller:
    """One whose request is in memory; it reads what it is sent, up to some bytes."""

    def __init__(self, memory: ByteBudget, size: int = 60, reads: float = float("inf")) -> None:
        memory.take(size)
        self.body = b""
        self.ended = asyncio.Event()
        self._reads = reads
        self.reply = Reply(self._receive, self._send, memory)
        self.reply.size = size

    async def _receive(self) -> dict[str, Any]:
        raise AssertionError

    def _send(self, event: dict[str, Any]) -> "asyncio.Future[None]":
        self.body += event.get("body", b"")
        if event["type"] == "http.response.trailers":
            self.ended.set()
        sent = asyncio.get_running_loop().create_future()
        if len(self.body) < self._reads:
            sent.set_result(None)
        else:
            sent.set_exception(OSError("the caller has gone"))
        return sent


def send(memory: ByteBudget, *answers: Answer) -> None:
    """Send a batch."""
    AnswerSender(memory).send(answers, asyncio.get_running_loop())


def held(memory: ByteBudget, limit: int, size: int) -> bool:
    """Whether just so much of the memory is taken."""
    memory.take(limit - size)
    memory.give(limit - size)
    with pytest.raises(QueueFull):
        memory.take(limit - size + 1)
    return True


def test_answers_and_statuses_give_their_requests_memory_back() -> None:
    """Where each was counted: everyone's, or one client's."""

    async def run() -> None:
        shared, own = ByteBudget(1000), ByteBudget(100)
        first, second, third = Caller(shared), Caller(shared), Caller(own)
        send(shared, (first.reply, b"yes"), (second.reply, REFUSED), (third.reply, b"mine"))
        assert held(shared, 1000, 0)
        assert held(own, 100, 0)
        assert [caller.body for caller in (first, third)] == [grpc_framing.frame(b"yes"), grpc_framing.frame(b"mine")]
        assert all(caller.reply.answered for caller in (first, second, third))

    asyncio.run(run())


@pytest.mark.parametrize("reads", [float("inf"), PIECE_BYTES], ids=["reads", "goes"])
def test_a_long_answer_counts_as_memory_until_it_has_left_or_its_caller_has(reads: float) -> None:
    """In its request's place, and beyond the limit where it must: it is in memory already."""

    async def run() -> None:
        memory = ByteBudget(100)
        caller = Caller(memory, reads=reads)
        send(memory, (caller.reply, bytes(2 * PIECE_BYTES)))
        assert held(memory, 100, 60)
        others = asyncio.all_tasks()
        await asyncio.sleep(0)
        [sending] = asyncio.all_tasks() - others
        await sending
        assert caller.ended.is_set() == (reads > PIECE_BYTES)
        assert held(memory, 100, 0)

    asyncio.run(run())
