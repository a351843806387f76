"""When a request is tried again: pure, on a clock that the test owns."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from horngate_client.budget import Bucket, RetryBudget
from horngate_client.calls import Call
from horngate_client.errors import (
    CallError,
    ConfigurationError,
    DeadlineExceeded,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    ServerFault,
    Unauthenticated,
    Unavailable,
)
from horngate_client.job import Job, Send, Span, Wait
from horngate_client.pool import Pool
from horngate_client.retry import RetryPolicy, pushback_seconds


def delay(error: CallError, **changes: Any) -> float | None:
    """Ask the default policy."""
    facts: dict[str, Any] = {"attempt": 1, "remaining": 10.0, "other_address": False, "random": lambda: 1.0}
    return RetryPolicy().delay(error, **facts | changes)


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("x", code="INVALID_ARGUMENT"),
        ModelNotFound("x", code="NOT_FOUND"),
        Unauthenticated("x", code="UNAUTHENTICATED"),
        DeadlineExceeded("x", code="DEADLINE_EXCEEDED"),
        ServerFault("x", code="UNKNOWN"),
    ],
    ids=lambda error: error.code,
)
def test_what_time_does_not_cure_is_never_retried(error: CallError) -> None:
    """Not even where the server says when."""
    assert delay(error) is None
    error.pushback = 0.1
    assert delay(error) is None


def test_internal_is_retried_once() -> None:
    """A second failure of the model is its answer."""
    error = ServerFault("x", code="INTERNAL")
    assert delay(error) == pytest.approx(0.1)
    assert delay(error, attempt=2) is None


@pytest.mark.parametrize("error", [Overloaded("x"), Unavailable("x")], ids=["overloaded", "unavailable"])
def test_waits_double_up_to_a_bound_and_half_of_them_is_random(error: CallError) -> None:
    """Many clients do not return together."""
    policy = RetryPolicy(attempts=9)
    for random, scale in ((0.0, 0.5), (1.0, 1.0)):
        waits = [
            policy.delay(error, attempt=n, remaining=99, other_address=False, random=iter([random]).__next__)
            for n in range(1, 8)
        ]
        assert waits == pytest.approx([scale * wait for wait in (0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0)])


def test_attempts_are_bounded_where_that_is_asked_for() -> None:
    """The first counts too; otherwise only time ends them."""
    assert delay(Unavailable("x"), attempt=400) is not None
    facts: Any = {"remaining": 10.0, "other_address": False, "random": lambda: 1.0}
    assert RetryPolicy(attempts=5).delay(Unavailable("x"), attempt=4, **facts) is not None
    assert RetryPolicy(attempts=5).delay(Unavailable("x"), attempt=5, **facts) is None


def test_what_must_not_happen_twice_is_only_sent_again_if_it_never_was_sent() -> None:
    """An admin call may have been carried out by a server whose answer is lost."""
    error = Unavailable("x")
    assert delay(error, idempotent=False) is None
    error.unsent = True
    assert delay(error, idempotent=False) is not None


def test_a_used_up_share_is_tried_again_elsewhere_only() -> None:
    """At the same address it would be no better."""
    error = DeadlineExceeded("x", code="DEADLINE_EXCEEDED")
    error.share_only = True
    assert delay(error, other_address=True) == 0
    assert delay(error, other_address=False) is None


def test_pushback_is_honoured_exactly() -> None:
    """The server's word stands above our own backoff and above another address."""
    assert delay(Overloaded("x", pushback=1.5)) == 1.5
    assert delay(Unavailable("x", pushback=0.25), other_address=True) == 0.25
    assert delay(Overloaded("x", pushback=-1.0)) is None


def test_another_address_is_tried_at_once_when_one_is_unavailable() -> None:
    """A dead server costs its neighbours' callers no wait; an overloaded one does."""
    assert delay(Unavailable("x"), other_address=True) == 0
    assert delay(Overloaded("x"), other_address=True) == pytest.approx(0.1)


