"""Ends calls at their deadlines where Envoy does not: for gRPC-Web it would answer 504 or 408, or cut an answer off."""

import asyncio
import threading
import weakref
from collections.abc import Awaitable, Generator
from contextlib import suppress
from typing import Any

from horngate_server.core.errors import DeadlineExpired, InvalidRequest
from horngate_server.protocols.grpc_status import status_of
from horngate_server.transports.pyvoy import asgi, grpc_framing
from horngate_server.transports.pyvoy.asgi import Event, Receive, Send
from horngate_server.transports.pyvoy.transport import FastTransport

LOOK_EVERY_S = 60.0
"""So often it is seen whether a call is still there: what its caller gave up is not kept until a deadline in years."""


class Deadlines:
    """The ASGI app of a transport, with deadlines that are its own.

    A call ends with DEADLINE_EXCEEDED, whatever is waited for: its body, its answer, or a caller that does not read.
    An answer that has begun to leave in one piece leaves whole.

    Args:
        app: takes the calls.
    """

    _asgi_single_callable = True  # as that of `FastTransport`

    def __init__(self, app: FastTransport) -> None:
        self._app = app

    def __call__(self, scope: Event, receive: Receive, send: Send) -> Any:
        """Take one call (ASGI)."""
        timeout = dict(scope.get("headers", ())).get(b"grpc-timeout")
        if timeout is not None:
            with suppress(InvalidRequest):  # the app refuses it
                send = _Deadline(send, grpc_framing.timeout(timeout)).send
        return self._app(scope, receive, send)


# --- private ------------------------------------------------------------------------------------------


class _Deadline:
    """Sends what a call is answered, or that its deadline has passed.

    Answers of one piece come from any thread; all others, and the deadline, from the loop's.
    """

    __slots__ = ("__weakref__", "_ends", "_loop", "_over", "_pieces", "_send", "_start", "_timer", "_trailers", "_turn")

    def __init__(self, send: Send, seconds: float) -> None:
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._ends = self._loop.time() + seconds
        self._start: Event | None = None
        self._turn = threading.Lock()  # taken by the first to send: the answer, or the deadline
        self._trailers = False
        self._pieces = False
        self._over = False
        self._wait()

    def send(self, event: Event) -> Awaitable[None]:
        """Send an event (ASGI's); a response begins with the first part of its body.

        Raises (where it is awaited):
            OSError: the deadline has passed.
        """
        if self._over:
            return _LATE
        if event["type"] == "http.response.start":
            self._start = event
            return _SENT
        start, self._start = self._start, None
        if start is not None:
            if not self._turn.acquire(blocking=False):
                self._over = True
                return _LATE
            self._trailers = start.get("trailers", False)
            self._send(start)
        self._pieces = event.get("more_body", False)
        if not self._pieces and (event["type"] == "http.response.trailers" or not self._trailers):
            self._over = True
            self._loop.call_soon_threadsafe(self._timer.cancel)
        return self._send(event)

    def look(self) -> None:
        """End the call if it is time."""
        if self._loop.time() < self._ends:
            self._wait()
            return
        status = status_of(DeadlineExpired("the deadline has passed"))
        if self._turn.acquire(blocking=False):
            self._over = True
            asgi.send_status(self._send, status)
        elif self._pieces and not self._over:
            self._over = True
            self._send({"type": "http.response.body"})
            self._send({"type": "http.response.trailers", "headers": grpc_framing.trailers(status)})

    def _wait(self) -> None:
        left = min(max(self._ends - self._loop.time(), 0.0), LOOK_EVERY_S)
        self._timer = self._loop.call_later(left, _look, weakref.ref(self))


def _look(deadline: "weakref.ref[_Deadline]") -> None:
    if (found := deadline()) is not None:
        found.look()


class _Sent:
    """What sending returns where nothing is to be waited for."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()


class _Late:
    """What sending returns after the deadline."""

    def __await__(self) -> Generator[None, None, None]:
        raise OSError("the deadline has passed")


_SENT, _LATE = _Sent(), _Late()
