"""A version that computes along: it compares, and never stands in anybody's way."""

import threading

import numpy as np
import pytest

from horngate_protos.datatypes import BY_NAME
from horngate_server.core.errors import ModelFailed
from horngate_server.core.padding import Padding
from horngate_server.core.signature import Batching, Signature, TensorSpec
from horngate_server.engine.batch_runner import BatchReport
from horngate_server.lifecycle.shadow import ROWS, WAITING, Shadow
from support.in_process import FakeModel, InProcessServer
from support.waiting import until

SCORES = "double"


def attach(server: InProcessServer, shadow: Shadow) -> None:
    """Offer every batch of the server's executor."""
    finish = server.executor._finish

    def both(*outcome: object) -> None:
        finish(*outcome)  # type: ignore[arg-type]
        report = outcome[2]
        if isinstance(report, BatchReport):
            shadow.offer(report)

    server.executor._finish = both


def test_agreement_is_counted_row_by_row() -> None:
    """A shadow that answers one row in three differently agrees on the others."""
    model = FakeModel()
    model.compute = lambda inputs: [
        np.where(inputs[0][:, :1] == 3, 0, inputs[0].astype(np.int64) * 2),
        inputs[0].astype(np.float32).sum(axis=1),
    ]
    with InProcessServer(max_batch_rows=64) as server:
        shadow = Shadow("m version 4", model, server.executor, 1.0, server.clock)
        attach(server, shadow)
        shadow.start()
        server.ask([[1, 1], [2, 2], [3, 3]]).response()
        until(lambda: shadow.report.rows == 3)
        shadow.stop()
    assert shadow.report.agreed == 2
    assert model.ran[0].tolist() == [[1, 1], [2, 2], [3, 3]]
    assert shadow.report.seconds > 0


def test_a_share_of_the_batches_is_sampled() -> None:
    """A quarter of the batches, evenly."""
    with InProcessServer() as server:
        shadow = Shadow("m version 4", FakeModel(), server.executor, 0.25, server.clock)
        attach(server, shadow)
        shadow.start()
        for number in range(1, 9):
            server.ask([[1, 1]]).response()
            until(lambda due=number // 4: shadow.report.rows == due)  # type: ignore[misc]
        shadow.stop()
    assert shadow.report.rows == 2
    assert shadow.report.skipped == 0


def test_a_shadow_never_computes_while_somebody_waits() -> None:
    """While the live version is busy its batches wait, and those that find no room are let go and counted."""
    model = FakeModel()
    with InProcessServer() as server:
        shadow = Shadow("m version 4", model, server.executor, 1.0, server.clock)
        attach(server, shadow)
        for _ in range(WAITING + 3):
            server.ask([[1, 1]]).response()
        until(lambda: shadow.report.skipped == 3)
        held = server.hold()
        shadow.start()
        assert not threading.Event().wait(0.05)  # it has looked dozens of times by then
        assert not model.ran
        server.model.gate.set()
        held.response()
        until(lambda: len(model.ran) >= WAITING)
        shadow.stop()


def test_a_shadow_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """The live answers are what they were; the failure is logged and counted."""
    model = FakeModel()

    def fail(_: object) -> list[np.ndarray]:
        raise ModelFailed("out of range")

    model.compute = fail
    with InProcessServer() as server:
        shadow = Shadow("m version 4", model, server.executor, 1.0, server.clock)
        attach(server, shadow)
        shadow.start()
        assert server.ask([[1, 2]]).output("double").tolist() == [[2, 4]]
        until(lambda: shadow.report.skipped == 1)
        shadow.stop()
    assert "shadow m version 4 failed on a batch of 1 rows: out of range" in caplog.text


def test_no_more_than_a_few_rows_of_a_batch_are_computed() -> None:
    """A large request would hold up the next one on a busy machine."""
    model = FakeModel()
    with InProcessServer(max_batch_rows=1024, queue_rows=2048) as server:
        shadow = Shadow("m version 4", model, server.executor, 1.0, server.clock)
        attach(server, shadow)
        shadow.start()
        server.ask(np.ones((500, 2))).response()
        until(lambda: shadow.report.rows == ROWS)
        shadow.stop()
    assert [len(ran) for ran in model.ran] == [ROWS]
    assert shadow.report.agreed == ROWS


def test_a_batch_of_several_lengths_is_compared_at_its_first_requests_own() -> None:
    """The shadow is given the requests that are as long as the first, and its answers are as long as theirs."""
    signature = Signature(
        "serving_default",
        (TensorSpec("x", BY_NAME["INT32"], (-1, -1)),),
        (TensorSpec("double", BY_NAME["INT64"], (-1, -1)), TensorSpec("total", BY_NAME["FP32"], (-1,))),
    )
    padding = Padding((1,), (0,), ((1,), ()), frozenset(), frozenset(), longest=8)
    model = FakeModel(signature)
    with InProcessServer(FakeModel(signature), batching=Batching(padding=padding), pad=False) as server:
        shadow = Shadow("m version 4", model, server.executor, 1.0, server.clock)
        attach(server, shadow)
        server.hold()
        replies = [server.ask(x) for x in ([[1]], [[5]], [[2, 3, 4]])]
        server.model.gate.set()
        assert [reply.status() for reply in replies] == ["OK"] * 3
        assert server.model.ran[1].tolist() == [[1, 0, 0], [5, 0, 0], [2, 3, 4]]
        shadow.start()
        until(lambda: shadow.report.rows == 3)
        shadow.stop()
    assert [ran.tolist() for ran in model.ran] == [[[0, 0]], [[1], [5]]]
    assert shadow.report.agreed == 3
