"""What a supervisor makes of its workers' signs of life, and the first process of a container of its children."""

import os
import socket
import sys
import threading
from collections.abc import Iterator

import pytest

from horngate_server import stopping, worker

WAIT_S = 20.0


@pytest.fixture
def line() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The supervisor's end and the worker's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_a_worker_that_says_nothing_hangs(line: tuple[socket.socket, socket.socket]) -> None:
    """Neither before its first sign of life nor after it may there be silence."""
    ours, theirs = line
    assert worker.follow(ours, 5.0, 0.01, pytest.fail)
    theirs.sendall(worker.READY)
    served: list[bool] = []
    assert worker.follow(ours, 0.01, WAIT_S, lambda: served.append(True))
    assert served == [True]


def test_a_worker_whose_end_of_the_line_closes_has_ended(line: tuple[socket.socket, socket.socket]) -> None:
    """That is no hanging, whatever it said before; and who never may hang is waited for."""
    ours, theirs = line
    theirs.sendall(worker.ALIVE * 3)
    theirs.close()
    assert not worker.follow(ours, 0.0, 0.01, pytest.fail)


def test_a_worker_gives_signs_of_life_until_its_supervisor_ends(
    line: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says that it is alive and that it serves, and hears of the end."""
    monkeypatch.setattr(worker, "ALIVE_EVERY_S", 0.01)
    ours, theirs = line
    lost = threading.Event()
    mine = worker.Line(theirs.detach(), lost.set)
    mine.ready()
    ours.settimeout(WAIT_S)
    said = b""
    while worker.READY not in said or worker.ALIVE not in said:
        said += ours.recv(64)
    ours.close()
    assert lost.wait(WAIT_S)


def test_children_that_others_leave_are_taken_in_and_ours_are_not() -> None:
    """Whoever waits for a child of their own still learns how it ended."""
    theirs, ours = (os.posix_spawn(sys.executable, [sys.executable, "-c", f"exit({code})"], {}) for code in (3, 4))
    for number in (theirs, ours):
        os.waitid(os.P_PID, number, os.WEXITED | os.WNOWAIT)
    codes: list[int] = []
    waiting = threading.Thread(target=lambda: codes.append(os.waitstatus_to_exitcode(os.waitpid(ours, 0)[1])))

    def mine() -> frozenset[int]:
        if not waiting.ident:
            waiting.start()
        return frozenset({ours})

    stopping.reap(mine)
    waiting.join(WAIT_S)
    assert codes == [4]
    with pytest.raises(ChildProcessError):
        os.waitpid(theirs, 0)
