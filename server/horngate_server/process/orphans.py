"""Children that others have left to this process, as they do to a container's first one: it takes in their ends."""

import os
from collections.abc import Callable
from contextlib import suppress


def _ended() -> int | None:
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return found.si_pid if found else None


def _take(number: int) -> None:
    with suppress(ChildProcessError):  # somebody was faster
        os.waitpid(number, os.WNOHANG)


class Orphans:
    """Takes in children that have ended and that nobody here waits for.

    TensorFlow's compilers and our workers are children, too, and somebody waits for them: who is there at one look has
    been taken by the next. The kernel tells of one at a time, so one goes at each look.

    Args:
        ended: returns a child that has ended, and leaves it as it is; None where there is none.
        take: takes it in.
    """

    def __init__(self, ended: Callable[[], int | None] = _ended, take: Callable[[int], object] = _take) -> None:
        self._ended = ended
        self._take = take
        self._seen: int | None = None

    def look(self) -> None:
        """Take the one that was there at the last look; to be called once a second."""
        found = self._ended()
        if found is not None and found == self._seen:
            self._take(found)
            found = self._ended()
        self._seen = found
