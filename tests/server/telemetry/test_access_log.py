"""The access log's lines."""

import logging
import shlex
from math import inf

import pytest

from horngate_server.core.request_context import RequestContext
from horngate_server.telemetry import access_log
from horngate_server.telemetry.request_record import RequestRecord


def test_an_access_log_line_can_be_split_again(caplog: pytest.LogCaptureFixture) -> None:
    """Values with spaces, quotes or equal signs are quoted, ids of any length are cut, and nothing else is."""
    origin = RequestContext("a", "", "", "", traced=False, logged=True)
    ended = RequestRecord(
        origin, "oip", "m", "3", 2, 'x" code=OK ' + "y" * 500, "NOT_FOUND", "no such thing", 0, inf, inf, 1.5
    )
    with caplog.at_level(logging.INFO):
        access_log.write(ended)
    (record,) = caplog.records
    words = shlex.split(record.message)
    assert words[:8] == [
        "request", "client=a", "protocol=oip", "model=m", "version=3", "rows=2", "code=NOT_FOUND", "total_ms=1500.0",
    ]  # fmt: skip
    assert words[8] == ('request_id=x" code=OK ' + "y" * 500)[: len("request_id=") + 128]
    assert words[9:] == ["error=no such thing"]
