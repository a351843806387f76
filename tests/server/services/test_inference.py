"""Calls in, answers out, through the real line and executor around a fake model."""

import threading
from collections.abc import Sequence
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from horngate_server.core.errors import ModelFailed, ModelNotFound, NotReady
from horngate_server.core.methods import INFER as METHOD
from horngate_server.core.model import Array
from horngate_server.core.request_context import RequestContext
from horngate_server.core.rpc import Call
from horngate_server.engine.routing import Models
from horngate_server.engine.validation import alike
from horngate_server.telemetry.request_record import RequestRecord
from support.in_process import SIGNATURE, WAIT_S, Clock, FakeReply, InProcessServer, double, request

INFER = {"model": "m", "protocol": "open_inference"}


@pytest.mark.slow
@settings(max_examples=40)
@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=20), batch=st.integers(1, 9))
def test_scores_come_back_in_request_order(sizes: list[int], batch: int) -> None:
    """Whatever the sizes of requests and batches, every caller gets its own rows, in its own order."""
    rng = np.random.default_rng(sum(sizes))
    with InProcessServer(max_batch_rows=batch, queue_rows=10_000) as server:
        sent = [rng.integers(-1000, 1000, (rows, 2)) for rows in sizes]
        replies = [server.ask(x) for x in sent]
        for x, reply in zip(sent, replies, strict=True):
            assert (reply.output("double") == x * 2).all()
            assert (reply.output("total") == x.sum(axis=1)).all()


def test_cancelled_caller_does_not_disturb_its_neighbours() -> None:
    """One caller cancels while its batch is computed; those before and after it get their answers."""
    with InProcessServer() as server:
        server.hold()
        first, middle, last = (server.ask([[n, n]]) for n in (1, 2, 3))

        def leave(inputs: Sequence[Array]) -> list[Array]:
            middle.gone = True
            return double(inputs)

        server.model.compute = leave
        server.model.gate.set()
        assert first.output("double").tolist() == [[2, 2]]
        assert last.output("double").tolist() == [[6, 6]]
        assert middle.status() == "CANCELLED"


def test_malformed_image_fails_only_its_own_request() -> None:
    """A request whose bytes do not fill its shape is refused alone; those around it are answered."""
    with InProcessServer() as server:
        server.hold()
        good = server.ask([[1, 2]])
        broken = request({"x": np.zeros((1, 2), np.int32)})
        broken.raw_input_contents[0] = b"\0" * 7
        bad = server.send(broken.SerializeToString())
        also_good = server.ask([[3, 4]])
        server.model.gate.set()
        assert bad.message() == "input 'x' has 7 bytes; expected 8 for the shape [1, 2] of INT32"
        assert good.output("double").tolist() == [[2, 4]]
        assert also_good.output("double").tolist() == [[6, 8]]


def test_model_failure_answers_every_caller_and_the_loop_survives() -> None:
    """Everyone in a failed batch gets INTERNAL with the reason; the next batch is computed as ever."""

    def fail(_: object) -> list[np.ndarray]:
        raise ModelFailed("out of memory")

    with InProcessServer() as server:
        held = server.hold()
        replies = [server.ask([[n, n]]) for n in range(3)]
        server.model.compute = fail
        server.model.gate.set()
        assert [reply.message() for reply in [held, *replies]] == ["out of memory"] * 4
        server.model.compute = double
        assert server.ask([[5, 5]]).output("double").tolist() == [[10, 10]]


def test_an_unforeseen_exception_in_the_model_answers_everyone_and_says_that_it_is_a_bug() -> None:
    """Even an exception that no one expected reaches every caller, as our fault."""
    with InProcessServer() as server:
        server.model.compute = lambda inputs: [inputs[5]]
        assert server.ask([[1, 1]]).message() == "IndexError: list index out of range. This is a bug."
        server.model.compute = double
        assert server.ask([[1, 1]]).status() == "OK"


def test_a_failed_batch_ends_a_split_request_once_and_frees_its_rows() -> None:
    """When one part of a large request fails, it is answered once and what is left of it is not computed."""

    def fail(_: object) -> list[np.ndarray]:
        raise ModelFailed("no kernel")

    with InProcessServer(max_batch_rows=4) as server:
        server.hold()
        bulk = server.ask(np.zeros((20, 2)))
        server.model.compute = fail
        server.model.gate.set()
        assert bulk.status() == "INTERNAL"
        server.model.compute = double
        assert server.ask([[1, 1]]).status() == "OK"
        assert len(bulk.answers) == 1
        assert server.executor.queue_rows == {"interactive": 0, "bulk": 0}


