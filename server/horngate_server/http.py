"""Everything that is not gRPC: /metrics, /models, /livez, /readyz and /v2, as one ASGI app, and uvicorn to serve it."""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from functools import cache
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from horngate_server.errors import SettingsError
from horngate_server.metrics import CONTENT_TYPE

_Message = MutableMapping[str, Any]
App = Callable[[_Message, Callable[[], Awaitable[_Message]], Callable[[_Message], Awaitable[None]]], Awaitable[None]]

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
CONNECTIONS = 256
"""At once. For a further one, the one that has been silent for longest is closed."""
SPEAK_S = 10.0
"""How long a connection may be silent, and how long it may take to say what it wants."""
REQUEST_S = 600.0
"""How long a request may take from there until its answer has been read."""
ROUTES = ("/metrics", "/models", "/livez", "/readyz", "/v2")


def app(
    ready: Callable[[], bool], exposition: Callable[[], bytes], models: Callable[[], bytes], rest: Callable[[], App]
) -> App:
    """Return the ASGI app.

    ``/models`` has every version with its state, its reason and its load report, as JSON.
    ``/livez`` is 200 while the process can answer; ``/readyz`` is 200 while traffic is welcome and 503 otherwise.

    Args:
        ready: whether traffic is welcome.
        exposition: makes the text of ``/metrics``.
        models: makes the JSON of ``/models``.
        rest: makes the app for what is under ``/v2``, when it is asked for the first time.
    """
    rest = cache(rest)

    def respond(method: str, path: str) -> tuple[int, str, bytes]:
        if path not in ROUTES:
            return 404, TEXT, f"no {path}; expected one of {', '.join(ROUTES)}\n".encode()
        if method not in {"GET", "HEAD"}:
            return 405, TEXT, f"{method} {path}; expected GET\n".encode()
        if path == "/metrics":
            return 200, CONTENT_TYPE, exposition()
        if path == "/models":
            return 200, JSON, models()
        if path == "/livez" or ready():
            return 200, TEXT, b"ok\n"
        return 503, TEXT, b"not ready: no model is warm, or the server is draining\n"

    async def serve(
        scope: _Message,
        receive: Callable[[], Awaitable[_Message]],
        send: Callable[[_Message], Awaitable[None]],
    ) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        if scope["path"].split("/")[1] == "v2":
            await rest()(scope, receive, send)
            return
        status, content_type, body = respond(scope["method"], scope["path"])
        headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    return serve


class HttpServer:
    """uvicorn on a thread of its own.

    Args:
        app: what to serve.
        host: the address to listen on.
        port: 0 picks a free one.
        path: a Unix socket to listen on instead.
    """

    def __init__(self, app: App, *, host: str, port: int, path: Path | None = None) -> None:
        self._address = (host, port)
        self._path = path
        config = uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            loop="asyncio",
            http=_Connection,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="http")

    def start(self) -> int:
        """Listen, and return the port.

        Raises:
            SettingsError: the address cannot be listened on.
        """
        host, port = self._address
        if self._path is not None:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.bind(str(self._path))
            self._thread.start()
            return 0
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            self._socket = socket.create_server(self._address, family=family)
        except OSError as error:
            raise SettingsError(f"--host, --http-port: cannot listen on {host}:{port}: {error.strerror}") from error
        # asyncio does so only for sockets that say that they are TCP's: 40 ms an answer, for Nagle and delayed ACK.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._thread.start()
        bound: int = self._socket.getsockname()[1]
        return bound

    def stop(self) -> None:
        """Close the port and end the thread."""
        if self._thread.is_alive():
            self._server.should_exit = True
            self._thread.join()

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])


# --- private ------------------------------------------------------------------------------------------


class _Connection(H11Protocol):
    """Bounded in number and time: callers that say nothing, or do not listen, take nothing from the others."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        self._allow(SPEAK_S)
        if len(self.connections) > CONNECTIONS:
            silent = [each for each in self.connections if isinstance(each, _Connection) and each.silent]
            longest = min(silent, key=lambda each: each.ends)  # itself at least
            self.connections.discard(longest)  # not in the loop's next turn, when it is lost: many come in one
            longest.transport.abort()

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:  # a request's head has come
            self._allow(REQUEST_S)

    def on_response_complete(self) -> None:
        self._allow(SPEAK_S)
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    @property
    def silent(self) -> bool:
        """Whether it has not said yet what it wants."""
        return self.cycle is None or self.cycle.response_complete  # type: ignore[redundant-expr]  # it begins as None

    @property
    def ends(self) -> float:
        """When its time is over, on the loop's clock."""
        assert self._timer
        return self._timer.when()

    def _allow(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(seconds, self.transport.abort)
