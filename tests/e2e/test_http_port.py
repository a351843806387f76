"""The HTTP port's own gate: callers that say nothing, never finish or send too much take nothing from the others."""

import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import grpc
import numpy as np
import pytest

from horngate_server.process import launch
from horngate_server.transports.http.concurrency import Message, Receive, Send, respond
from horngate_server.transports.http.connection import CONNECTIONS, SPEAK_S
from horngate_server.transports.http.server import HttpServer, app
from support.http2 import MODEL_INFER
from support.in_process import request
from support.odd_http import ODD
from support.process import ServerProcess
from support.waiting import until

MIB = 1 << 20
LIMITS = ["--max-message-bytes", "8MiB", "--max-request-bytes", "64MiB"]
GOOD = request({"images": np.zeros((1, 28, 28), np.uint8)}, model="mnist").SerializeToString()
IMAGE = json.dumps({"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 28, 28], "data": [0] * 784}]})
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


def connect_with(server: ServerProcess, sent: bytes) -> socket.socket:
    """Open a connection, and send bytes."""
    connection = connect(server)
    connection.sendall(sent)
    return connection


def answer(connection: socket.socket) -> tuple[int, Any]:
    """Read an answer's status and body."""
    with connection, connection.makefile("rb") as stream:
        status = int(stream.readline().split()[1])
        while stream.readline().strip():
            pass
        return status, json.loads(stream.read())


def test_a_thousand_silent_connections_harm_nobody(server: ServerProcess) -> None:
    """Those silent for longest are closed, few files are open, and metrics and predictions are answered meanwhile."""
    assert launch.OTHER_FILES >= 2 * CONNECTIONS
    with ExitStack() as stack:
        opened = [stack.enter_context(connect(server, "GET /metr" if n % 2 else "")) for n in range(1000)]
        with urllib.request.urlopen(f"{server.http}/metrics", timeout=10) as response:
            assert response.status == 200
        with grpc.insecure_channel(server.grpc) as channel:
            infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(MODEL_INFER)
            assert infer(GOOD, timeout=10)
        files = f"/proc/{server.process.pid}/fd"
        soon = SPEAK_S / 2  # because they are too many, not because their time is over
        until(lambda: len(os.listdir(files)) < CONNECTIONS + 150, at_most_s=soon)
        for first in opened[:500]:
            with suppress(ConnectionResetError):
                assert first.recv(1) == b""


def status_of(connection: socket.socket) -> int:
    """Read an answer's first bytes, and return its status."""
    with connection:
        return int(connection.recv(4096).split()[1])


def test_unfinished_posts_keep_neither_probes_nor_others_out(server: ServerProcess) -> None:
    """All connections have a body that does not end: probes and scrapes are answered, and so is a whole request."""
    urllib.request.urlopen(f"{server.http}/v2/health/live", timeout=20).close()  # now all of /v2 is there
    with ExitStack() as stack:
        for _ in range(CONNECTIONS):
            slow = stack.enter_context(connect(server, f"{INFER}content-length: 1000\r\n\r\n"))
            with suppress(ConnectionError):
                slow.sendall(b"{")
        for _ in range(3):
            for path in ("/livez", "/readyz", "/metrics", "/models"):
                with urllib.request.urlopen(server.http + path, timeout=10) as response:
                    assert response.status == 200
        whole = f"{INFER}content-length: {len(IMAGE)}\r\nconnection: close\r\n\r\n{IMAGE}"
        assert [status_of(connect(server, whole)) for _ in range(3)] == [200] * 3


@pytest.mark.skipif(shutil.which("slowhttptest") is None, reason="slowhttptest is not installed; CI installs it")
def test_slowhttptest_finds_the_port_open(server: ServerProcess) -> None:
    """Its slow bodies, heads and readers, all at once, each more than there are connections: it stays available."""
    slow = {"-B": "/v2/models/mnist/infer", "-H": "/livez", "-X": "/metrics"}
    with ThreadPoolExecutor(len(slow)) as threads:
        reports = list(threads.map(lambda mode: slowhttptest(mode, server.http + slow[mode]), slow))
    for report in reports:
        available = re.findall(r"service available:\s*(\w+)", report)
        assert available, report
        assert set(available) == {"YES"}, report


def slowhttptest(mode: str, url: str) -> str:
    """Run it for five seconds; return what it said, without colours."""
    command = ["slowhttptest", mode, "-i", "1", "-c", "300", "-r", "150", "-l", "5", "-p", "3", "-u", url]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)


@pytest.mark.alone
def test_large_json_holds_up_nobody(trained: Path, transport: str, tmp_path: Path) -> None:
    """63 MiB of objects are refused with little memory; probes and gRPC go on beside that, and beside good data."""
    zeros = b"[" + b"0," * (8000 * 784 - 1) + b"0]"
    tensor = b'{"name":"images","datatype":"UINT8","shape":[8000,28,28],"data":%b}' % zeros
    junk = b'{"inputs":[' + b'{"a":1},' * (63 * MIB // 8 - 2) + b"{}]}"
    with ServerProcess(trained.parents[1], tmp_path, "--transport", transport) as server:
        before = reset_peak(server)
        paused = []
        for body, expected in ((b'{"inputs":[%b]}' % tensor, 200), (junk, 400), (junk, 400)):
            with CallersOfBothPorts(server) as beside:
                status, said = answer(
                    connect_with(server, f"{INFER}content-length: {len(body)}\r\n\r\n".encode() + body)
                )
            assert status == expected
            paused.append(beside.longest_s)
            if status == 200:
                assert said["outputs"][0]["shape"] == [8000]
                assert len(set(said["outputs"][0]["data"])) == 1
            else:
                assert "the body has more than 1048576 values" in said["error"]
        assert min(paused) < 0.25  # all of them, on a machine that does nothing else
        assert peak_mib(server) - before < 4 * len(junk) / MIB


class CallersOfBothPorts:
    """Callers of both ports, one call after the other, and the longest that any of them waited."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self._over = threading.Event()
        self.longest_s = 0.0

    def __enter__(self) -> Self:
        self._threads = ThreadPoolExecutor(2)
        self._running = [self._threads.submit(each) for each in (self._probe, self._infer)]
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._threads.shutdown()
        self.longest_s = max(each.result() for each in self._running)

    def _probe(self) -> float:
        return self._longest(lambda: urllib.request.urlopen(f"{self._server.http}/livez", timeout=20).close())

    def _infer(self) -> float:
        with grpc.insecure_channel(self._server.grpc) as channel:
            infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(MODEL_INFER)
            infer(GOOD, timeout=20)
            return self._longest(lambda: infer(GOOD, timeout=20))

    def _longest(self, call: Callable[[], object]) -> float:
        longest = 0.0
        while not self._over.wait(0.005):
            began = time.monotonic()
            call()
            longest = max(longest, time.monotonic() - began)
        return longest


def reset_peak(server: ServerProcess) -> float:
    """Forget the peak of memory so far; return it as it is now, in MiB."""
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")
    return peak_mib(server)


def peak_mib(server: ServerProcess) -> float:
    """Return the most resident memory that the server had."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def test_a_connection_more_than_there_may_be_is_answered_where_others_have_not_said_all() -> None:
    """Every connection's request is still on its way: the oldest of these makes room for one that is whole."""
    begun = threading.Semaphore(0)

    async def wait_for_the_body(scope: Message, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST":
            begun.release()
            await receive()
        await respond(send, 200, "text/plain", b"ok")

    server = HttpServer(wait_for_the_body, host="127.0.0.1", port=0)
    port = server.start()
    try:
        with ExitStack() as stack:
            slow = []
            for _ in range(CONNECTIONS):
                slow.append(stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20)))
                slow[-1].sendall(f"{INFER}content-length: 1000\r\n\r\n".encode())
                assert begun.acquire(timeout=20)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as response:
                assert response.read() == b"ok"
            with suppress(ConnectionResetError):
                assert slow[0].recv(1) == b""
            slow[1].sendall(bytes(1000))
            assert slow[1].recv(100).startswith(b"HTTP/1.1 200")
    finally:
        server.stop()


def test_odd_requests_are_refused_and_hardly_logged(server: ServerProcess) -> None:
    """Whatever comes gets 2xx or 4xx, no traceback, and one line in ten seconds for all together."""
    before = len(server.log)
    got = {name: status_of(connect_with(server, sent)) for name, sent in ODD.items()}
    assert {name: status for name, status in got.items() if not 200 <= status < 500} == {}
    lines = server.log[before:]
    assert len([line for line in lines if "malformed_http" in line]) <= 2
    assert [line for line in lines if "malformed_http" not in line] == []


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
        pytest.param("content-encoding: br\r\ncontent-length: 5", 400, "expected gzip, deflate", id="compressed"),
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
    monkeypatch.setattr("horngate_server.transports.http.connection.SPEAK_S", 0.5)
    application = app(lambda: True, lambda: b"", lambda: b"[]", lambda: pytest.fail("not asked for"))
    server = HttpServer(application, host="127.0.0.1", port=0)
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


@pytest.fixture
def app_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, list[bytes]]]:
    """A port whose app takes whole bodies and gives much for each; its time is short. And the bodies that came."""
    monkeypatch.setattr("horngate_server.transports.http.connection.SPEAK_S", 0.5)
    monkeypatch.setattr("horngate_server.transports.http.connection.BYTES_PER_S", 1000)
    bodies: list[bytes] = []

    async def take(_scope: Message, receive: Receive, send: Send) -> None:
        body = b""
        while True:
            event = await receive()
            if event["type"] == "http.disconnect":
                return
            body += event["body"]
            if not event.get("more_body"):
                break
        bodies.append(body)
        await respond(send, 200, "text/plain", bytes(MUCH))

    application = app(lambda: True, lambda: b"", lambda: b"[]", lambda: take)
    server = HttpServer(application, host="127.0.0.1", port=0)
    port = server.start()
    yield port, bodies
    server.stop()


