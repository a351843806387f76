"""Handlers of raw bytes for gRPC's own server.

gRPC keeps the exception that ends a call until it is collected, and with it the frames that it has passed and all that
these refer to. So no frame refers to a message, or to an error that was raised over one, when a call is ended.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from typing import Any, TypeAlias

import grpc

from horngate_server.core.errors import RequestError
from horngate_server.core.rpc import Call, CallOptions, Status, Stream
from horngate_server.protocols.grpc_status import status_of
from horngate_server.transports.access.byte_budget import ByteBudget
from horngate_server.transports.call_collector import CallCollector
from horngate_server.transports.grpcio.call_context import Context, Enter, abort
from horngate_server.transports.open_streams import Streams
from horngate_server.transports.stream_bytes import StreamBytes

Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"
Handle = Callable[[AsyncIterator[bytes], Context], AsyncIterator[bytes]]
"""Takes the messages of a call, and yields the answers."""
Receive = Callable[[AsyncIterator[bytes]], Awaitable[bytes]]
"""Returns the first message of a call."""
Compute = Callable[[bytes, ByteBudget, CallOptions, Context], Awaitable[bytes]]
"""`answer`, for one method."""


def taken_in(enter: Enter, compute: Compute) -> Handler:
    """Return the handler of a unary method whose messages gRPC takes in by itself, which is faster."""

    async def handle(message: bytes, context: Context) -> bytes:
        try:
            memory, options = enter(context)
        except RequestError as error:
            refused = status_of(error)
        else:
            answered = compute(message, memory, options, context)
            del message
            return await answered
        del message
        await abort(context, refused)
        raise AssertionError  # it was aborted

    return grpc.unary_unary_rpc_method_handler(handle)


def asked_first(enter: Enter, receive: Receive, compute: Compute) -> Handler:
    """Return the handler of a unary method that asks the gate, and only then takes the message in.

    Of a call that is refused, gRPC holds no more than HTTP/2's window.
    """

    async def handle(messages: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        refused = None
        try:
            memory, options = enter(context)
            answered = compute(await receive(messages), memory, options, context)
        except RequestError as error:
            refused = status_of(error)
        if refused is not None:
            await abort(context, refused)
        yield await answered

    return _stream_stream(handle)


async def answer(  # noqa: PLR0917 - half of it is bound once a method
    method: str, collector: CallCollector, message: bytes, memory: ByteBudget, options: CallOptions, context: Context
) -> bytes:
    """Answer one message: a future is its reply; gRPC cancels it when the caller goes."""
    size = len(message)
    future: asyncio.Future[bytes | Status] = asyncio.get_running_loop().create_future()
    refused = None
    try:
        memory.take(size)
    except RequestError as error:
        refused = status_of(error)
    if refused is not None:
        del message
        await abort(context, refused)
    try:
        collector.take(Call(method, message, options.deadline, future, options.bulk, options.origin()))
        del message
        given = await future
    finally:
        memory.give(size)
    if isinstance(given, Status):
        await abort(context, given)
    assert isinstance(given, bytes)
    return given


def streaming(stream: Stream, enter: Enter, streams: Streams, receive: Receive | None = None) -> Handler:
    """Return the handler of a streaming method; domain errors become statuses.

    Args:
        stream: the method.
        enter: asks the gate.
        streams: the calls under way.
        receive: where given, the method has the first message alone, and no further one is taken in.
    """

    async def handle(messages: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        refused = None
        try:
            memory, options = enter(context)
        except RequestError as error:
            refused = status_of(error)
        if refused is not None:
            await abort(context, refused)
        try:
            with closing(StreamBytes(memory)) as counted, streams.one():
                source = messages if receive is None else _only_first(receive, messages)
                async for message in stream(_counted(source, counted), options):
                    counted.answered()
                    yield message
        except RequestError as error:
            refused = status_of(error)
        if refused is not None:
            await abort(context, refused)

    return _stream_stream(handle)


def refusing(error: RequestError) -> Handler:
    """Return the handler that refuses a call before its message comes."""

    async def handle(_messages: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        await abort(context, status_of(error))
        yield b""

    return grpc.stream_stream_rpc_method_handler(handle)


# --- private ------------------------------------------------------------------------------------------


def _stream_stream(handle: Handle) -> Handler:
    """Let a handler read messages through an iterator that does not keep the last one, as gRPC's own does."""

    async def received(context: Context) -> AsyncIterator[bytes]:
        while True:
            message: list[Any] = [await context.read()]
            if message[0] is grpc.aio.EOF:
                return
            yield message.pop()

    async def handler(_messages: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        async for answer in handle(received(context), context):
            yield answer

    return grpc.stream_stream_rpc_method_handler(handler)


async def _counted(messages: AsyncIterator[bytes], counted: StreamBytes) -> AsyncIterator[bytes]:
    async for message in messages:
        counted.take(len(message))
        yield message


async def _only_first(receive: Receive, messages: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield await receive(messages)
