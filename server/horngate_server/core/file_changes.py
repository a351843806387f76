"""Tells whether small files have changed: secrets and certificates that operators replace while the server runs."""

import os
import stat
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

EVERY_S = 1.0


class Changes:
    """Files to be looked at once a second at most: no events to be missed.

    A file counts as changed when its inode, size or time does: editors, ``mv`` and Kubernetes' symbolic links alike.

    Args:
        paths: the files.
        clock: monotonic seconds.
    """

    def __init__(self, paths: Sequence[Path], clock: Callable[[], float]) -> None:
        self._paths = paths
        self._clock = clock
        self._looked = clock()
        self._states = self._look()

    def seen(self) -> bool:
        """Whether they have changed since this was last true, or since the beginning."""
        now = self._clock()
        if now - self._looked < EVERY_S:
            return False
        self._looked = now
        states = self._look()
        changed = states != self._states
        self._states = states
        return changed

    # --- private --------------------------------------------------------------------------------------

    def _look(self) -> list[tuple[int, int, int] | None]:
        return [_state(path) for path in self._paths]


def reason(path: Path, error: OSError) -> str:
    """Return why a file cannot be read or written: where it may not be, whose it is, its mode, and who we are."""
    if isinstance(error, PermissionError):
        for there in (path, *path.parents):
            try:
                state = there.stat()
            except OSError:  # it is not there, or the folder above may not be looked into
                continue
            return (
                f"{error.strerror}: {there} belongs to user {state.st_uid} and group {state.st_gid}, with mode "
                f"{stat.S_IMODE(state.st_mode):04o}; this process is user {os.geteuid()} and group {os.getegid()}"
            )
    return str(error)


def every_second(look: Callable[[], object], name: str) -> None:
    """Call it once a second from now on, on a thread of its own that does not keep the process.

    Callers never wait for a disk that does not answer.
    """
    pause = threading.Event()

    def run() -> None:
        while not pause.wait(EVERY_S):
            look()

    threading.Thread(target=run, name=name, daemon=True).start()


# --- private ------------------------------------------------------------------------------------------


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