def test_full_queue_refuses_without_waiting() -> None:
    """A request beyond the queue's capacity is answered RESOURCE_EXHAUSTED inside the call that brings it."""
    with InProcessServer(queue_rows=8) as server:
        server.hold()
        fits = server.ask(np.zeros((8, 2)))
        refused = server.ask([[1, 1]])
        assert refused.answered
        assert refused.status() == "RESOURCE_EXHAUSTED"
        trailers = dict(refused.answers[0].trailers)  # type: ignore[union-attr]
        assert int(trailers["grpc-retry-pushback-ms"]) >= 1
        assert not fits.answered
        server.model.gate.set()
        assert fits.status() == "OK"
    assert server.sample("horngate_requests_in_flight") == 0
    assert server.sample("horngate_request_seconds_count", INFER) == 2, "the one that is held, and the one that fits"


def test_a_request_larger_than_the_queue_is_refused_for_good() -> None:
    """What can never fit is the caller's mistake, not a reason to retry."""
    with InProcessServer(queue_rows=8) as server:
        assert server.ask(np.zeros((9, 2))).status() == "INVALID_ARGUMENT"


def test_abandoned_requests_are_never_computed() -> None:
    """Rows of callers that cancelled, or whose deadline passed, do not reach the model."""
    clock = Clock()
    with InProcessServer(clock=clock) as server:
        server.hold()
        gone, late, good = server.ask([[1, 1]]), server.ask([[2, 2]], deadline=clock.now + 1), server.ask([[3, 3]])
        gone.gone = True
        clock.now += 1
        server.model.gate.set()
        assert good.status() == "OK"
        assert (gone.status(), late.status()) == ("CANCELLED", "DEADLINE_EXCEEDED")
        assert server.model.ran[-1].tolist() == [[3, 3]]


def test_what_is_told_of_a_request_is_its_own_time() -> None:
    """One that was dropped was never computed; one in two batches was, from its first to its second."""
    clock, told = Clock(), list[RequestRecord]()
    origin = RequestContext("someone", "", "", "", traced=True, logged=True)
    with InProcessServer(clock=clock, max_batch_rows=4, observers=[told.append]) as server:
        started = clock.now
        server.hold()

        def send(rows: int, deadline: float = inf) -> FakeReply:
            message = request({"x": np.zeros((rows, 2), np.int32)}).SerializeToString()
            return server.send(message, deadline=deadline, origin=origin)

        def slow(inputs: Sequence[Array]) -> list[Array]:
            clock.now += 1
            return double(inputs)

        late, large, small = send(1, deadline=clock.now + 1), send(6), send(1)
        clock.now += 2
        server.model.compute = slow
        server.model.gate.set()
        assert [reply.status() for reply in (large, small, late)] == ["OK", "OK", "DEADLINE_EXCEEDED"]
    by_rows = {(each.rows, each.code): each for each in told}
    assert len(told) == 3
    assert by_rows[1, "DEADLINE_EXCEEDED"].began == by_rows[1, "DEADLINE_EXCEEDED"].computed == inf
    first = min(by_rows[6, "OK"].began, by_rows[1, "OK"].began)
    assert first == started + 3  # the one that held the model up took a second too
    assert by_rows[6, "OK"].computed - by_rows[6, "OK"].began > 1 >= by_rows[1, "OK"].computed - by_rows[1, "OK"].began
    assert {each.origin.client for each in told} == {"someone"}


def test_a_deadline_that_passes_during_the_computation_is_answered_as_such() -> None:
    """An answer that comes too late is not sent as if it were in time."""
    clock = Clock()
    with InProcessServer(clock=clock) as server:
        server.model.gate.clear()
        late = server.ask([[2, 2]], deadline=clock.now + 1)
        assert server.model.began.acquire(timeout=WAIT_S)
        clock.now += 1
        server.model.gate.set()
        assert late.status() == "DEADLINE_EXCEEDED"


def test_a_deadline_that_cannot_be_met_is_refused_before_it_queues() -> None:
    """With the measured cost of a row and the rows that wait, a hopeless deadline is refused at once."""
    clock = Clock()
    with InProcessServer(clock=clock) as server:
        kind = alike(SIGNATURE, ((2,),), whole=False)
        server.executor.costs.measured(kind, 8, 8.0, clock.now)
        server.hold()
        server.ask(np.zeros((8, 2)))
        hopeless = server.ask([[1, 1]], deadline=clock.now + 7.9)
        hopeful = server.ask([[1, 1]], deadline=clock.now + 8.1)
        assert hopeless.answered
        assert hopeless.message().startswith("cannot be met: 8 rows wait, which takes 8.000 s")
        assert not hopeful.answered


