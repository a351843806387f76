"""What a worker and its supervisor have between them: a number, a socket for metrics, and a line that both hold."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

READY = b"ready"


@dataclass(frozen=True, slots=True)
class Worker:
    """What a worker process is told about itself.

    Attributes:
        number: 0, 1, ...
        line: the number of the inherited socket that ends when the supervisor does, and that tells it when we serve.
        http: where to serve /metrics and /readyz to the supervisor.
    """

    number: int
    line: int
    http: Path

    def __str__(self) -> str:
        return f"{self.number}:{self.line}:{self.http}"

    @classmethod
    def parse(cls, text: str) -> "Worker":
        """Read what ``str`` wrote."""
        number, line, http = text.split(":", 2)
        return cls(int(number), int(line), Path(http))


class Line:
    """The worker's end of the line.

    Args:
        number: of the inherited socket.
        on_lost: called when the supervisor has ended: a worker must not outlive it.
    """

    def __init__(self, number: int, on_lost: Callable[[], None]) -> None:
        self._socket = socket.socket(fileno=number)
        self._on_lost = on_lost
        threading.Thread(target=self._watch, name="line", daemon=True).start()

    def ready(self) -> None:
        """Say that this worker serves."""
        self._socket.sendall(READY)

    def _watch(self) -> None:
        with suppress(OSError):
            self._socket.recv(1)
        self._on_lost()
