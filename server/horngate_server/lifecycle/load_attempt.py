"""One version being loaded, on a thread of its own: a load that hangs holds up neither the others nor the end."""

import threading
from collections.abc import Callable
from concurrent.futures import Future

from horngate_server.core.errors import ModelError
from horngate_server.lifecycle.loader import Loaded


class Abandoned(ModelError):
    """Nobody wants the version any more that is being loaded."""


class LoadAttempt:
    """A load under way.

    Args:
        load: does it; calls what it is given at every step that it takes.
        name: for the thread.
        clock: monotonic seconds.
        ended: called once it is over, on its thread.
    """

    def __init__(
        self,
        load: Callable[[Callable[[], None]], Loaded],
        name: str,
        clock: Callable[[], float],
        ended: Callable[[], None],
    ) -> None:
        self._load = load
        self._clock = clock
        self._ended = ended
        self._lock = threading.Lock()
        self._abandoned = self._taken = False
        self._outcome: Future[Loaded] = Future()
        self._turn = threading.Event()
        self._sign = clock()
        self.thread = threading.Thread(target=self._run, name=f"loading-{name}", daemon=True)
        self.thread.start()

    def alive(self) -> None:
        """Take a sign of life.

        Raises:
            Abandoned: it is to end.
        """
        self._sign = self._clock()
        if self._abandoned:
            raise Abandoned("nobody wants it any more")

    def wait(self, patience_s: float) -> bool:
        """Wait until it is over; False once it is abandoned, or has given no sign of life for so long."""
        while not self._turn.is_set() and (left := self._sign + patience_s - self._clock()) > 0:
            self._turn.wait(left)
        return self.done

    @property
    def done(self) -> bool:
        """Whether it is over."""
        return self._outcome.done()

    def take(self) -> Loaded:
        """Return what was loaded, which is the caller's from now on; raise why there is nothing. Once it is done.

        Raises:
            Abandoned: it was to end, and what was loaded is closed.
        """
        with self._lock:
            if self._abandoned:
                raise Abandoned("nobody wants it any more")
            self._taken = True
        return self._outcome.result(timeout=0)

    def abandon(self) -> None:
        """Let nobody wait for it; end it at its next sign of life, and close what was loaded if nobody has taken it."""
        with self._lock:
            unclaimed = self.done and not self._abandoned and not self._taken and self._outcome.exception() is None
            self._abandoned = True
        self._turn.set()
        if unclaimed:
            self._outcome.result().close()

    # --- private --------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._settle(self._load(self.alive))
        except BaseException as error:  # noqa: BLE001 - whoever takes it hears of it
            self._outcome.set_exception(error)
        self._turn.set()
        self._ended()

    def _settle(self, loaded: Loaded) -> None:
        """Keep what was loaded for whoever takes it, if anybody will."""
        with self._lock:
            if not self._abandoned:
                self._outcome.set_result(loaded)
                return
        loaded.close()
        raise Abandoned("nobody wants it any more")
