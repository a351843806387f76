"""Messages that anyone may send, and that are small: health's. For a transport that cannot bound them by their size.

gRPC's core takes a message in once somebody waits for it, up to its one limit for all methods; before, it holds no more
of it than HTTP/2's window. So it is the number of those waited for that bounds what it holds.
"""

import asyncio
from collections.abc import AsyncIterator

from horngate_server.core.errors import InvalidRequest, MessageTooLarge, QueueFull

AT_ONCE = 4
"""Messages that are waited for. For a further one, the caller ends that has been sending for longest: probes are done
in a millisecond."""
WAIT_S = 10.0
"""How long a message may take."""


async def first(messages: AsyncIterator[bytes]) -> bytes:
    """Return a call's first message, however long it takes.

    Raises:
        InvalidRequest: there is none.
    """
    async for message in messages:
        return message
    raise InvalidRequest("no message came; expected one")


class SmallMessages:
    """Receives first messages of calls. On one asyncio loop.

    Args:
        max_bytes: larger ones are refused.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._waiting: dict[asyncio.Task[bytes], None] = {}

    async def first(self, messages: AsyncIterator[bytes]) -> bytes:
        """Return a call's first message.

        Raises:
            QueueFull: it took too long, or others came meanwhile.
            MessageTooLarge: it is larger than such messages are.
            InvalidRequest: there is none.
        """
        if len(self._waiting) >= AT_ONCE:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            oldest.cancel()
        task = asyncio.ensure_future(first(messages))
        self._waiting[task] = None
        task.add_done_callback(lambda task: self._waiting.pop(task, None))
        try:
            done, _ = await asyncio.wait([task], timeout=WAIT_S)
        finally:
            task.cancel()
        if not done or task.cancelled():
            raise QueueFull("the message did not come soon enough; expected it with the call", retry_after_s=1.0)
        message = task.result()
        if len(message) > self._max_bytes:
            raise MessageTooLarge(f"a message of {len(message)} bytes; expected at most {self._max_bytes}")
        return message
