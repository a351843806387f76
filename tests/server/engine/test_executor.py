"""When an executor takes a batch: at once, when it is full, or when the delay is over."""

import threading
from math import inf

from support.in_process import Clock, FakeModel, InProcessServer

DELAY_S = 5.0


class Waits:
    """The executor's condition, whose waits end when the test says so: it tells for how long each would have been."""

    def __init__(self, server: InProcessServer) -> None:
        self.timeouts: list[float | None] = []
        self._lock = threading.Lock()
        self._server = server

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def notify(self) -> None:
        """Nobody waits in another thread."""

    def wait(self, timeout: float | None) -> None:
        """Let the time pass that was asked for."""
        self.timeouts.append(timeout)
        clock = self._server.clock
        assert isinstance(clock, Clock)
        assert timeout is not None, "nothing is due: it would wait for ever"
        clock.now += timeout


def waiting(*, quick_s: float = 0.0, may_compute: bool = True) -> tuple[InProcessServer, Waits, Clock]:
    """Return a server with a delay and four rows to a batch, whose executor the test itself drives."""
    clock = Clock()
    server = InProcessServer(
        FakeModel(), max_batch_rows=4, delay_s=DELAY_S, clock=clock, quick_s=quick_s, may_compute=may_compute
    )
    waits = Waits(server)
    server.executor._changed = waits  # type: ignore[assignment]
    return server, waits, clock


def test_a_batch_that_is_not_full_is_taken_when_the_delay_is_over() -> None:
    """One row that came two seconds ago waits for the three that are left of five, and no longer."""
    server, waits, clock = waiting()
    reply = server.ask([[1, 1]])
    clock.now += 2.0
    assert server.executor._step()
    assert waits.timeouts == [3.0]
    assert reply.status() == "OK"


def test_a_full_batch_does_not_wait_for_the_delay() -> None:
    """Four rows are taken at once, in one run."""
    server, waits, _ = waiting()
    replies = [server.ask([[n, n]]) for n in range(4)]
    assert server.executor._step()
    assert waits.timeouts == []
    assert [reply.status() for reply in replies] == ["OK"] * 4
    assert [len(array) for array in server.model.ran] == [4]


def test_whoever_may_not_compute_leaves_everything_in_line() -> None:
    """A full batch of a quick model waits for the executor's thread; what comes meanwhile is the next batch."""
    server, _, _ = waiting(quick_s=inf, may_compute=False)
    replies = [server.ask([[n, n]]) for n in range(6)]
    assert not any(reply.answered for reply in replies)
    assert server.executor._step()
    assert [len(array) for array in server.model.ran] == [4]
    assert [reply.answered for reply in replies] == [True] * 4 + [False] * 2


def test_whoever_submits_computes_at_once_only_what_is_due() -> None:
    """However quick the model, a submitter leaves a row in line until its batch is full."""
    server, _, _ = waiting(quick_s=inf)
    replies = [server.ask([[n, n]]) for n in range(3)]
    assert not any(reply.answered for reply in replies)
    replies.append(server.ask([[3, 3]]))
    assert all(reply.answered for reply in replies)
    assert [len(array) for array in server.model.ran] == [4]
