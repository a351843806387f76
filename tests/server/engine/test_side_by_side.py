"""Several batches of one model at once: everyone is answered once, in order, and the end waits for all."""

import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from horngate_server.core.errors import InputRefused
from horngate_server.core.model import Array
from support.in_process import WAIT_S, FakeModel, InProcessServer, double
from support.waiting import until

BAD = 13


@pytest.fixture
def other() -> FakeModel:
    """The second model."""
    return FakeModel()


@pytest.fixture
def server(other: FakeModel) -> Iterator[InProcessServer]:
    """A server that computes two batches at once."""
    with InProcessServer(others=[other]) as running:
        yield running


def test_a_request_does_not_wait_for_the_run_of_another(server: InProcessServer, other: FakeModel) -> None:
    """While one model computes, the other takes what comes."""
    models = [server.model, other]
    for model in models:
        model.gate.clear()
    replies = [server.ask([[1, 1]])]
    until(lambda: any(model.ran for model in models))
    began, idle = sorted(models, key=lambda model: len(model.ran), reverse=True)
    replies.append(server.ask([[2, 2]]))
    assert idle.began.acquire(timeout=WAIT_S)
    assert not server.executor.idle
    idle.gate.set()
    assert replies[1].output("double").tolist() == [[4, 4]]
    began.gate.set()
    assert replies[0].output("double").tolist() == [[2, 2]]


def test_the_end_waits_for_all_runs_and_closes_all_models(server: InProcessServer, other: FakeModel) -> None:
    """What has begun is answered."""
    for model in (server.model, other):
        model.gate.clear()
    replies = [server.ask([[1, 1]]), server.ask([[2, 2]])]
    server.executor.refuse()
    assert server.ask([[3, 3]]).status() == "UNAVAILABLE"
    for model in (server.model, other):
        model.gate.set()
    assert server.executor.stop(WAIT_S)
    assert [reply.status() for reply in replies] == ["OK", "OK"]
    server.executor.close()
    assert (server.model.closed, other.closed) == (True, True)


def refusing(inputs: Sequence[Array]) -> Sequence[Array]:
    """Double, and refuse a bad value."""
    if (inputs[0] == BAD).any():
        raise InputRefused("bad")
    return double(inputs)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.sampled_from([1, 2, 3, BAD]), min_size=1, max_size=14), min_size=1, max_size=10))
def test_parts_of_large_requests_that_run_at_once_are_put_together_in_order(requests: list[list[int]]) -> None:
    """Whoever is at fault, everyone is answered once, and right."""
    second = FakeModel()
    with InProcessServer(max_batch_rows=4, queue_rows=1000, others=[second]) as server:
        server.model.compute = second.compute = refusing
        replies = [server.ask([[n, place] for place, n in enumerate(each)]) for each in requests]
        for each, reply in zip(requests, replies, strict=True):
            if BAD in each or len(each) > BAD:  # places are numbers too
                assert reply.status() == "INVALID_ARGUMENT"
            else:
                assert reply.output("double").tolist() == [[2 * n, 2 * place] for place, n in enumerate(each)]
        assert all(len(reply.answers) == 1 for reply in replies)


def test_two_parts_of_a_request_run_at_the_same_time_and_the_later_may_end_first(other: FakeModel) -> None:
    """The answer has its rows in their order nevertheless."""
    ended = threading.Event()

    def wait_for_the_other(inputs: Sequence[Array]) -> Sequence[Array]:
        if inputs[0][0, 0] == 0:
            assert ended.wait(WAIT_S)
        else:
            ended.set()
        return double(inputs)

    with InProcessServer(max_batch_rows=2, others=[other]) as server:
        server.model.compute = other.compute = wait_for_the_other
        x = np.arange(8).reshape(4, 2)
        assert server.ask(x).output("double").tolist() == (2 * x).tolist()