MUCH = 32 << 20
"""More than the sockets' buffers hold."""


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([b"x: y\r\n" * 200], id="headers"),
        pytest.param([b"x: ", *[b"a" * 30_000] * 4], id="header-in-pieces"),
        pytest.param([b"host: y\r\n\r\n"], id="two-hosts"),
    ],
)
def test_a_requests_head_is_bounded(app_server: tuple[int, list[bytes]], pieces: list[bytes]) -> None:
    """In headers and in bytes: more gets 400, and the connection ends."""
    port, _ = app_server
    pause = threading.Event()
    with socket.create_connection(("127.0.0.1", port), timeout=20) as caller:
        caller.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n")
        with suppress(ConnectionError):
            for piece in pieces:
                caller.sendall(piece)
                pause.wait(0.05)
        assert caller.recv(100).startswith(b"HTTP/1.1 400")


def test_requests_behind_one_another_are_bounded(app_server: tuple[int, list[bytes]]) -> None:
    """A few wait for their turn; beyond that the connection is closed, before they become objects."""
    port, _ = app_server
    ask = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"
    for count, all_of_them in ((50, True), (5000, False)):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as caller:
            caller.sendall(ask * count)
            got = b""
            with suppress(ConnectionError):
                while got.count(b"ok\n") < count and (piece := caller.recv(1 << 16)):
                    got += piece
        assert (got.count(b"ok\n") == count) == all_of_them