@given(
    attempt=st.integers(1, 10),
    remaining=st.floats(-5, 5),
    random=st.floats(0, 1, exclude_max=True),
    pushback=st.none() | st.floats(-1, 20),
    other=st.booleans(),
)
def test_never_sleeps_past_the_deadline(
    attempt: int, remaining: float, random: float, pushback: float | None, other: bool
) -> None:
    """Whatever happens, a wait ends before the time is up, or is not begun."""
    error = Unavailable("x", pushback=pushback)
    wait = RetryPolicy(attempts=20).delay(
        error, attempt=attempt, remaining=remaining, other_address=other, random=lambda: random
    )
    assert wait is None or 0 <= wait < remaining


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(None, None), ("0", 0.0), ("1500", 1.5), (b"20", 0.02), ("-1", -1.0), ("soon", -1.0), ("", -1.0)],
)
def test_pushback_is_read_and_what_cannot_be_read_means_no(text: Any, seconds: float | None) -> None:
    """As gRPC's retry design has it."""
    assert pushback_seconds(text) == seconds


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"initial_seconds": -1}, {"multiplier": 0.5}, {"share": 0}])
def test_a_policy_that_cannot_work_is_refused(wrong: dict[str, Any]) -> None:
    """At construction."""
    with pytest.raises(ConfigurationError):
        RetryPolicy(**wrong)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def job(parts: int, clock: Clock, *, window: int = 2, addresses: int = 1, **changes: Any) -> Job[list[str]]:
    """Make a call of several requests."""
    facts: dict[str, Any] = {
        "policy": RetryPolicy(),
        "span": Span(clock.now, clock.now + 10),
        "window": window,
        "pool": Pool([f"a{n}" for n in range(addresses)], clock=clock, random=lambda: 0.0),
        "bucket": Bucket(RetryBudget(), clock.now),
        "clock": clock,
        "random": lambda: 1.0,
    }
    call = Call("M", parts, lambda p: b"%d" % p, lambda p, b: f"{p}{b.decode()}", lambda answers, _: list(answers))
    return Job(call, **facts | changes)


def sent(work: Job[Any]) -> Send:
    """Take the next step, which sends."""
    step = work.next()
    assert isinstance(step, Send)
    return step


def test_a_job_keeps_its_window_and_joins_in_order() -> None:
    """Two in flight, answered out of order, joined in order."""
    work = job(3, Clock())
    first, second = work.next(), work.next()
    assert isinstance(first, Send)
    assert isinstance(second, Send)
    assert work.next() == Wait(None)
    work.answered(1, b"b")
    third = work.next()
    assert isinstance(third, Send)
    work.answered(2, b"c")
    work.answered(0, b"a")
    assert work.next() is None
    assert work.result() == ["0a", "1b", "2c"]


def test_a_request_that_waits_for_its_retry_keeps_its_place_in_the_window() -> None:
    """An overloaded server sees less of us, not more."""
    clock = Clock()
    work = job(3, clock, window=1)
    work.next()
    work.failed(0, Overloaded("x", pushback=2.0))
    assert work.next() == Wait(2.0)
    clock.now += 2
    again = work.next()
    assert isinstance(again, Send)
    assert (again.part, again.timeout) == (0, 8.0)


def test_a_retry_goes_to_the_next_address() -> None:
    """And the requests of a call go round."""
    work = job(2, Clock(), addresses=3)
    sends = [work.next(), work.next()]
    work.failed(0, Unavailable("x"))
    sends.append(work.next())
    assert [(s.part, s.address) for s in sends if isinstance(s, Send)] == [(0, "a0"), (1, "a1"), (0, "a2")]


