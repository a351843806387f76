"""How far the training is: a live line on a terminal, a line per epoch elsewhere."""

import time
from typing import TextIO

from horngate_trainer.training import Epoch, Progress

WIDTH = 24


class Bar:
    """Writes to a stream, usually stderr.

    Args:
        stream: where to.
        epochs: how many there are in all.
        done: how many of them were finished before, when a training is resumed.
    """

    def __init__(self, stream: TextIO, epochs: int, done: int = 0) -> None:
        self._stream = stream
        self._epochs = epochs
        self._live = stream.isatty()
        self._before = done
        self._began = time.monotonic()

    def show(self, progress: Progress) -> None:
        """Redraw the live line."""
        if not self._live:
            return
        finished = progress.epoch - 1 + progress.share
        elapsed = time.monotonic() - self._began
        left = elapsed * (self._epochs - finished) / (finished - self._before)
        full = round(WIDTH * progress.share)
        self._write(
            f"\r\x1b[K{self._number(progress.epoch)} [{'=' * full}{' ' * (WIDTH - full)}] "
            f"accuracy {progress.accuracy:.2%}  loss {progress.loss:.4f}  ETA {_duration(left)}"
        )

    def finish(self, number: int, epoch: Epoch) -> None:
        """Leave a line for a finished epoch."""
        start = "\r\x1b[K" if self._live else ""
        self._write(
            f"{start}{self._number(number)} accuracy {epoch.accuracy:.2%}  loss {epoch.loss:.4f}  "
            f"test {epoch.test_accuracy:.2%}  {epoch.seconds:.1f} s\n"
        )

    def _number(self, epoch: int) -> str:
        return f"epoch {epoch:>{len(str(self._epochs))}}/{self._epochs}"

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


# --- private ---------------------------------------------------------------------------------------------------------


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
