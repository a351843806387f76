"""One line for a burst of refusals."""

import pytest

from horngate_server.telemetry.refusal_log import RefusalLog
from support.in_process import Clock


def test_a_burst_of_refusals_is_one_line_and_its_count_comes_with_the_next(caplog: pytest.LogCaptureFixture) -> None:
    """The first refusal is logged; the others are counted into the next line, ten seconds later."""
    clock = Clock()
    refusals = RefusalLog(clock)
    for _ in range(1000):
        refusals.note("queue_full", "no room")
    clock.now += 10
    refusals.note("queue_full", "still no room")
    assert [record.message for record in caplog.records] == [
        "refused a request (queue_full): no room",
        "refused a request (queue_full): still no room (and 999 more like it since the last line)",
    ]
