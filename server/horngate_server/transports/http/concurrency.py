"""What the HTTP port lets be done at once: requests that compute, and pages that take long to make.

Probes need neither: whatever fills this, ``/livez`` and ``/readyz`` are answered beside it.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

JSON = "application/json"


async def respond(send: Send, status: int, content_type: str, body: bytes, *more: tuple[bytes, bytes]) -> None:
    """Send a whole answer.

    Args:
        send: ASGI's.
        status: HTTP's.
        content_type: the body's.
        body: what is said.
        more: further headers.
    """
    headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode()), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Room:
    """An ASGI app around another one, which gets a bounded number of requests at once.

    One more takes the place of the one whose body has been on its way for longest: who never finishes keeps nobody
    out. Where all bodies have come, it is refused.

    Args:
        app: what answers.
        places: how many requests it may have.
    """

    def __init__(self, app: App, places: int) -> None:
        self._app = app
        self._places = places
        self._taken = 0
        self._unfinished: dict[asyncio.Task[Any], None] = {}
        """Requests whose body has not come whole, the oldest first."""
        self._evicted: set[asyncio.Task[Any]] = set()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Let the app answer, or refuse (ASGI)."""
        if self._taken >= self._places:
            oldest = next(iter(self._unfinished), None)
            if oldest is None:
                await _refuse(
                    send, f"the port is busy: {self._taken} requests at once; expected at most {self._places}"
                )
                return
            del self._unfinished[oldest]
            self._evicted.add(oldest)
            oldest.cancel()
        task = asyncio.current_task()
        assert task
        self._taken += 1
        self._unfinished[task] = None

        async def receive_noting_the_end() -> Message:
            message = await receive()
            if not message.get("more_body"):
                self._unfinished.pop(task, None)
            return message

        try:
            await self._app(scope, receive_noting_the_end, send)
        except asyncio.CancelledError:
            if task not in self._evicted or task.uncancel():
                with suppress(RuntimeError):  # a part of its answer has left
                    await _refuse(send, "the server stops")
                raise
            await _refuse(send, "the port is busy: the body took longer than others, and its place was needed")
        finally:
            self._taken -= 1
            self._unfinished.pop(task, None)
            self._evicted.discard(task)


class Page:
    """Text that a thread makes, once for all who ask for it meanwhile: the loop goes on answering probes.

    Args:
        make: makes it; may block.
    """

    def __init__(self, make: Callable[[], bytes]) -> None:
        self._make = make
        self._making: asyncio.Future[bytes] | None = None

    async def __call__(self) -> bytes:
        """Return it."""
        if self._making is None or self._making.done():
            self._making = asyncio.get_running_loop().run_in_executor(None, self._make)
        return await asyncio.shield(self._making)


# --- private ------------------------------------------------------------------------------------------


async def _refuse(send: Send, why: str) -> None:
    body = json.dumps({"error": f"{why}; try again"}).encode()
    await respond(send, 503, JSON, body, (b"retry-after", b"1"), (b"connection", b"close"))
