"""A log whose reader has stopped."""

import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest

from support.http2 import MODEL_INFER
from support.in_process import request
from support.waiting import until

CALLS = 10_000


def answered(infer: "grpc.UnaryUnaryMultiCallable[bytes, bytes]", body: bytes) -> bool:
    """Whether the server serves."""
    try:
        return bool(infer(body, timeout=60, wait_for_ready=True))
    except grpc.RpcError:
        return False


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_log_that_nobody_reads_stops_nothing(trained: Path, transport: str, tmp_path: Path, workers: str) -> None:
    """Ten thousand calls with a line each are answered; when it is read again, a line says how many are missing."""
    ports = tmp_path / "ports"
    command: list[str | Path] = [
        sys.executable, "-m", "horngate_server", "--models", trained.parents[1], "--transport", transport,
        "--workers", workers, "--grpc-port", "0", "--http-port", "0", "--port-file", ports, "--access-log", "1",
    ]  # fmt: skip
    body = request({"images": np.zeros((1, 28, 28), np.uint8)}, model="mnist").SerializeToString()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            until(ports.exists)
            listening = dict(line.split() for line in ports.read_text().splitlines())
            with grpc.insecure_channel(f"localhost:{listening['grpc']}") as channel:
                infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(MODEL_INFER)
                until(lambda: answered(infer, body))
                metadata = (("x-request-id", "r" * 128),)
                for _ in range(CALLS // 100):
                    futures = [infer.future(body, timeout=20, metadata=metadata) for _ in range(100)]
                    assert all(future.result() for future in futures)
            server.terminate()
            assert server.stderr
            said = server.stderr.read()
        finally:
            server.kill()
    assert server.returncode == 0
    told = said.count("request client=")
    dropped = [int(line.split(": ")[-1].split()[0]) for line in said.splitlines() if "lines were dropped" in line]
    assert dropped
    assert told + sum(dropped) >= CALLS
