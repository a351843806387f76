"""What came in one turn of an asyncio loop goes to the service together: that is what makes batches."""

import asyncio
from collections.abc import Callable, Sequence

from horngate_server.transports import Call


class Intake:
    """Collects the calls of one loop's turn.

    Args:
        accept: takes them (`transports.Service.accept`).
    """

    def __init__(self, accept: Callable[[Sequence[Call]], None]) -> None:
        self._accept = accept
        self._calls: list[Call] = []

    def take(self, call: Call) -> None:
        """Add a call; on the loop's thread."""
        if not self._calls:
            asyncio.get_running_loop().call_soon(self._hand_over)
        self._calls.append(call)

    # --- private --------------------------------------------------------------------------------------

    def _hand_over(self) -> None:
        calls, self._calls = self._calls, []
        self._accept(calls)
