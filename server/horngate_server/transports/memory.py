"""How much memory callers may fill."""

import threading

from horngate_server.errors import QueueFull


class Memory:
    """Bytes of requests in memory: taken and given back from any thread.

    Args:
        limit: how many there may be.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._lock = threading.Lock()

    def take(self, size: int, *, force: bool = False) -> None:
        """Take so many.

        Raises:
            QueueFull: there is no room for them, and they are not ``force``d.
        """
        with self._lock:
            if self._held + size <= self._limit or force:
                self._held += size
                return
            held = self._held
        raise QueueFull(
            f"{held} bytes of requests are in memory, no room for {size} more; expected at most {self._limit} "
            "(--max-request-bytes)",
            retry_after_s=0.1,
        )

    def give(self, size: int) -> None:
        """Give so many back."""
        with self._lock:
            self._held -= size
