"""Horngate's server before a model that sleeps: the time of a batch is fixed, so that replicas on few cores do not vie.

python benchmarks/sleeping_server.py MILLISECONDS FLAGS-OF-THE-SERVER...

Below ``--models`` it needs NAME/1/model.tflite, an empty file. A batch takes so long, however many rows it has.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from horngate_protos.datatypes import BY_NAME
from horngate_server.core.device import Device
from horngate_server.core.model import Array, Feed
from horngate_server.core.settings import Limits
from horngate_server.core.signature import Signature, TensorSpec
from horngate_server.lifecycle import engines
from horngate_server.process import cli

X = TensorSpec("x", BY_NAME["FP32"], (-1, 1))
Y = TensorSpec("y", BY_NAME["FP32"], (-1, 1))


@dataclass(frozen=True, slots=True)
class Rows:
    """What a batch is written into (`core.model.Feed`)."""

    signature: Signature
    arrays: Sequence[Array]


class Sleeping:
    """Answers what it is given, later (`core.model.LoadedModel`).

    Args:
        seconds: that a batch takes.
    """

    device = Device("CPU", "none", "it only sleeps")
    signature = Signature("serving_default", (X,), (Y,))

    def __init__(self, seconds: float) -> None:
        self.signatures = {self.signature.name: self.signature}
        self._seconds = seconds

    def feed(self, signature: Signature, shapes: Sequence[tuple[int, ...]]) -> Feed:
        """Return memory for one run."""
        return Rows(signature, [np.zeros(shape, np.float32) for shape in shapes])

    def run(self, feed: Feed) -> Sequence[Array]:
        """Sleep, and return what was fed."""
        time.sleep(self._seconds)
        return list(feed.arrays)

    def close(self) -> None:
        """Do nothing: there is nothing to give back."""


def main() -> int:
    """Serve."""
    seconds = float(sys.argv[1]) / 1000

    def load(engine: str, path: Path, *, device: str, threads: int, limits: Limits) -> Sleeping:
        del engine, path, device, threads, limits  # of one that computes
        return Sleeping(seconds)

    engines.load = load
    return cli.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
