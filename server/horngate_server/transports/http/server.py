"""Everything that is not gRPC, as one ASGI app that uvicorn serves: probes, metrics, the console, REST."""

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import uvicorn
from httptools import HttpParserError, HttpParserUpgrade
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from horngate_server.core import addresses
from horngate_server.telemetry.metrics import CONTENT_TYPE
from horngate_server.transports.http.concurrency import JSON, App, Message, Page, Receive, Room, Send, respond
from horngate_server.transports.http.console_files import ConsoleFile, headers

log = logging.getLogger(__name__)

TEXT = "text/plain; charset=utf-8"
CONNECTIONS = 256
"""At once. For a further one, the one that has been silent for longest is closed."""
WORKING = 192
"""Requests for models, and files of models, at once. The other connections are for probes and scrapers."""
SPEAK_S = 10.0
"""How long a connection may be silent, and how long it may take to say what it wants."""
BYTES_PER_S = 1024
"""How fast a body must come, and an answer be read, on average over each `SPEAK_S`."""
REQUEST_S = 600.0
"""How long a request may take from there until its answer has been read."""
HEAD_BYTES = 1 << 16
"""A request's head, where it comes in pieces; what comes at once is bounded by asyncio's own buffer, 256 KiB."""
HEADERS = 128
"""Of one request: each becomes objects of a hundred bytes and more."""
PIPELINED = 64
"""Requests that have come behind one that is not answered yet: each becomes objects of some KiB."""
STOP_S = 1
"""How long the last answers get to leave when the port closes."""
READING = frozenset(["GET", "HEAD"])
ROUTES = ("/metrics", "/models", "/livez", "/readyz", "/v1", "/v2", "/openapi")
REST = ("/v1", "/v2", "/openapi", "/openapi.json")
"""What `rest` answers, and what is below these and ``/models``."""
BELOW = tuple(f"{path}/" for path in ("/v1", "/v2", "/models"))


def app(
    ready: Callable[[], bool],
    exposition: Callable[[], bytes],
    models: Callable[[], bytes],
    rest: Callable[[], App],
    console: Callable[[], Mapping[str, ConsoleFile]] = lambda: MappingProxyType({}),
) -> App:
    """Return the ASGI app.

    ``/models`` has every version with its state, its reason and its load report, as JSON.
    ``/livez`` is 200 while the process can answer; ``/readyz`` is 200 while traffic is welcome and 503 otherwise.

    Args:
        ready: whether traffic is welcome.
        exposition: makes the text of ``/metrics``.
        models: makes the JSON of ``/models``.
        rest: makes the app for `REST` and what is `BELOW`, when it is asked for the first time.
        console: returns the console's files by path; none where there is no console.
    """
    pages = {"/metrics": (CONTENT_TYPE, Page(exposition)), "/models": (JSON, Page(models))}
    work = cache(lambda: Room(rest(), WORKING))

    async def answer(method: str, path: str) -> tuple[Any, ...]:
        if path not in ROUTES:
            return _file(console(), method, path)
        if method not in READING:
            return _not_read(method, path)
        if path in pages:
            content_type, page = pages[path]
            return 200, content_type, await page()
        if path == "/livez" or ready():
            return 200, TEXT, b"ok\n"
        return 503, TEXT, b"not ready: no model is warm, or the server is draining\n"

    async def serve(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        path = scope["path"]
        try:
            if path in REST or path.startswith(BELOW):
                await work()(scope, receive, send)
            else:
                await respond(send, *await answer(scope["method"], path))
        except Exception:
            log.exception("%s %s: unexpected failure. This is a bug.", scope["method"], path)
            raise

    return serve


def pages(console: str) -> str:
    """Say what stands behind an address's ``/``, for a banner."""
    paths = ", ".join(ROUTES)
    return f" (console), {paths}" if console == "on" else paths[1:]


class HttpServer:
    """uvicorn on a thread of its own.

    Args:
        app: what to serve.
        host: the address to listen on.
        port: 0 picks a free one.
        rest_port: another one to listen on, where the same is served; 0 picks a free one, None has none.
        path: a Unix socket to listen on instead.
        refused: takes a reason and an example of what came that is no HTTP.
    """

    def __init__(
        self,
        app: App,
        *,
        host: str,
        port: int,
        rest_port: int | None = None,
        path: Path | None = None,
        refused: Callable[[str, str], None] = lambda _reason, _example: None,
    ) -> None:
        self._host = host
        self._ports = {"--http-port": port} | ({} if rest_port is None else {"--rest-port": rest_port})
        self._path = path
        self._sockets: list[socket.socket] = []

        class Connection(_Connection):
            refuse = staticmethod(refused)

        config = uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # a caller could say that it is another: limits are by address
            loop="asyncio",
            ws="none",
            timeout_graceful_shutdown=STOP_S,
            http=Connection,
        )
        # What it says of callers' mistakes would be theirs to write; `refused` takes these, and the app logs its own.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    def start(self) -> int:
        """Listen, and return the port.

        Raises:
            SettingsError: the address cannot be listened on.
        """
        if self._path is not None:
            self._sockets = [socket.socket(socket.AF_UNIX)]
            self._sockets[0].bind(str(self._path))
            self._thread.start()
            return 0
        self._sockets = [self._listening(flag, port) for flag, port in self._ports.items()]
        self._thread.start()
        bound: int = self._sockets[0].getsockname()[1]
        return bound

    @property
    def rest_port(self) -> int | None:
        """The other port, once it listens; None where there is none."""
        return self._sockets[1].getsockname()[1] if len(self._sockets) > 1 else None

    def end(self) -> None:
        """Begin to close the port."""
        self._server.should_exit = True

    def stop(self) -> bool:
        """Close the port and end the thread; False if it does not end."""
        self.end()
        if self._thread.ident is not None:
            self._thread.join(2 * STOP_S)
        return not self._thread.is_alive()

    def _listening(self, flag: str, port: int) -> socket.socket:
        family, address = addresses.numeric(self._host)
        try:
            made = socket.create_server((address, port), family=family)
        except OSError as error:
            raise addresses.cannot_listen(self._host, port, flag, error) from error
        # asyncio does so only for sockets that say that they are TCP's: 40 ms an answer, for Nagle and delayed ACK.
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def _run(self) -> None:
        self._server.run(sockets=self._sockets)


