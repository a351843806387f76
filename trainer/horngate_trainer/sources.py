"""What is exported: a Keras model in memory, or a model that lies on disk as it will be served."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from horngate_trainer.savedmodel import Input
from horngate_trainer.written import Answers, Effects, Tensors


class Source(Protocol):
    """A model that can be written into a version, and asked before and after."""

    @property
    def inputs(self) -> Sequence[Input]:
        """As on the wire."""
        ...

    @property
    def signature(self) -> str:
        """The name of the signature that answers callers who name none."""
        ...

    @property
    def half(self) -> bool:
        """Whether some of it computes with so few bits that answers differ more between devices."""
        ...

    def predict(self, tensors: Tensors) -> dict[str, Any]:
        """What the original answers, by name."""
        ...

    def fits(self, tensors: Tensors) -> bool:
        """Whether the shapes of inputs are right, as far as the original knows without computing."""
        ...

    def write(self, path: Path, others: Mapping[str, Any]) -> Effects:
        """Write the model into an existing folder; return what it does beside computing.

        Args:
            path: the folder.
            others: traced functions that become signatures beside the model's own.

        Raises:
            ExportError: it cannot be written, or no server could run it.
        """
        ...

    def reload(self, path: Path) -> AbstractContextManager[Answers]:
        """Read what was written back, and yield what answers for it.

        Raises:
            ExportError: it cannot be read.
        """
        ...
