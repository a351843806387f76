"""What a supervisor makes of its workers' signs of life, and the first process of a container of its children."""

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from horngate_server.process import worker
from horngate_server.process.orphans import Orphans

WAIT_S = 20.0
NOTHING = None
"""What a look at the line finds where no sign of life came."""


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The supervisor's end and the worker's, which gives signs of life all the time."""
    monkeypatch.setattr(worker, "ALIVE_EVERY_S", 0.01)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(WAIT_S)
        yield ours, theirs


def said(*looks: bytes | None) -> Callable[[], bytes]:
    """Return what a supervisor listens to: each look finds what was said, or has waited in vain."""
    found = iter(looks)

    def listen() -> bytes:
        look = next(found)
        if look is NOTHING:
            raise TimeoutError
        return look

    return listen


ALIVE, READY, OVER = worker.ALIVE, worker.READY, b""


@pytest.mark.parametrize(
    ("looks", "hangs"),
    [
        pytest.param([NOTHING] * 60, True, id="never begins"),
        pytest.param([NOTHING] * 59 + [ALIVE, OVER], False, id="begins late"),
        pytest.param([ALIVE, *[NOTHING] * 59] * 9 + [OVER], False, id="loads libraries, again and again"),
        pytest.param([ALIVE] + [NOTHING] * 60, True, id="begins, and says nothing any more"),
        pytest.param([READY, *[NOTHING] * 9] * 9 + [OVER], False, id="serves, and is slow again and again"),
        pytest.param([READY] + [NOTHING] * 10, True, id="serves, and says nothing any more"),
        pytest.param([OVER], False, id="ends at once"),
    ],
)
def test_who_gives_no_sign_of_life_for_as_many_looks_hangs(looks: list[bytes | None], hangs: bool) -> None:
    """Ten seconds are ten looks: while everybody stands still, as in a container that is paused, nobody looks."""
    assert worker.hangs(said(*looks), 10.0, 60.0, lambda: None) is hangs


def test_who_may_hang_for_ever_is_waited_for() -> None:
    """Zero seconds are no bound, neither before it serves nor after that."""
    looks = (*[NOTHING] * 100, READY, *[NOTHING] * 100, OVER)
    assert not worker.hangs(said(*looks), 0.0, 60.0, lambda: None)


def test_that_a_worker_serves_is_heard_in_any_sign() -> None:
    """Several signs may come at once."""
    served: list[bool] = []
    assert not worker.hangs(said(ALIVE, ALIVE + READY, OVER), 10.0, 60.0, lambda: served.append(True))
    assert served == [True]


def test_a_worker_that_is_to_end_gives_signs_of_life_until_it_has(line: tuple[socket.socket, socket.socket]) -> None:
    """It says that it is alive, that it serves, hears that it is to end, and goes on as long as it drains."""
    ours, theirs = line
    told = threading.Event()
    mine = worker.SupervisorLink(theirs.detach(), told.set)
    assert ours.recv(1) == ALIVE
    mine.ready()
    until_said(ours, READY)
    assert not told.is_set()
    ours.shutdown(socket.SHUT_WR)
    assert told.wait(WAIT_S)
    ours.recv(1 << 16)  # what it said before
    until_said(ours, READY)


def test_a_worker_hears_of_its_supervisors_end(line: tuple[socket.socket, socket.socket]) -> None:
    """However it came."""
    ours, theirs = line
    told = threading.Event()
    worker.SupervisorLink(theirs.detach(), told.set)
    ours.close()
    assert told.wait(WAIT_S)


def test_a_supervisor_that_stands_still_ends_no_worker(line: tuple[socket.socket, socket.socket]) -> None:
    """Signs of life that nobody reads fill the line, and are given again once somebody does."""
    ours, theirs = line
    theirs.setblocking(False)
    with suppress(BlockingIOError):
        while theirs.send(b"x" * 1024):
            pass
    told = threading.Event()
    worker.SupervisorLink(theirs.detach(), told.set)
    until_said(ours, ALIVE * 3)
    assert not told.is_set()


def until_said(ours: socket.socket, text: bytes) -> None:
    """Read until the worker has said this."""
    heard = b""
    while text not in heard:
        came = ours.recv(1 << 16)
        assert came
        heard = heard[-len(text) :] + came


def test_who_is_there_for_two_looks_is_taken_in() -> None:
    """A child that somebody waits for is gone by the second look; one that nobody waits for is not."""
    ended = [5, 7, 9]
    taken: list[int] = []

    def take(number: int) -> None:
        taken.append(number)
        ended.remove(number)

    orphans = Orphans(lambda: ended[0] if ended else None, take)
    orphans.look()
    ended.remove(5)  # somebody waited for it
    orphans.look()
    assert taken == []
    orphans.look()
    orphans.look()
    assert taken == [7, 9]
    orphans.look()
    assert taken == [7, 9]


def test_a_process_to_which_children_are_left_takes_them_in() -> None:
    """As the first process of a container does; it still learns how its own children end."""
    program = """if True:
        import ctypes, os, subprocess, threading
        from pathlib import Path
        from horngate_server.core import file_changes as changes
        from horngate_server.process.signals import Stop, block_signals

        block_signals()
        os.getpid = lambda: 1
        changes.EVERY_S = 0.01
        assert not ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # children of children that end are left to us
        with Stop().on_signals():
            own = subprocess.Popen(["sh", "-c", "exit 3"])
            assert own.wait() == 3
            left = subprocess.run(["sh", "-c", "true & echo $!"], check=True, capture_output=True, text=True).stdout
            pause = threading.Event()
            while Path(f"/proc/{int(left)}").exists():
                pause.wait(0.01)
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=WAIT_S)
    assert done.returncode == 0, done.stderr