# --- private ------------------------------------------------------------------------------------------


def _file(files: Mapping[str, ConsoleFile], method: str, path: str) -> tuple[Any, ...]:
    """Return what `respond` sends for a path that may be a file's."""
    file = files.get(path)
    if file is None:
        return 404, TEXT, f"no {path}; expected one of {', '.join(ROUTES)}\n".encode()
    if method not in READING:
        return _not_read(method, path)
    return 200, file.content_type, file.body, *headers()


def _not_read(method: str, path: str) -> tuple[int, str, bytes]:
    return 405, TEXT, f"{method} {path}; expected GET\n".encode()


class _Connection(HttpToolsProtocol):
    """Bounded in number, size and time: callers that say nothing, or do not listen, take nothing from the others."""

    refuse: Callable[[str, str], None]
    _timer: asyncio.TimerHandle | None = None
    ends = 0.0
    """When its time is over, on the loop's clock, if nothing happens. The timer may ring before, and is set anew."""
    _last = 0.0
    """When the request's time is over, on the loop's clock."""
    _head = False
    """Whether a request's head is on its way."""
    _head_bytes = 0
    """What has come of it, generously."""
    _body = False
    """Whether a request's body is on its way."""
    _received = 0
    """Bytes, since the timer began."""
    _unread = 0
    """Bytes of answers that the caller had not read when the timer began."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        self._allow(SPEAK_S)
        if len(self.connections) > CONNECTIONS:
            silent = [each for each in self.connections if isinstance(each, _Connection) and each.silent]
            longest = min(silent, key=lambda each: each.ends)  # itself at least
            self.connections.discard(longest)  # not in the loop's next turn, when it is lost: many come in one
            longest.transport.abort()

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        self._head_bytes += len(data)
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade:  # it is answered as if it had not asked for that
            pass
        except HttpParserError as error:
            self.send_400_response(str(error.__context__ or error))
        else:
            if not self._head:
                self._head_bytes = 0
                if len(data) > 2 and data.isspace() and self.silent:  # one empty line may stand between requests
                    self.send_400_response("empty lines")
            elif self._head_bytes > HEAD_BYTES:
                self.send_400_response(f"a head of more than {HEAD_BYTES} bytes")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head = True
        if len(self.pipeline) >= PIPELINED:
            raise _TooMuch(f"more than {PIPELINED} requests at once on a connection")

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if len(self.headers) > HEADERS:
            raise _TooMuch(f"more than {HEADERS} headers")

    def on_headers_complete(self) -> None:
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (not hosts and self.parser.get_http_version() != "1.0"):
            raise _TooMuch(f"{hosts} Host headers; expected one")
        self._head = False
        self._body = True
        self._last = self.loop.time() + REQUEST_S
        super().on_headers_complete()
        self._allow(SPEAK_S)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._body = False
        if not self.silent:
            self._allow(REQUEST_S)

    def send_400_response(self, msg: str) -> None:
        self._is_odd(msg)
        answering = not self.silent
        if answering:
            self.cycle.disconnected = True  # whoever waits for its body waits no more
            self.cycle.message_event.set()
        if self.pipeline or (answering and self.cycle.response_started):  # the answer would be another request's
            self.transport.abort()
        else:
            super().send_400_response("Invalid HTTP request received.")

    def on_response_complete(self) -> None:
        self._allow(SPEAK_S if self.silent or self._body else REQUEST_S)
        super().on_response_complete()
        self._unset_keepalive_if_required()  # the timer is ours

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    @property
    def silent(self) -> bool:
        """Whether it has not said yet what it wants."""
        return self.cycle is None or self.cycle.response_complete  # type: ignore[redundant-expr]  # it begins as None

    def _allow(self, seconds: float) -> None:
        """Give it so much time from now on."""
        self._received = 0
        self._unread = self.transport.get_write_buffer_size()
        self.ends = self.loop.time() + seconds
        if self._timer is None or self._timer.when() > self.ends:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_at(self.ends, self._on_time)

    def _on_time(self) -> None:
        """Give more time to a body that comes, and to an answer that is read; close the connection otherwise."""
        self._timer = None
        if self.loop.time() < self.ends:
            self._set_timer()
            return
        read = self._unread - self.transport.get_write_buffer_size()
        moved = self._received if self._body else read
        if moved < BYTES_PER_S * SPEAK_S or self.loop.time() >= self._last:
            self.transport.abort()
        else:
            self._allow(SPEAK_S)

    def _is_odd(self, what: str) -> None:
        peer = self.client[0] if self.client else "a worker's supervisor"
        self.refuse("malformed_http", f"{what.rstrip('.')} (from {peer})")


class _TooMuch(Exception):
    """A request is not taken in; the parser ends, and says that a callback failed."""
