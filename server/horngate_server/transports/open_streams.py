"""The streaming calls under way: they last as long as their callers listen, unless the server ends."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from horngate_server.core.errors import NotReady


class Streams:
    """Those of one transport; on its loop's thread."""

    def __init__(self) -> None:
        self._ending = False
        self._tasks: set[asyncio.Task[object]] = set()

    def end(self) -> None:
        """End them all."""
        self._ending = True
        for task in self._tasks:
            task.cancel()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Count the call that the current task is.

        Raises:
            NotReady: the server ends, and the call with it.
        """
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if not self._ending:
                raise
            task.uncancel()
            raise NotReady("the server has stopped") from None
        finally:
            self._tasks.discard(task)
