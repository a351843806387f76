"""Batches that fail are tried apart, and requests that cannot share a run have their own."""

import gc
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from horngate_protos.datatypes import BY_NAME
from horngate_server.core.errors import InputRefused, ModelFailed, OutOfMemory
from horngate_server.core.model import Array
from horngate_server.core.signature import WHOLE, Batching, Signature, TensorSpec
from horngate_server.engine.validation import alike
from support.in_process import SIGNATURE, Clock, FakeModel, FakeReply, InProcessServer, double
from support.waiting import until

BAD = 13


def refusing(inputs: Sequence[Array]) -> Sequence[Array]:
    """Double, and refuse every batch with a bad value in it."""
    if (inputs[0] == BAD).any():
        raise InputRefused(f"{BAD} is not in [0, 10)")
    return double(inputs)


def filtering(inputs: Sequence[Array]) -> Sequence[Array]:
    """Double, and leave out the rows that begin with a negative number."""
    return double([inputs[0][inputs[0].astype(np.int32)[:, 0] >= 0]])


def ran_rows(server: InProcessServer) -> list[int]:
    """The rows of each run after the first, which held the model."""
    return [len(array) for array in server.model.ran[1:]]


def together(
    server: InProcessServer, requests: Sequence[object], compute: Callable[..., Sequence[Array]]
) -> list[FakeReply]:
    """Let requests meet in one batch."""
    server.hold()
    replies = [server.ask(x) for x in requests]
    server.model.compute = compute
    server.model.gate.set()
    return replies


def test_a_bad_value_fails_its_own_request_and_no_neighbours() -> None:
    """The batch is tried in halves until the one at fault is alone: it gets the model's words, the others answers."""
    with InProcessServer() as server:
        replies = together(server, [[[n, n]] for n in (1, 2, BAD, 4)], refusing)
        assert [reply.status() for reply in replies] == ["OK", "OK", "INVALID_ARGUMENT", "OK"]
        assert replies[2].message() == "13 is not in [0, 10)"
        assert replies[3].output("double").tolist() == [[8, 8]]
        assert ran_rows(server) == [4, 2, 2, 1, 1]


@settings(max_examples=40)
@given(
    requests=st.lists(st.lists(st.sampled_from([1, 2, 3, BAD]), min_size=1, max_size=12), min_size=1, max_size=10),
    batch=st.integers(1, 9),
)
def test_whoever_is_at_fault_everyone_is_answered_once_and_right(requests: list[list[int]], batch: int) -> None:
    """Requests with a bad value are refused, and all others get their own rows, also those larger than a batch."""
    with InProcessServer(max_batch_rows=batch, queue_rows=1000) as server:
        replies = together(server, [[[n, n] for n in each] for each in requests], refusing)
        for each, reply in zip(requests, replies, strict=True):
            if BAD in each:
                assert reply.status() == "INVALID_ARGUMENT"
            else:
                assert reply.output("double").tolist() == [[2 * n, 2 * n] for n in each]
        assert all(len(reply.answers) == 1 for reply in replies)


def test_who_gives_up_while_others_are_tried_apart_is_not_computed_again() -> None:
    """Before each part runs, those that nobody waits for any more are dropped."""
    with InProcessServer() as server:
        server.hold()
        bad, leaving = server.ask([[BAD, 0]]), server.ask([[2, 2]])

        def refuse_and_lose(inputs: Sequence[Array]) -> Sequence[Array]:
            leaving.gone = leaving.gone or len(inputs[0]) == 2
            return refusing(inputs)

        server.model.compute = refuse_and_lose
        server.model.gate.set()
        assert [bad.status(), leaving.status()] == ["INVALID_ARGUMENT", "CANCELLED"]
        assert ran_rows(server) == [2, 1]


def test_a_model_that_fails_on_one_request_fails_for_nobody_else() -> None:
    """INTERNAL is kept to the request that it is about, also where callers cannot mend it."""

    def failing(inputs: Sequence[Array]) -> Sequence[Array]:
        if (inputs[0] == BAD).any():
            raise ModelFailed("no kernel")
        return double(inputs)

    with InProcessServer() as server:
        replies = together(server, [[[1, 1]], [[BAD, 0]]], failing)
        assert [reply.status() for reply in replies] == ["OK", "INTERNAL"]