def test_drain_answers_everything_admitted() -> None:
    """Stopping computes what waits, refuses what comes, and only then ends."""
    server = InProcessServer(max_batch_rows=2)
    server.executor.start()
    server.hold()
    admitted = [server.ask(np.full((rows, 2), rows)) for rows in (1, 5, 2)]
    stopping = threading.Thread(target=lambda: server.executor.stop(WAIT_S))
    stopping.start()
    while not (refused := server.ask([[0, 0]])).answered:
        pass
    assert refused.status() == "UNAVAILABLE"
    server.model.gate.set()
    stopping.join(WAIT_S)
    assert [reply.output("double")[0, 0] for reply in admitted] == [2, 10, 4]


def test_a_grace_period_that_ends_answers_those_who_still_wait() -> None:
    """Nobody is left without an answer, even when the model does not come back in time."""
    server = InProcessServer()
    server.executor.start()
    server.hold()
    waiting = server.ask([[1, 1]])
    assert not server.executor.stop(0.0)
    assert waiting.status() == "UNAVAILABLE"
    server.model.gate.set()


def test_every_request_is_counted_exactly_once() -> None:
    """Good, malformed, refused, cancelled, expired and failed requests: each adds one to one counter, once."""
    clock = Clock()
    with InProcessServer(queue_rows=8, clock=clock) as server:
        held = server.hold()
        good = server.ask([[1, 1]])
        gone, late = server.ask([[2, 2]]), server.ask([[3, 3]], deadline=clock.now + 1)
        full = server.ask(np.zeros((6, 2)))
        malformed, unknown = server.send(b"\xff"), server.ask([[1, 1]], model="nobody")
        wrong = server.ask([[1, 1, 1]])
        assert server.sample("horngate_requests_in_flight") == 4
        gone.gone = True
        clock.now += 1
        server.model.gate.set()
        replies = [held, good, gone, late, full, malformed, unknown, wrong]
        ends = [reply.status() for reply in replies]
    assert all(len(reply.answers) == 1 for reply in replies)
    for code in set(ends):
        counted = sum(
            server.sample("horngate_requests_total", {**INFER, "model": model, "code": code})
            for model in ("m", "unknown")
        )
        assert counted == ends.count(code), code
    assert server.sample("horngate_requests_in_flight") == 0
    assert server.sample("horngate_rows_total", {"model": "m", "version": "3"}) == 2


