"""The HTTP port's own doors: callers that say nothing, never finish or send too much take nothing from the others."""

import json
import os
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import grpc
import numpy as np
import pytest

from horngate_server import http, launch
from support.desk import request
from support.http2 import MODEL_INFER
from support.process import ServerProcess
from support.waiting import until

LIMITS = ["--max-message-bytes", "8MiB", "--max-request-bytes", "64MiB"]
GOOD = request({"images": np.zeros((1, 28, 28), np.uint8)}, model="mnist").SerializeToString()
INFER = "POST /v2/models/mnist/infer HTTP/1.1\r\nhost: x\r\n"


@pytest.fixture(scope="module", params=["1", "2"], ids=["one-process", "two-workers"])
def server(
    trained: Path, transport: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server with small limits, alone and with workers."""
    flags = ["--transport", transport, "--workers", request.param, *LIMITS]
    with ServerProcess(trained.parents[1], tmp_path_factory.mktemp("http"), *flags) as running:
        yield running
        assert running.stop() == 0
        assert not [line for line in running.log if " error " in line or "Traceback" in line]


def connect(server: ServerProcess, said: str = "") -> socket.socket:
    """Open a connection, and say something."""
    host, port = server.http.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    connection.sendall(said.encode())
    return connection


def answer(connection: socket.socket) -> tuple[int, dict[str, str]]:
    """Read an error's status and body."""
    with connection, connection.makefile("rb") as stream:
        status = int(stream.readline().split()[1])
        while stream.readline().strip():
            pass
        return status, json.loads(stream.read())


def test_a_thousand_silent_connections_harm_nobody(server: ServerProcess) -> None:
    """Those silent for longest are closed, few files are open, and metrics and predictions are answered meanwhile."""
    assert launch.OTHER_FILES >= 2 * http.CONNECTIONS
    with ExitStack() as stack:
        opened = [stack.enter_context(connect(server, "GET /metr" if n % 2 else "")) for n in range(1000)]
        with urllib.request.urlopen(f"{server.http}/metrics", timeout=10) as response:
            assert response.status == 200
        with grpc.insecure_channel(server.grpc) as channel:
            infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(MODEL_INFER)
            assert infer(GOOD, timeout=10)
        files = f"/proc/{server.process.pid}/fd"
        soon = http.SPEAK_S / 2  # because they are too many, not because their time is over
        until(lambda: len(os.listdir(files)) < http.CONNECTIONS + 150, at_most_s=soon)
        for first in opened[:500]:
            with suppress(ConnectionResetError):
                assert first.recv(1) == b""


def test_bodies_that_are_announced_and_never_come_are_bounded(server: ServerProcess) -> None:
    """A body's memory is taken when it is announced: beyond --max-request-bytes, RESOURCE_EXHAUSTED's 429."""
    with ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(connect(server, f"{INFER}content-length: {8 << 20}\r\n\r\n"))

        def refused() -> bool:
            caller = connect(server, f"{INFER}content-length: {8 << 20}\r\nconnection: close\r\n\r\n")
            caller.settimeout(1)
            try:
                status, body = answer(caller)
            except TimeoutError:  # it found room, and its body is waited for
                return False
            assert status == 429
            assert "--max-request-bytes" in body["error"]
            return True

        until(refused)


@pytest.mark.parametrize(
    ("headers", "status", "said"),
    [
        pytest.param("transfer-encoding: chunked", 411, "expected content-length", id="no-length"),
        pytest.param("content-length: 99999999", 413, "--max-message-bytes", id="too-long"),
        pytest.param("content-encoding: gzip\r\ncontent-length: 5", 400, "compressed", id="compressed"),
    ],
)
def test_a_body_that_cannot_be_taken_is_refused_before_it_comes(
    server: ServerProcess, headers: str, status: int, said: str
) -> None:
    """By what its headers say, with a sentence."""
    code, body = answer(connect(server, f"{INFER}{headers}\r\nconnection: close\r\n\r\n"))
    assert code == status
    assert said in body["error"]


def test_a_connection_has_so_long_to_say_what_it_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent one, one that never ends its first line, and one that goes on silently after an answer are closed."""
    monkeypatch.setattr(http, "SPEAK_S", 0.5)
    app = http.app(lambda: True, lambda: b"", lambda: b"[]", lambda: pytest.fail("not asked for"))
    server = http.HttpServer(app, host="127.0.0.1", port=0)
    port = server.start()
    try:
        for said in (
            "",
            "GET /livez",
            "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n",
            "GET /livez HTTP/1.1\r\nhost: x\r\n\r\nG",
        ):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as caller:
                caller.sendall(said.encode())
                got = b""
                with suppress(ConnectionResetError):
                    while piece := caller.recv(4096):
                        got += piece
                assert got.endswith(b"ok\n") == ("HTTP" in said)
    finally:
        server.stop()
