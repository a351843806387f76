"""Everything that is not gRPC, as one ASGI app that uvicorn serves: probes, metrics, the console, REST."""

import logging
import socket
import threading
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import uvicorn

from horngate_server.core import addresses
from horngate_server.telemetry.metrics import CONTENT_TYPE
from horngate_server.transports.http.concurrency import JSON, App, Message, Page, Receive, Room, Send, respond
from horngate_server.transports.http.connection import Connection
from horngate_server.transports.http.console_files import ConsoleFile, headers

log = logging.getLogger(__name__)

TEXT = "text/plain; charset=utf-8"
WORKING = 192
"""Requests for models, and files of models, at once. The other connections are for probes and scrapers."""
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

        class RefusingConnection(Connection):
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
            http=RefusingConnection,
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
