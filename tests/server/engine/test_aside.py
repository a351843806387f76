"""Dear signatures are computed aside: their runs hold up nobody else's, and end with the executor that has them."""

import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from horngate_server.core.inference import ModelInfo
from horngate_server.core.signature import Batching
from horngate_server.engine.batch_queue import BatchQueue
from horngate_server.engine.batching import ladder
from horngate_server.engine.cost_model import CostModel
from horngate_server.engine.executor import Executor
from horngate_server.engine.routing import Servable
from support.in_process import SIGNATURE, WAIT_S, FakeModel, FakeReply, InProcessServer, request

DEAR = replace(SIGNATURE, name="dear")


class Aside:
    """A server whose model has a second signature, ``dear``, that another fake model computes aside."""

    def __init__(self) -> None:
        self.server = InProcessServer()
        self.model = FakeModel(DEAR)
        self.began = threading.Event()
        self.server.executor = executor = Executor(
            self.server.info,
            self.server.model,
            self.server.queue,
            CostModel(ladder(8)),
            self.server.service.finish,
            clock=self.server.clock,
            on_death=self.server.died.append,
            quick_s=0.0,
            aside=Executor(
                self.server.info,
                self.model,
                BatchQueue(capacity_rows=8, max_batch_rows=4),
                CostModel(ladder(4)),
                self.server.service.finish,
                clock=self.server.clock,
                on_death=self.server.died.append,
                quick_s=0.0,
                begin=self.began.set,
            ),
        )
        dear = ModelInfo("m", "3", DEAR, batching=Batching(aside=True))
        infos = {SIGNATURE.name: self.server.info, DEAR.name: dear}
        self.server.models.route("m", Servable(self.server.info, executor, infos))

    def ask(self, x: object) -> FakeReply:
        """Ask for the dear signature."""
        made = request({"x": np.asarray(x, np.int32)})
        made.parameters["signature"].string_param = DEAR.name
        return self.server.send(made.SerializeToString())

    def hold(self) -> FakeReply:
        """Let a run of the dear signature begin, and not end."""
        self.model.gate.clear()
        reply = self.ask([[1, 1]])
        assert self.model.began.acquire(timeout=WAIT_S)
        return reply


@pytest.fixture
def aside() -> Iterator[Aside]:
    """It, started."""
    made = Aside()
    with made.server:
        yield made
        made.model.gate.set()


def test_others_are_answered_while_a_dear_run_lasts(aside: Aside) -> None:
    """Each signature has its own model and line; the answer comes from where it was asked for."""
    dear = aside.hold()
    assert aside.server.ask([[2, 3]]).output("double").tolist() == [[4, 6]]
    assert not dear.answered
    aside.model.gate.set()
    assert dear.output("double").tolist() == [[2, 2]]
    assert aside.began.is_set()


def test_rows_that_wait_aside_are_counted_and_refused_like_others(aside: Aside) -> None:
    """They show in the model's queue, and have a bound of their own."""
    aside.hold()
    waiting = aside.ask([[1, 1]] * 8)
    assert aside.server.sample("horngate_queue_rows", {"model": "m", "version": "3", "priority": "interactive"}) == 8
    assert aside.ask([[1, 1]]).status() == "RESOURCE_EXHAUSTED"
    assert aside.server.ask([[1, 1]]).status() == "OK"
    aside.model.gate.set()
    assert waiting.status() == "OK"


def test_the_end_waits_for_what_is_computed_aside(aside: Aside) -> None:
    """A drain answers what waits there, refuses what comes, and closes both models."""
    held, waiting = aside.hold(), aside.ask([[4, 4]])
    aside.server.executor.refuse()
    assert aside.ask([[1, 1]]).status() == "UNAVAILABLE"
    aside.model.gate.set()
    assert aside.server.executor.stop(WAIT_S)
    assert (held.status(), waiting.status()) == ("OK", "OK")
    aside.server.executor.close()
    assert (aside.model.closed, aside.server.model.closed) == (True, True)


def test_a_dear_run_that_does_not_end_is_said_and_its_callers_are_told(aside: Aside) -> None:
    """Who waits behind it is answered; the stop says that it was not in time."""
    aside.hold()
    waiting = aside.ask([[4, 4]])
    assert not aside.server.executor.stop(0.01)
    assert waiting.status() == "UNAVAILABLE"
