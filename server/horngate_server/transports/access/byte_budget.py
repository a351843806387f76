"""How much memory callers may fill."""

import threading

from horngate_server.core.errors import QueueFull


class ByteBudget:
    """Bytes of requests in memory: taken on one thread, given back from any.

    Args:
        limit: how many there may be.
    """

    name = ""
    """Whose part of it this is; empty for everyone's."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        self._given = 0
        self._giving = threading.Lock()

    def take(self, size: int, *, force: bool = False) -> None:
        """Take so many.

        Raises:
            QueueFull: there is no room for them, and they are not ``force``d.
        """
        held = self._taken - self._given
        if held + size > self._limit and not force:
            raise QueueFull(
                f"{held} bytes of requests are in memory, no room for {size} more; expected at most {self._limit} "
                "(--max-request-bytes)",
                retry_after_s=0.1,
            )
        self._taken += size

    def grow(self, size: int) -> None:
        """Take so many more for a request that has taken some.

        Raises:
            QueueFull: there is no room for them.
        """
        self.take(size)

    def give(self, size: int) -> None:
        """Give so many back."""
        with self._giving:
            self._given += size
