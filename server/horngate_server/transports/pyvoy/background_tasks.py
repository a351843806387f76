"""Tasks that nothing awaits, and calls that need none."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class BackgroundTasks:
    """Keeps tasks until they are done: asyncio has only a weak reference to them. On one asyncio loop."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class Taken:
    """What stands for the task of a call that callbacks take care of: it is done."""

    def add_done_callback(self, _callback: Callable[..., object]) -> None:
        """Call nothing: how such a call ended is nobody's to ask (pyvoy would report an exception)."""


TAKEN = Taken()


def task_factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
    """Make a task of a coroutine, and none of what stands for one (`asyncio.loop.set_task_factory`)."""
    return TAKEN if coroutine is TAKEN else asyncio.Task(coroutine, loop=loop, **options)
