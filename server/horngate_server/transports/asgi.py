"""gRPC in ASGI's events: how responses begin and end, and streams."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

from horngate_server.errors import MessageTooLarge, RequestError
from horngate_server.status import status_of
from horngate_server.transports import Status, Stream, framing

Event = dict[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

HEADERS: framing.Headers = [(b"content-type", b"application/grpc"), (b"grpc-accept-encoding", framing.ENCODINGS)]
START = {"type": "http.response.start", "status": 200, "headers": HEADERS, "trailers": True}
OK = {"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")]}

ASK_EVERY_S = 1.0
"""How often an idle stream's caller is asked whether it is still there: pyvoy has no event for that."""


class Disconnected(Exception):
    """The caller went before its request was whole."""


def send_status(send: Send, status: Status) -> None:
    """End a call that has no answer: headers alone."""
    send({"type": "http.response.start", "status": 200, "headers": [*HEADERS, *framing.trailers(status)]})
    send({"type": "http.response.body"})


def send_unsupported(send: Send) -> None:
    """Answer what is not gRPC at all."""
    send({"type": "http.response.start", "status": 415, "headers": [(b"accept", b"application/grpc")]})
    send({"type": "http.response.body", "body": b"expected gRPC: content-type application/grpc\n"})


async def stream(method: Stream, receive: Receive, send: Send, max_message_bytes: int) -> None:
    """Run a streaming method until it ends, fails, or its caller goes."""
    with suppress(OSError):  # the caller has gone
        await _stream(method, receive, send, max_message_bytes)


# --- private ------------------------------------------------------------------------------------------


async def _stream(method: Stream, receive: Receive, send: Send, max_message_bytes: int) -> None:
    inbox = _Inbox(receive, max_message_bytes)
    task = asyncio.current_task()
    assert task
    reader = asyncio.get_running_loop().create_task(inbox.fill(on_disconnect=task.cancel))
    end: framing.Headers = [(b"grpc-status", b"0")]
    try:
        await send(START)
        async for message in method(inbox.messages()):
            await send({"type": "http.response.body", "body": framing.frame(message), "more_body": True})
    except RequestError as error:
        end = framing.trailers(status_of(error))
    finally:
        reader.cancel()
    await send({"type": "http.response.body"})
    await send({"type": "http.response.trailers", "headers": end})


class _Inbox:
    """The messages of a stream, as they come."""

    def __init__(self, receive: Receive, max_message_bytes: int) -> None:
        self._receive = receive
        self._max_message_bytes = max_message_bytes
        self._messages: asyncio.Queue[bytes | RequestError | None] = asyncio.Queue()

    async def messages(self) -> AsyncIterator[bytes]:
        """Yield them."""
        while (message := await self._messages.get()) is not None:
            if isinstance(message, RequestError):
                raise message
            yield message

    async def fill(self, on_disconnect: Callable[[], object]) -> None:
        """Receive until the caller has sent everything, then watch whether it is still there."""
        pending = b""
        while True:
            event = await self._receive()
            if event["type"] == "http.disconnect":
                break
            try:
                pending = self._cut(pending + event.get("body", b""))
            except RequestError as error:
                self._messages.put_nowait(error)
                return
            if not event.get("more_body"):
                self._messages.put_nowait(None)
                while (await self._receive())["type"] != "http.disconnect":  # noqa: ASYNC110 - there is no event
                    await asyncio.sleep(ASK_EVERY_S)
                break
        on_disconnect()

    def _cut(self, pending: bytes) -> bytes:
        """Take whole messages off the front; return what is left."""
        while len(pending) >= framing.PREFIX_BYTES:
            length = framing.length(pending)
            if length > self._max_message_bytes:
                raise MessageTooLarge(
                    f"a message of {length} bytes; expected at most {self._max_message_bytes} (--max-message-bytes)"
                )
            end = framing.PREFIX_BYTES + length
            if len(pending) < end:
                break
            self._messages.put_nowait(bytes(framing.unframe(pending[:end])[0]))
            pending = pending[end:]
        return pending
