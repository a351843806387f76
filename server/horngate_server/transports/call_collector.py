"""What came in one turn of an asyncio loop goes to the service together: that is what makes batches."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from horngate_server.core.rpc import Call


class CallCollector:
    """Collects the calls of one loop's turn.

    Args:
        accept: takes them (`rpc.Service.accept`).
    """

    def __init__(self, accept: Callable[[Sequence[Call]], None]) -> None:
        self._accept = accept
        self._calls: list[Call] = []
        self._holding = False

    def take(self, call: Call) -> None:
        """Add a call; on the loop's thread."""
        if not self._calls:
            asyncio.get_running_loop().call_soon(self._hand_over)
        self._calls.append(call)

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Keep what comes meanwhile, and hand it over at the end."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
            self._hand_over()

    async def silence(self, length_s: float, at_most_s: float) -> None:
        """Wait until no call has come for so long. While holding: callers who wait for an answer send nothing."""
        clock = asyncio.get_running_loop().time
        ends = clock() + at_most_s
        taken = -1
        while taken != len(self._calls) and clock() < ends:
            taken = len(self._calls)
            await asyncio.sleep(length_s)

    # --- private --------------------------------------------------------------------------------------

    def _hand_over(self) -> None:
        if self._holding:
            return
        calls, self._calls = self._calls, []
        self._accept(calls)