@pytest.mark.parametrize("fast", [True, False], ids=["fast-enough", "too-slow"])
def test_a_body_must_come_at_some_pace(app_server: tuple[int, list[bytes]], fast: bool) -> None:
    """One that takes long is taken; one of a few bytes a second is closed however often they come."""
    port, bodies = app_server
    pause = threading.Event()
    with socket.create_connection(("127.0.0.1", port), timeout=20) as caller:
        caller.sendall(b"POST /v2/x HTTP/1.1\r\nhost: x\r\ncontent-length: 10000\r\n\r\n")
        try:
            for _ in range(20):
                pause.wait(0.1)
                caller.sendall(bytes(500 if fast else 1))
            got = caller.recv(100)
        except ConnectionError:
            got = b""
    assert got.startswith(b"HTTP/1.1 200") == fast
    assert [len(body) for body in bodies] == ([10000] if fast else [])


@pytest.mark.parametrize("reads", [True, False], ids=["reads", "reads-not"])
def test_an_answer_must_be_read_at_some_pace(app_server: tuple[int, list[bytes]], reads: bool) -> None:
    """A caller that takes its time gets all of a long answer; one that does not read is closed."""
    port, _ = app_server
    pause = threading.Event()
    with socket.create_connection(("127.0.0.1", port), timeout=20) as caller:
        caller.sendall(b"POST /v2/x HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        got = 0
        if not reads:
            pause.wait(2.0)
        with suppress(ConnectionResetError):
            while piece := caller.recv(1 << 20):
                got += len(piece)
                if got < 24 << 20:
                    pause.wait(0.05)
    assert (got > MUCH) == reads
