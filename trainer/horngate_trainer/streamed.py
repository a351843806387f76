"""Images that stay where they are, and are read as they are needed: data need not fit into memory."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from math import prod
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

from horngate_protos.control_groups import cores
from horngate_trainer.pixels import Images

T = TypeVar("T")


class Streamed:
    """Images by their places, as an array of them has it; only those that are asked for are read.

    Args:
        read: returns an image, uint8 of the shape, by its place; called by several threads.
        shape: of all: [N, height, width] or [N, height, width, channels].
        digest: of their content, SHA-256.
    """

    def __init__(self, read: Callable[[int], Images], shape: tuple[int, ...], digest: bytes) -> None:
        self.shape = shape
        self.dtype = np.dtype(np.uint8)
        self.digest = digest
        self._read = read
        self._pool = ThreadPoolExecutor(cores(), "read-images")

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """What all would take in memory."""
        return prod(self.shape)

    @overload
    def __getitem__(self, at: int | np.integer[Any]) -> Images: ...

    @overload
    def __getitem__(self, at: slice | npt.NDArray[Any]) -> Images: ...

    def __getitem__(self, at: Any) -> Images:
        """Read one image, or those of a slice or of an array of places.

        Raises:
            DataError: one cannot be read.
        """
        if isinstance(at, int | np.integer):
            return self._read(int(at))
        places = np.arange(len(self))[at] if isinstance(at, slice) else at
        images = np.empty((len(places), *self.shape[1:]), np.uint8)

        def fill(index: int) -> None:
            images[index] = self._read(int(places[index]))

        # In the order of their places, which on a disk is mostly that of a file.
        for _ in self._pool.map(fill, np.argsort(places, kind="stable").tolist()):
            pass
        return images


def ahead(calls: Iterable[Callable[[], T]]) -> Iterator[T]:
    """Yield what each call returns; while one is worked at, the next is made by a thread."""
    with ThreadPoolExecutor(1, "read-ahead") as pool:
        waiting = None
        for call in calls:
            following = pool.submit(call)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()