def test_a_model_that_remembers_is_not_run_twice_for_one_request() -> None:
    """Where a run changes what the model knows, a failed batch is not tried again."""
    signature = replace(SIGNATURE, writes=("AssignAddVariableOp",))
    with InProcessServer(FakeModel(signature)) as server:
        replies = together(server, [[[1, 1]], [[BAD, 0]]], refusing)
        assert [reply.status() for reply in replies] == ["INVALID_ARGUMENT"] * 2
        assert ran_rows(server) == [2]


def test_running_out_of_memory_makes_batches_smaller_and_loses_nobody() -> None:
    """The halves are tried, down to the rows of one request, and later batches begin with what fitted."""

    def small(inputs: Sequence[Array]) -> Sequence[Array]:
        if len(inputs[0]) > 2:
            raise OutOfMemory("no room for 8 bytes")
        return double(inputs)

    with InProcessServer(max_batch_rows=8, pad=False) as server:
        replies = together(server, [[[1, 1]], np.full((6, 2), 2), [[3, 3]]], small)
        assert replies[0].output("double").tolist() == [[2, 2]]
        assert replies[1].output("double").tolist() == [[4, 4]] * 6
        assert replies[2].output("double").tolist() == [[6, 6]]
        assert server.executor.max_batch_rows <= 3
        assert max(ran_rows(server)[-2:]) <= 2


def test_a_row_for_which_there_is_no_memory_is_refused_with_the_reason() -> None:
    """RESOURCE_EXHAUSTED, and not to be tried again as it is."""

    def never(_: Sequence[Array]) -> Sequence[Array]:
        raise OutOfMemory("no room for 8 bytes")

    with InProcessServer() as server:
        server.model.compute = never
        assert server.ask([[1, 1]]).status() == "RESOURCE_EXHAUSTED"


def test_rows_that_a_model_leaves_out_end_its_batching_and_nobody_gets_anothers() -> None:
    """It was taken to answer row by row, and did not: each request is computed alone, now and from then on."""
    with InProcessServer(pad=False) as server:
        replies = together(server, [[[1, 1]], [[-2, 2]], [[3, 3]]], filtering)
        assert [reply.output("double").tolist() for reply in replies] == [[[2, 2]], [], [[6, 6]]]
        assert ran_rows(server) == [3, 1, 1, 1]
        later = together(server, [[[4, 4], [-1, 0]], [[5, 5]]], filtering)
        assert [reply.output("double").tolist() for reply in later] == [[[8, 8]], [[10, 10]]]
        assert ran_rows(server)[-2:] == [2, 1]


def test_a_large_request_starts_over_whole_where_rows_turn_out_not_to_be_independent() -> None:
    """What was cut into slices before that was known is computed in one run."""
    with InProcessServer(max_batch_rows=4) as server:
        x = np.arange(20).reshape(10, 2) - 6
        (reply,) = together(server, [x], filtering)
        assert reply.output("double").tolist() == (2 * x[x[:, 0] >= 0]).tolist()
        assert len(reply.answers) == 1
        assert server.executor.queue_rows == {"interactive": 0, "bulk": 0}


WHOLE_SIGNATURE = Signature(
    "serving_default",
    (TensorSpec("x", BY_NAME["INT32"], (-1, 2)),),
    (TensorSpec("double", BY_NAME["INT64"], (-1, 2)), TensorSpec("total", BY_NAME["FP32"], ())),
)


def test_requests_of_a_whole_signature_have_runs_of_their_own() -> None:
    """They meet nobody in a batch, are never cut, and get their outputs as the model gave them."""

    def compute(inputs: Sequence[Array]) -> Sequence[Array]:
        return [inputs[0].astype(np.int64) * 2, np.array(inputs[0].astype(np.float32).sum())]

    with InProcessServer(FakeModel(WHOLE_SIGNATURE), batching=Batching(WHOLE, "asked for"), max_batch_rows=4) as server:
        server.model.compute = compute
        replies = together(server, [[[1, 1]], np.ones((9, 2)), [[3, 3]]], compute)
        assert [float(reply.output("total")) for reply in replies] == [2.0, 18.0, 6.0]
        assert replies[1].output("double").shape == (9, 2)
        assert ran_rows(server) == [1, 9, 1]


