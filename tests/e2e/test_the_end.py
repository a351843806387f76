"""The grace period bounds everything: whatever hangs, a server ends in time, and its exit code tells the truth."""

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlparse

import grpc
import numpy as np
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from support.in_process import request
from support.process import ServerProcess
from support.waiting import until

pytestmark = pytest.mark.alone

TESTS = Path(__file__).parents[1]
GRACE_S = 1.0
IN_TIME_S = GRACE_S + 2.0
WAIT_S = 60.0
FLAGS = ("--grace-period", f"{GRACE_S:g}s")
ANSWERED = "stopped: every accepted request was answered"
UNANSWERED = "stopped: the grace period ended with requests unanswered; their callers got UNAVAILABLE"


@pytest.fixture(scope="session")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model root whose model goes round as long as its values are not small: for ever, if one is infinite."""
    root = tmp_path_factory.mktemp("endless")
    command = [sys.executable, "-m", "support.any_models", str(root), "loop_by_values"]
    subprocess.run(command, check=True, capture_output=True, timeout=100, cwd=TESTS)
    (root / "loop_by_values.json").unlink(missing_ok=True)
    return root


@contextmanager
def ending_in_time(server: ServerProcess) -> Iterator[list[int]]:
    """Stop the server after the block; yield a list that holds its exit code then."""
    code: list[int] = []
    yield code
    began = time.monotonic()
    code.append(server.stop())
    assert time.monotonic() - began < IN_TIME_S, "\n".join(server.log)


def test_a_model_that_does_not_return_ends_with_the_grace_period(endless: Path, transport: str, tmp_path: Path) -> None:
    """Its caller, and who waits behind, get UNAVAILABLE; the exit code is 1, and nobody says that all were answered."""
    message = request({"x": np.full((1, 4), np.inf, np.float32)}, model="loop_by_values").SerializeToString()
    with (
        ServerProcess(endless, tmp_path, "--transport", transport, *FLAGS) as server,
        grpc.insecure_channel(server.grpc) as channel,
    ):
        infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer"
        )
        hung, behind = infer.future(message, timeout=WAIT_S), infer.future(message, timeout=WAIT_S)
        until_computing(server)
        with ending_in_time(server) as code:
            pass
        assert {hung.code(), behind.code()} == {grpc.StatusCode.UNAVAILABLE}
    assert code == [1]
    assert any(UNANSWERED in line for line in server.log)
    assert not any(ANSWERED in line for line in server.log)


def test_a_disk_that_does_not_answer_does_not_hold_up_the_end(trained: Path, transport: str, tmp_path: Path) -> None:
    """A version that is found and can never be read: SIGTERM ends the server in time, and nothing was lost."""
    version = tmp_path / "models/hung/1"
    (version / "variables").mkdir(parents=True)
    shutil.copy(trained / "saved_model.pb", version)
    os.mkfifo(version / "variables/variables.index")  # opening it waits for somebody who writes
    server = ServerProcess(tmp_path / "models", tmp_path, "--transport", transport, *FLAGS)
    try:
        until(lambda: reads(server.process.pid, version))
        with ending_in_time(server) as code:
            pass
    finally:
        server.__exit__()
    assert code == [0]
    assert any(ANSWERED in line for line in server.log)


def test_callers_who_only_listen_or_never_finish_hold_up_nothing(trained: Path, transport: str, tmp_path: Path) -> None:
    """A Watch, a stream and a POST that never end are no reason to wait for the grace period's end."""
    with (
        ServerProcess(trained.parents[1], tmp_path, "--transport", transport) as server,
        grpc.insecure_channel(server.grpc) as channel,
        slow_post(server),
    ):
        watch = channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )(HealthCheckRequest(), timeout=WAIT_S)
        assert next(watch).status == HealthCheckResponse.SERVING
        over = threading.Event()
        stream: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer"
        )
        answers = stream(never_ending(request_of(trained), over), timeout=WAIT_S)
        assert next(answers)
        with ending_in_time(server) as code:
            pass
        over.set()
        assert next(watch).status == HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.RpcError):
            next(watch)
        with pytest.raises(grpc.RpcError):
            next(answers)
    assert code == [0]
    assert any(ANSWERED in line for line in server.log)


def test_json_that_is_being_read_does_not_hold_up_the_end(trained: Path, transport: str, tmp_path: Path) -> None:
    """Its caller is told to try again: what has not been read is not accepted."""
    count = 30_000
    tensor = b'{"name":"images","datatype":"UINT8","shape":[%d,28,28],"data":[%b0]}' % (
        count,
        b"0," * (count * 784 - 1),
    )
    head = b"POST /v2/models/mnist/infer HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
    body = b'{"inputs":[%b]}' % tensor
    with ServerProcess(trained.parents[1], tmp_path, "--transport", transport, *FLAGS) as server:
        where = urlparse(server.http)
        with socket.create_connection((where.hostname or "", where.port or 0), timeout=WAIT_S) as caller:
            caller.sendall(head % len(body) + body)
            with ending_in_time(server) as code:
                pass
            assert caller.recv(12) == b"HTTP/1.1 503"
    assert code == [0]
    assert not any("Traceback" in line for line in server.log)


def request_of(trained: Path) -> bytes:
    """Return one good request."""
    return request({"images": np.zeros((1, 28, 28), np.uint8)}, model=trained.parent.name).SerializeToString()


def never_ending(message: bytes, over: threading.Event) -> Iterator[bytes]:
    """Yield a message, and then nothing until the test is over."""
    yield message
    over.wait(WAIT_S)


@contextmanager
def slow_post(server: ServerProcess) -> Iterator[None]:
    """Hold a POST open whose body never comes."""
    where = urlparse(server.http)
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=WAIT_S) as caller:
        caller.sendall(
            b"POST /v2/models/mnist/infer HTTP/1.1\r\nhost: x\r\n"
            b"content-type: application/json\r\ncontent-length: 99\r\n\r\n{"
        )
        yield


def until_computing(server: ServerProcess) -> None:
    """Wait until a request waits behind one that is computed."""

    def waits() -> bool:
        with urllib.request.urlopen(f"{server.http}/metrics", timeout=WAIT_S) as response:
            return b"\nhorngate_requests_in_flight 2.0\n" in response.read()

    until(waits)


def reads(process: int, version: Path) -> bool:
    """Whether a process has come to wait for the version's FIFO: nobody can write into it before."""
    try:
        os.close(os.open(version / "variables/variables.index", os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return process > 0
