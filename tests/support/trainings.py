"""What tests of trainings share: images that are quickly learned, and the types of the fixture `trainers`."""

from collections.abc import Callable
from typing import Any

import numpy as np

Ended = dict[str, Any]
"""How a training ended."""
Trainers = Callable[..., list[Ended]]
"""Runs trainings at once."""


def blobs(rows: int, *, side: int = 8, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Easy images: class k is a bright band at height k, in noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    images = rng.integers(0, 60, (rows, side, side))
    for row, label in enumerate(labels):
        images[row, label * side // classes : (label + 1) * side // classes] += 180
    return images.astype(np.uint8), labels.astype(np.uint8)