def test_outputs_without_rows_go_to_every_request_of_a_batch() -> None:
    """A constant that was proved to be one is answered whole, beside the rows of each."""
    anchors = np.arange(3, dtype=np.float32)

    def compute(inputs: Sequence[Array]) -> Sequence[Array]:
        return [double(inputs)[0], anchors]

    with InProcessServer(batching=Batching(shared=frozenset([1])), max_batch_rows=4) as server:
        server.model.compute = compute
        replies = together(server, [[[1, 1]], [[2, 2]], np.ones((6, 2))], compute)
        assert [reply.output("total").tolist() for reply in replies] == [[0.0, 1.0, 2.0]] * 3
        assert [len(reply.output("double")) for reply in replies] == [1, 1, 6]


def test_a_small_request_is_not_refused_for_what_a_large_one_took() -> None:
    """Estimates know the shape: with an empty line, only a recent run of its own size refuses a request."""
    clock = Clock()
    signature = replace(SIGNATURE, inputs=(TensorSpec("x", BY_NAME["INT32"], (-1, -1)),))
    with InProcessServer(FakeModel(signature), clock=clock) as server:
        server.executor.costs.measured(alike(signature, ((1200,),), whole=False), 1, 4.5, clock.now)
        assert server.ask([[1, 1]], deadline=clock.now + 2.7).status() == "OK"
        assert server.ask(np.ones((1, 1200)), deadline=clock.now + 2.7).status() == "DEADLINE_EXCEEDED"
        clock.now += 11
        assert server.ask(np.ones((1, 1200)), deadline=clock.now + 2.7).status() == "OK"


def test_a_line_of_failures_is_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """What callers can cause does not fill the log."""
    with InProcessServer(clock=Clock()) as server:
        server.model.compute = refusing
        for _ in range(50):
            assert server.ask([[BAD, 0]]).status() == "INVALID_ARGUMENT"
    assert len([each for each in caplog.records if "13 is not in" in each.getMessage()]) == 1


def test_a_model_with_loops_is_never_computed_where_calls_are_taken_in() -> None:
    """How long it takes may depend on the values: whoever brings the call does not wait for it."""
    signature = replace(SIGNATURE, loops=True)
    with InProcessServer(FakeModel(signature), quick_s=1000.0) as server:
        threads: list[str] = []

        def compute(inputs: Sequence[Array]) -> Sequence[Array]:
            threads.append(threading.current_thread().name)
            return double(inputs)

        server.model.compute = compute
        for _ in range(2):
            assert server.ask([[1, 1]]).status() == "OK"
        assert set(threads) == {"executor-m-3"}


@pytest.mark.parametrize("why", ["queue full", "too late", "misshapen", "unknown", "refused", "failed"])
def test_a_refused_request_is_let_go_without_waiting_for_the_garbage_collector(why: str) -> None:
    """No error keeps the frames that it came through, and with them what the caller sent."""

    def fail(_: Sequence[Array]) -> Sequence[Array]:
        raise {"refused": InputRefused, "failed": ModelFailed}[why]("no")

    clock = Clock()
    with InProcessServer(clock=clock, queue_rows=8) as server:
        held = server.hold() if why in {"queue full", "too late"} else None
        server.executor.costs.measured(alike(SIGNATURE, ((2,),), whole=False), 1, 9.0, clock.now)
        server.model.compute = fail
        gc.disable()
        try:
            reply = {
                "queue full": lambda: server.ask(np.zeros((9 if held else 1, 2))),
                "too late": lambda: server.ask([[1, 1]], deadline=clock.now + 1),
                "misshapen": lambda: server.ask([[1, 1, 1]]),
                "unknown": lambda: server.ask([[1, 1]], model="nobody"),
            }.get(why, lambda: server.ask([[1, 1]]))()
            assert reply.status() != "OK"
            gone = weakref.ref(reply)
            del reply
            until(lambda: gone() is None)
        finally:
            gc.enable()
