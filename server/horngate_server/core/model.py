"""The seam between the server and whatever computes. Nearly every test runs with a fake behind it."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from horngate_server.core.device import Device
from horngate_server.core.signature import Signature

Array = npt.NDArray[np.generic]


class Feed(Protocol):
    """Memory that a model computes from: the batch is written straight into it."""

    @property
    def signature(self) -> Signature:
        """Whose inputs these are."""
        ...

    @property
    def arrays(self) -> Sequence[Array]:
        """One writable array per input, in the signature's order."""
        ...


class Model(Protocol):
    """One loaded model on one device. Not thread-safe: the executor that owns it is its only caller."""

    @property
    def signature(self) -> Signature:
        """What it takes and returns, unless a request asks for another signature."""
        ...

    @property
    def signatures(self) -> Mapping[str, Signature]:
        """All of them, by name."""
        ...

    def feed(self, signature: Signature, shapes: Sequence[tuple[int, ...]]) -> Feed:
        """Return memory for one run, with these full shapes; arrays of objects for strings. It holds until ``run``."""
        ...

    def run(self, feed: Feed) -> Sequence[Array]:
        """Compute what was fed; outputs in the signature's order, strings as objects. Blocks without the GIL.

        Raises:
            InputRefused: the model says that the values are wrong.
            OutOfMemory: there is none for it.
            ModelFailed: with the reason, in the framework's words.
        """
        ...

    def close(self) -> None:
        """Give everything back."""
        ...


class LoadedModel(Model, Protocol):
    """A model as an engine has opened it."""

    @property
    def device(self) -> Device:
        """Where it computes."""
        ...
