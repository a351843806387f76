"""What a stream's messages hold of the memory for requests."""

from collections import deque

from horngate_server.transports.access.byte_budget import ByteBudget


class StreamBytes:
    """Counts each message of one stream until as many answers were given, or the stream has ended.

    Args:
        memory: where they are counted.
    """

    def __init__(self, memory: ByteBudget) -> None:
        self._memory = memory
        self._sizes: deque[int] = deque()

    def take(self, size: int) -> None:
        """Count a message.

        Raises:
            QueueFull: there is no room for it.
        """
        self._memory.take(size)
        self._sizes.append(size)

    def answered(self) -> None:
        """Give back the oldest message; nothing where there are more answers than messages."""
        if self._sizes:
            self._memory.give(self._sizes.popleft())

    def close(self) -> None:
        """Give back all that are left."""
        while self._sizes:
            self.answered()
