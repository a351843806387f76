"""gRPC in ASGI's events: how responses begin and end, and streams."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

from horngate_server.core.errors import ModelFailed, RequestError
from horngate_server.core.rpc import CallOptions, Status, Stream
from horngate_server.protocols.grpc_status import status_of
from horngate_server.transports.access.byte_budget import ByteBudget
from horngate_server.transports.open_streams import Streams
from horngate_server.transports.pyvoy import grpc_framing
from horngate_server.transports.stream_bytes import StreamBytes

log = logging.getLogger(__name__)

Event = dict[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

HEADERS: grpc_framing.Headers = [
    (b"content-type", b"application/grpc"),
    (b"grpc-accept-encoding", grpc_framing.ENCODINGS),
]
START = {"type": "http.response.start", "status": 200, "headers": HEADERS, "trailers": True}
OK = {"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")]}

ASK_EVERY_S = 1.0
"""How often an idle stream's caller is asked whether it is still there: pyvoy has no event for that."""


class Disconnected(Exception):
    """The caller went before its request was whole."""


class NotGrpc(Exception):
    """A request that is no gRPC call at all."""


def send_status(send: Send, status: Status) -> None:
    """End a call that has no answer: headers alone."""
    send({"type": "http.response.start", "status": 200, "headers": [*HEADERS, *grpc_framing.trailers(status)]})
    send({"type": "http.response.body"})


def send_error(send: Send, error: Exception) -> None:
    """End a call that could not be taken in: any error at all, and its caller may have gone."""
    if isinstance(error, NotGrpc):
        _send_unsupported(send)
    elif isinstance(error, RequestError):
        send_status(send, status_of(error))
    elif not isinstance(error, Disconnected):
        log.error("a call could not be taken in", exc_info=error)
        send_status(send, status_of(_bug(error)))


async def stream(method: Stream, inbox: "Inbox", options: CallOptions, send: Send, streams: Streams) -> None:
    """Run a streaming method until it ends, fails, or its caller goes."""
    try:
        with suppress(OSError):  # the caller has gone
            await _stream(method, inbox, options, send, streams)
    finally:
        inbox.close()


class Inbox:
    """The messages of a stream, as they come; no further ones are received before these are taken.

    A message counts as being in memory from its first bytes, by the length that they announce, until as many answers
    were given, or the stream has ended.

    Args:
        receive: ASGI's.
        encoding: the value of ``grpc-encoding``; empty where there was none.
        max_message_bytes: what a message may have, as it came or expanded.
        memory: where its bytes are counted.
    """

    def __init__(self, receive: Receive, encoding: bytes, max_message_bytes: int, memory: ByteBudget) -> None:
        self._receive = receive
        self._encoding = encoding
        self._max_message_bytes = max_message_bytes
        self._memory = memory
        self._counted = StreamBytes(memory)
        self._arriving: int | None = None
        self._messages: asyncio.Queue[bytes | RequestError | None] = asyncio.Queue(1)
        self._pending = bytearray()

    async def messages(self) -> AsyncIterator[bytes]:
        """Yield them."""
        while (message := await self._messages.get()) is not None:
            if isinstance(message, RequestError):
                raise message
            yield message

    def answered(self) -> None:
        """Note that an answer was given."""
        self._counted.answered()

    def close(self) -> None:
        """Count nothing any more."""
        self._arrived()
        self._counted.close()

    async def fill(self, on_disconnect: Callable[[], object]) -> None:
        """Receive until the caller has sent everything, then watch whether it is still there."""
        while True:
            event = await self._next()
            if event["type"] == "http.disconnect":
                break
            self._pending += event.get("body", b"")
            try:
                while (message := self._cut()) is not None:
                    await self._messages.put(message)
            except RequestError as error:
                await self._messages.put(error)
                return
            if not event.get("more_body"):
                await self._messages.put(None)
                while (await self._next())["type"] != "http.disconnect":  # noqa: ASYNC110 - there is no event
                    await asyncio.sleep(ASK_EVERY_S)
                break
        on_disconnect()

    # --- private --------------------------------------------------------------------------------------

    async def _next(self) -> Event:
        """Receive; pyvoy sets the result of what it promised even where nobody waits for it any more."""
        return await asyncio.shield(asyncio.ensure_future(self._receive()))

    def _arrived(self) -> None:
        """Count no message as arriving any more."""
        if self._arriving is not None:
            self._memory.give(self._arriving)
            self._arriving = None

    def _cut(self) -> bytes | None:
        """Take a whole message off the front; None while there is none."""
        if len(self._pending) < grpc_framing.PREFIX_BYTES:
            return None
        length = grpc_framing.length(self._pending)
        if self._arriving is None:
            if length > self._max_message_bytes:
                raise grpc_framing.too_large(length, self._max_message_bytes)
            self._memory.take(length)
            self._arriving = length
        end = grpc_framing.PREFIX_BYTES + length
        if len(self._pending) < end:
            return None
        message, compressed = grpc_framing.unframe(bytes(self._pending[:end]), self._max_message_bytes)
        del self._pending[:end]
        if compressed:
            message = grpc_framing.expand(message, self._encoding, self._max_message_bytes)
        self._arrived()
        self._counted.take(len(message))
        return bytes(message)


# --- private ------------------------------------------------------------------------------------------


def _send_unsupported(send: Send) -> None:
    send({"type": "http.response.start", "status": 415, "headers": [(b"accept", b"application/grpc")]})
    send({"type": "http.response.body", "body": b"expected gRPC: content-type application/grpc\n"})


def _bug(error: Exception) -> ModelFailed:
    return ModelFailed(f"{type(error).__name__}: {error}. This is a bug.")


async def _stream(method: Stream, inbox: Inbox, options: CallOptions, send: Send, streams: Streams) -> None:
    task = asyncio.current_task()
    assert task
    reader = asyncio.get_running_loop().create_task(inbox.fill(on_disconnect=task.cancel))
    end: grpc_framing.Headers = [(b"grpc-status", b"0")]
    try:
        await send(START)
        with streams.one():
            async for message in method(inbox.messages(), options):
                inbox.answered()
                await send({"type": "http.response.body", "body": grpc_framing.frame(message), "more_body": True})
    except RequestError as error:
        end = grpc_framing.trailers(status_of(error))
    except OSError:  # the caller has gone
        raise
    except Exception as error:
        log.exception("a stream failed")
        end = grpc_framing.trailers(status_of(_bug(error)))
    finally:
        reader.cancel()
    await send({"type": "http.response.body"})
    await send({"type": "http.response.trailers", "headers": end})
