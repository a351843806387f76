"""How far answers are apart.

Batches of other sizes may differ in a number's last bits: some processors add in another order then.
"""

from collections.abc import Iterable

import numpy as np

SAME = 1e-5
"""Answers of one model to one request are no further apart than this, relative to the largest number where above 1."""


def spread(answers: Iterable[bytes]) -> float:
    """Return the largest difference between float32 answers to one request; infinite where their lengths differ."""
    distinct = set(answers)
    if len({len(answer) for answer in distinct}) > 1:
        return float("inf")
    numbers = np.array([np.frombuffer(answer, np.float32) for answer in distinct])
    return float(np.ptp(numbers, axis=0).max() / max(1.0, np.abs(numbers).max())) if numbers.size else 0.0


def same(one: bytes, other: bytes) -> bool:
    """Whether two float32 answers are those of one model to one request."""
    return one == other or spread((one, other)) <= SAME
