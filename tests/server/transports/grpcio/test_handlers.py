"""How calls end that are refused, without gRPC."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest

from horngate_server.core.errors import QueueFull
from horngate_server.core.rpc import CallOptions
from horngate_server.transports.access.byte_budget import ByteBudget
from horngate_server.transports.grpcio import handlers
from horngate_server.transports.open_streams import Streams
from support.in_process import OPTIONS


class Aborted(Exception):
    """What gRPC ends a call with."""


class Context:
    """A call of one message."""

    def __init__(self) -> None:
        self._messages = [b"ask"]
        self.code: grpc.StatusCode | None = None

    async def read(self) -> Any:
        return self._messages.pop() if self._messages else grpc.aio.EOF

    async def abort(self, code: grpc.StatusCode, _message: str, _trailers: object) -> None:
        self.code = code
        raise Aborted


def _enters(_context: object) -> tuple[ByteBudget, CallOptions]:
    return ByteBudget(100), OPTIONS


def _refuses(_context: object) -> tuple[ByteBudget, CallOptions]:
    raise QueueFull("no", retry_after_s=0.1)


async def _computes(*_args: object) -> bytes:
    raise AssertionError


async def _fails(messages: AsyncIterator[bytes], _options: CallOptions) -> AsyncIterator[bytes]:
    async for message in messages:
        yield message
        raise QueueFull("no", retry_after_s=0.1)


async def _first(messages: AsyncIterator[bytes]) -> bytes:
    return await anext(messages)


async def _end(handler: Any, context: Context) -> Aborted:
    """Make a call; return the exception that ended it."""
    if handler.unary_unary:
        answered = handler.unary_unary(b"ask", context)
    else:
        answered = _all(handler.stream_stream(None, context))
    with pytest.raises(Aborted) as caught:
        await answered
    return caught.value


async def _all(answers: AsyncIterator[bytes]) -> list[bytes]:
    return [answer async for answer in answers]


@pytest.mark.parametrize(
    "make",
    [
        lambda: handlers.taken_in(_refuses, _computes),
        lambda: handlers.asked_first(_refuses, _first, _computes),
        lambda: handlers.streaming(_fails, _refuses, Streams()),
        lambda: handlers.streaming(_fails, _enters, Streams()),
    ],
    ids=["unary", "unary, asked first", "stream on entry", "stream"],
)
def test_a_refused_call_ends_with_an_exception_that_keeps_no_other(make: Callable[[], object]) -> None:
    """That exception is kept by gRPC: another one in its context would keep its frames, and with them messages."""
    context = Context()
    aborted = asyncio.run(_end(make(), context))
    assert context.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert aborted.__context__ is None