def test_a_failure_that_ends_the_call_says_how_often_it_was_tried() -> None:
    """And when the time is up, nothing more is sent."""
    clock = Clock()
    work = job(1, clock)
    work.next()
    work.failed(0, Unavailable("gone"))
    clock.now += 0.5
    work.next()
    with pytest.raises(Unavailable, match=r"gone \(tried 2 times in 0.5 s, at a0\)"):
        work.failed(0, Unavailable("gone", pushback=60.0))
    late = job(1, clock)
    clock.now += 11
    with pytest.raises(DeadlineExceeded, match="time was up"):
        late.next()


def test_an_attempt_gets_a_share_of_the_time_where_another_address_is_left() -> None:
    """Two hang: a third of ten seconds, a third of the rest, and all that remains for the last address."""
    clock = Clock()
    work = job(1, clock, addresses=3)
    for timeout in (10 / 3, 20 / 9):
        step = sent(work)
        assert step.shared
        assert step.timeout == pytest.approx(timeout)
        clock.now += step.timeout
        work.failed(0, DeadlineExceeded("slow", code="DEADLINE_EXCEEDED"))
    assert sent(work).timeout == pytest.approx(40 / 9)
    clock.now += 40 / 9
    with pytest.raises(DeadlineExceeded, match=r"tried 3 times in 10.0 s, at a0, a\d, a\d\)") as caught:
        work.failed(0, DeadlineExceeded("slow", code="DEADLINE_EXCEEDED"))
    assert set(caught.value.tried) == {"a0", "a1", "a2"}


def test_one_address_gets_all_the_time_and_so_does_a_call_that_must_not_happen_twice() -> None:
    """A share would only take away from them."""
    clock = Clock()
    assert sent(job(1, clock)).timeout == 10
    promote = Call("M", 1, lambda _: b"", lambda _, b: b, lambda answers, _: list(answers), idempotent=False)
    facts = {"policy": RetryPolicy(), "span": Span(clock.now, clock.now + 10), "window": 1, "clock": clock}
    pool = Pool(["a", "b"], clock=clock, random=lambda: 0.0)
    bucket = Bucket(RetryBudget(), clock.now)
    assert sent(Job(promote, pool=pool, bucket=bucket, random=lambda: 1.0, **facts)).timeout == 10  # type: ignore[arg-type] # facts


def test_retries_last_as_long_as_the_time_and_an_outage_sees_few_of_them() -> None:
    """Three hundred calls in thirty seconds against a server that refuses: 1.2 attempts a call at most."""
    clock = Clock()
    bucket = Bucket(RetryBudget(), clock.now)
    running: list[Job[list[str]]] = []
    attempts = ended = 0
    longest = 0.0
    for tick in range(450):
        clock.now += 0.1
        if tick < 300:
            running.append(job(1, clock, bucket=bucket))
        for work in list(running):
            try:
                while isinstance(work.next(), Send):
                    attempts += 1
                    work.failed(0, Unavailable("loading", code="UNAVAILABLE"))
            except Unavailable as error:
                running.remove(work)
                ended, longest = ended + 1, max(longest, error.seconds)
    assert ended == 300
    assert attempts / 300 < 1.2
    assert longest > 7


def test_a_connection_that_could_not_be_made_costs_no_budget() -> None:
    """No server was burdened; the retry after it is free."""
    clock = Clock()
    work = job(1, clock, bucket=Bucket(RetryBudget(ratio=0, per_second=0, burst=1), clock.now))
    for _ in range(4):
        sent(work)
        error = Unavailable("nobody there", code="UNAVAILABLE")
        error.unsent = True
        work.failed(0, error)
        clock.now += 1


def test_a_retry_that_is_answered_gives_its_token_back() -> None:
    """Recovery is not held up by what the outage cost."""
    clock = Clock()
    bucket = Bucket(RetryBudget(ratio=0, per_second=0, burst=1), clock.now)
    for _ in range(3):
        work = job(1, clock, bucket=bucket)
        sent(work)
        work.failed(0, Unavailable("x"))
        clock.now += 1
        sent(work)
        assert bucket.empty
        work.answered(0, b"a")
        assert not bucket.empty