@pytest.mark.slow
@pytest.mark.parametrize("quick_s", [pytest.param(0.0, id="own-thread"), pytest.param(inf, id="callers-threads")])
def test_two_thousand_callers_of_every_kind_each_get_their_own_right_answer(quick_s: float) -> None:
    """Good, bulk, malformed, cancelled and expired callers from eight threads: no answer is lost or swapped."""
    with InProcessServer(max_batch_rows=64, queue_rows=1_000_000, quick_s=quick_s) as server:
        ended: list[tuple[str, np.ndarray, FakeReply]] = []

        def caller(seed: int) -> None:
            rng = np.random.default_rng(seed)
            for _ in range(250):
                kind = str(rng.choice(["good", "bulk", "malformed", "gone", "expired"]))
                x = rng.integers(-1000, 1000, (200 if kind == "bulk" else int(rng.integers(1, 9)), 2)).astype(np.int32)
                message = request({"x": x})
                if kind == "malformed":
                    message.inputs[0].shape[0] += 1
                reply = FakeReply(gone=kind == "gone")
                deadline = server.clock() - 1 if kind == "expired" else inf
                server.service.accept(
                    [
                        Call(
                            "/inference.GRPCInferenceService/ModelInfer",
                            message.SerializeToString(),
                            deadline,
                            reply,
                        )
                    ]
                )
                ended.append((kind, x, reply))

        threads = [threading.Thread(target=caller, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        expected = {"malformed": "INVALID_ARGUMENT", "gone": "CANCELLED", "expired": "DEADLINE_EXCEEDED"}
        for kind, x, reply in ended:
            assert reply.status() == expected.get(kind, "OK"), kind
            if kind not in expected:
                assert (reply.output("double") == x * 2).all()
    assert len(ended) == 2000
    assert all(len(reply.answers) == 1 for _, _, reply in ended)
    codes = {reply.status() for _, _, reply in ended}
    assert sum(server.sample("horngate_requests_total", {**INFER, "code": code}) for code in codes) == 2000
    assert server.sample("horngate_requests_in_flight") == 0


def test_a_dead_executor_answers_everyone_and_tells_the_application() -> None:
    """Should the loop itself break, nobody waits for ever and the process learns that it cannot serve."""
    with InProcessServer() as server:
        server.hold()
        waiting = server.ask([[1, 1]])
        finish, first = server.service.finish, threading.Event()

        def break_once(info: object, outcomes: object, report: object) -> None:
            if not first.is_set():
                first.set()
                raise RuntimeError("broken")
            finish(info, outcomes, report)  # type: ignore[arg-type]

        server.executor._finish = break_once
        server.model.gate.set()
        assert waiting.status() == "INTERNAL"
        assert server.ask([[1, 1]]).status() == "UNAVAILABLE"
    assert [str(error) for error in server.died] == ["broken"]


def test_timings_are_answered_when_they_are_asked_for() -> None:
    """The parameter horngate_timing brings queue and compute microseconds; without it there are none."""
    with InProcessServer() as server:
        message = request({"x": np.zeros((1, 2), np.int32)})
        assert not server.send(message.SerializeToString()).response().parameters
        message.parameters["horngate_timing"].bool_param = True
        parameters = server.send(message.SerializeToString()).response().parameters
    assert {name: value.WhichOneof("parameter_choice") for name, value in parameters.items()} == {
        "horngate_queue_us": "int64_param",
        "horngate_compute_us": "int64_param",
    }


def test_a_model_that_is_on_its_way_is_unavailable_rather_than_unknown() -> None:
    """Callers may retry a model that is loading, and must not retry one that does not exist."""
    server = InProcessServer()
    server.models.expect({"soon": ""})
    assert server.ask([[1, 1]], model="soon").status() == "UNAVAILABLE"
    assert server.ask([[1, 1]], model="never").status() == "NOT_FOUND"
    assert server.ask([[1, 1]], model_version="4").status() == "NOT_FOUND"


def test_a_call_that_cannot_be_answered_later_takes_none_of_its_turn_along() -> None:
    """Whatever its handler raises, it is answered, once, and those that came with it are computed."""

    def fail(_message: bytes, _done: object) -> None:
        raise ValueError("embedded null byte")

    with InProcessServer() as server:
        server.service.add(deferred={"/s/Later": fail})
        later, infer = FakeReply(), FakeReply()
        message = request({"x": np.ones((1, 2), np.int32)}).SerializeToString()
        server.service.accept([Call("/s/Later", b"", inf, later), Call(METHOD, message, inf, infer)])
        assert later.message() == "ValueError: embedded null byte. This is a bug."
        assert infer.status() == "OK"


def test_while_a_server_starts_no_model_is_unknown() -> None:
    """Until it has looked which models there are, callers may come again; from then on it knows."""
    models = Models(starting=True)
    with pytest.raises(NotReady, match="does not know yet whether it has a model 'm'"):
        models.get("m")
    models.expect({"other": ""})
    with pytest.raises(ModelNotFound):
        models.get("m")


def test_a_quick_batch_is_answered_before_its_submission_returns() -> None:
    """Once a size is known to be over soon, the thread that brings the rows computes them: no other has to wake."""
    with InProcessServer(quick_s=inf) as server:
        assert server.ask([[1, 2]]).status() == "OK"  # nothing is known yet: the executor's thread
        threads: list[str] = []

        def compute(inputs: Sequence[Array]) -> list[Array]:
            threads.append(threading.current_thread().name)
            return double(inputs)

        server.model.compute = compute
        assert server.ask([[3, 4]]).answered
    assert threads == [threading.current_thread().name]


def test_what_arrives_during_a_quick_batch_is_computed_after_it() -> None:
    """A second caller who comes while the first one's thread computes is answered without a third."""
    with InProcessServer(quick_s=inf) as server:
        server.ask([[0, 0]]).response()
        server.model.began.acquire()
        server.model.gate.clear()
        first: list[FakeReply] = []
        thread = threading.Thread(target=lambda: first.append(server.ask([[1, 1]])))
        thread.start()
        assert server.model.began.acquire(timeout=WAIT_S)
        second = server.ask([[2, 2]])
        assert not second.answered
        server.model.gate.set()
        assert second.output("double").tolist() == [[4, 4]]
        thread.join()
        assert first[0].output("double").tolist() == [[2, 2]]


def test_a_model_that_is_not_padded_gets_just_the_rows() -> None:
    """Where no shape has to be compiled, a batch has the rows that were asked for."""
    with InProcessServer(pad=False) as server:
        server.ask(np.ones((3, 2))).response()
        assert len(server.model.ran[0]) == 3


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_batches_are_padded_with_their_first_row_to_the_ladder(rows: int) -> None:
    """The model computes powers of two; the rows that nobody asked for are such as it takes, and go to nobody."""
    asked = np.arange(rows * 2).reshape(rows, 2) + 1
    with InProcessServer(max_batch_rows=8) as server:
        assert server.ask(asked).output("double").tolist() == (asked * 2).tolist()
        ran = server.model.ran[0]
    assert len(ran) == {1: 1, 3: 4, 8: 8}[rows]
    assert all(row.tolist() == [1, 2] for row in ran[rows:])
