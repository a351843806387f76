"""Connections end, and callers move to other servers, without a call lost."""

import signal
import struct
from pathlib import Path

import numpy as np
import pytest

from support.http2 import Http2
from support.in_process import request
from support.process import ServerProcess

OK = "0"
GOOD = request({"images": np.zeros((1, 28, 28), np.uint8)}, model="mnist").SerializeToString()
FRAME = struct.pack(">BI", 0, len(GOOD)) + GOOD
STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_old_connection_is_told_to_go_and_its_calls_are_answered(
    trained: Path, transport: str, tmp_path: Path, workers: str
) -> None:
    """After --max-connection-age a GOAWAY comes; a call that is half sent by then is answered; others are young."""
    flags = "--transport", transport, "--max-connection-age", "1s", "--workers", workers
    with ServerProcess(trained.parents[1], tmp_path, *flags) as server, Http2(server.grpc) as old:
        assert old.call(FRAME)["grpc-status"] == OK
        half = old.open()
        old.send(half, FRAME[:100])
        old.wait_for_goaway()
        with Http2(server.grpc) as young:
            assert young.call(FRAME)["grpc-status"] == OK
            assert not young.going_away
        old.send(half, FRAME[100:], end=True)
        assert old.ends(half)["grpc-status"] == OK
        old.wait_for_close()
        assert server.stop() == 0


def test_callers_are_told_to_go_as_soon_as_a_drain_begins(trained: Path, transport: str, tmp_path: Path) -> None:
    """SIGTERM: nobody can connect any more, who is connected gets a GOAWAY, and what is under way its answer."""
    with ServerProcess(trained.parents[1], tmp_path, "--transport", transport) as server, Http2(server.grpc) as caller:
        assert caller.call(FRAME)["grpc-status"] == OK
        large = request({"images": np.zeros((16000, 28, 28), np.uint8)}, model="mnist").SerializeToString()
        under_way = caller.open()
        caller.send(under_way, struct.pack(">BI", 0, len(large)) + large, end=True)
        server.process.send_signal(signal.SIGTERM)
        assert caller.ends(under_way)["grpc-status"] == OK
        assert caller.going_away
        assert server.process.wait(30) == 0
