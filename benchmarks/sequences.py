"""Inputs for a model with one input: noise, or token ids of lengths as texts have them."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

COUNT = 64
LONGEST = 128
WORDS = 2000


def lengths() -> list[int]:
    """Return how long the texts are, in the order in which they are asked for: many short ones, a few long ones."""
    drawn = np.random.default_rng(3).lognormal(3.6, 0.6, COUNT)
    return [int(each) for each in np.clip(drawn, 5, LONGEST)]


def inputs(dtype: npt.DTypeLike, row: Sequence[int | None], rows: int) -> list[npt.NDArray[np.generic]]:
    """Return the inputs of requests, to be sent in turn; one where its axes are known.

    Args:
        dtype: of the input.
        row: its axes after the first; None or -1 where they are free.
        rows: of each request.
    """
    rng = np.random.default_rng(1)
    if all(axis is not None and axis >= 0 for axis in row):
        return [rng.random((rows, *row), np.float32).astype(dtype)]  # type: ignore[arg-type]
    return [rng.integers(1, WORDS, (rows, length)).astype(dtype) for length in lengths()]
