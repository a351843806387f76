"""Log lines of a kind, one an interval."""

import logging

import pytest

from horngate_server.core.rate_limited_log import RateLimitedLog
from support.in_process import Clock


def test_lines_of_a_kind_are_at_most_one_an_interval(caplog: pytest.LogCaptureFixture) -> None:
    """Another kind has lines of its own, and what was left out is told once the interval is over, by whatever comes."""
    clock = Clock()
    lines = RateLimitedLog(logging.getLogger("test"), clock, every_s=2.0)
    for number in range(5):
        lines.note("a", logging.WARNING, "a%d", number)
    lines.note("b", logging.WARNING, "b")
    lines.flush()
    assert [record.getMessage() for record in caplog.records] == ["a0", "b"]
    clock.now += 2
    lines.note("c", logging.WARNING, "c")
    assert [record.getMessage() for record in caplog.records][2:] == [
        "c", "a4 (the last of 4 like it that were left out)",
    ]  # fmt: skip
    lines.note("c", logging.WARNING, "d")
    lines.flush(everything=True)
    assert caplog.records[-1].getMessage() == "d (the last of 1 like it that were left out)"
    assert not lines._kinds


def test_a_rate_limited_line_may_carry_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """An error's traceback comes with the line that is written, at its level."""
    lines = RateLimitedLog(logging.getLogger("test"), Clock())
    lines.note("a", logging.ERROR, "%s failed", "x", exc_info=ValueError("why"))
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == ("ERROR", "x failed")
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "why"
