"""A version that computes along: it compares, and never stands in anybody's way."""

import threading

import numpy as np
import pytest

from horngate_server.core.errors import ModelFailed
from horngate_server.engine.batch_runner import BatchReport
from horngate_server.lifecycle.shadow import ROWS, WAITING, Shadow
from support.desk import Desk, FakeModel
from support.waiting import until

SCORES = "double"


def attach(desk: Desk, shadow: Shadow) -> None:
    """Offer every batch of the desk's executor."""
    finish = desk.executor._finish

    def both(*outcome: object) -> None:
        finish(*outcome)  # type: ignore[arg-type]
        report = outcome[2]
        if isinstance(report, BatchReport):
            shadow.offer(report)

    desk.executor._finish = both


def test_agreement_is_counted_row_by_row() -> None:
    """A shadow that answers one row in three differently agrees on the others."""
    model = FakeModel()
    model.compute = lambda inputs: [
        np.where(inputs[0][:, :1] == 3, 0, inputs[0].astype(np.int64) * 2),
        inputs[0].astype(np.float32).sum(axis=1),
    ]
    with Desk(max_batch_rows=64) as desk:
        shadow = Shadow("m version 4", model, desk.executor, 1.0, desk.clock)
        attach(desk, shadow)
        shadow.start()
        desk.ask([[1, 1], [2, 2], [3, 3]]).response()
        until(lambda: shadow.report.rows == 3)
        shadow.stop()
    assert shadow.report.agreed == 2
    assert model.ran[0].tolist() == [[1, 1], [2, 2], [3, 3]]
    assert shadow.report.seconds > 0


def test_a_share_of_the_batches_is_sampled() -> None:
    """A quarter of the batches, evenly."""
    with Desk() as desk:
        shadow = Shadow("m version 4", FakeModel(), desk.executor, 0.25, desk.clock)
        attach(desk, shadow)
        shadow.start()
        for number in range(1, 9):
            desk.ask([[1, 1]]).response()
            until(lambda due=number // 4: shadow.report.rows == due)  # type: ignore[misc]
        shadow.stop()
    assert shadow.report.rows == 2
    assert shadow.report.skipped == 0


def test_a_shadow_never_computes_while_somebody_waits() -> None:
    """While the live version is busy its batches wait, and those that find no room are let go and counted."""
    model = FakeModel()
    with Desk() as desk:
        shadow = Shadow("m version 4", model, desk.executor, 1.0, desk.clock)
        attach(desk, shadow)
        for _ in range(WAITING + 3):
            desk.ask([[1, 1]]).response()
        until(lambda: shadow.report.skipped == 3)
        held = desk.hold()
        shadow.start()
        assert not threading.Event().wait(0.05)  # it has looked dozens of times by then
        assert not model.ran
        desk.model.gate.set()
        held.response()
        until(lambda: len(model.ran) >= WAITING)
        shadow.stop()


def test_a_shadow_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """The live answers are what they were; the failure is logged and counted."""
    model = FakeModel()

    def fail(_: object) -> list[np.ndarray]:
        raise ModelFailed("out of range")

    model.compute = fail
    with Desk() as desk:
        shadow = Shadow("m version 4", model, desk.executor, 1.0, desk.clock)
        attach(desk, shadow)
        shadow.start()
        assert desk.ask([[1, 2]]).output("double").tolist() == [[2, 4]]
        until(lambda: shadow.report.skipped == 1)
        shadow.stop()
    assert "shadow m version 4 failed on a batch of 1 rows: out of range" in caplog.text


def test_no_more_than_a_few_rows_of_a_batch_are_computed() -> None:
    """A large request would hold up the next one on a busy machine."""
    model = FakeModel()
    with Desk(max_batch_rows=1024, queue_rows=2048) as desk:
        shadow = Shadow("m version 4", model, desk.executor, 1.0, desk.clock)
        attach(desk, shadow)
        shadow.start()
        desk.ask(np.ones((500, 2))).response()
        until(lambda: shadow.report.rows == ROWS)
        shadow.stop()
    assert [len(ran) for ran in model.ran] == [ROWS]
    assert shadow.report.agreed == ROWS
