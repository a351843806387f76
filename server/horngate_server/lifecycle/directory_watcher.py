"""Tells that something has changed where the models lie: at once where the file system says so.

Network file systems do not, and inotify can run out: whoever listens looks by itself now and then as well.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

log = logging.getLogger(__name__)
logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it tells of every change

GROUP_MS = 100
"""Changes that come this close together are told once."""


class DirectoryWatcher:
    """A thread that calls ``changed`` after changes of files.

    Args:
        paths: folders, with everything in them, or files.
        changed: called on the thread; must be quick.
    """

    def __init__(self, paths: Sequence[Path], changed: Callable[[], None]) -> None:
        self._paths = paths
        self._changed = changed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """End; False if that took longer."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(max(0.0, timeout_s))
        return not self._thread.is_alive()

    # --- private --------------------------------------------------------------------------------------

    def _run(self) -> None:
        from watchfiles import watch  # noqa: PLC0415 - not before the first answer: it costs 50 ms

        roots = [str(each.absolute()) for each in self._paths]

        def counts(_change: object, path: str) -> bool:  # not what exporters are still writing
            return not any(path.startswith(root) and "/." in path.removeprefix(root) for root in roots)

        try:
            for _ in watch(
                *roots,
                watch_filter=counts,
                debounce=GROUP_MS,
                step=GROUP_MS // 2,
                stop_event=self._stop,
                rust_timeout=500,  # how soon it sees the stop event
                raise_interrupt=False,
            ):
                self._changed()
        except (OSError, RuntimeError) as error:
            log.warning("no notice of changes under %s: it is looked at regularly instead: %s", ", ".join(roots), error)
