"""What was written, read back: the predictions of a SavedModel on disk, and what its graph does beside them."""

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from horngate_trainer.errors import ExportError

SIGNATURE = "serving_default"

Tensors = Mapping[str, npt.NDArray[Any]]
Predict = Callable[[Tensors], dict[str, npt.NDArray[Any]]]


class Answers(Protocol):
    """What a written model answers, by name; the default signature's where none is named."""

    def __call__(self, tensors: Tensors, signature: str = SIGNATURE, /) -> dict[str, npt.NDArray[Any]]:
        """Answer a request."""
        ...


@dataclass(frozen=True, slots=True)
class Effects:
    """What a graph does beside computing, seen in its operations.

    Attributes:
        writes: operations that change what the model remembers.
        random: operations that draw numbers anew in each run.
        python: operations that call a Python function, which only this process has.
        variables: of the model, that it reads or changes.
    """

    writes: Sequence[str]
    random: Sequence[str]
    python: Sequence[str]
    variables: Sequence[Any]

    def refuse_python(self) -> None:
        """Refuse what only this process could run.

        Raises:
            ExportError: it calls a Python function.
        """
        if self.python:
            raise ExportError(
                f"the model calls a Python function ({', '.join(self.python)} in its graph), which no server has: "
                "write it with TensorFlow's or Keras's operations"
            )

    @contextmanager
    def undone(self) -> Iterator[None]:
        """Give the model's variables the values back that they have now: some models change while they answer."""
        changing = [variable for variable in self.variables if not variable.trainable] if self.writes else []
        before = [variable.numpy().copy() for variable in changing]
        try:
            yield
        finally:
            for variable, value in zip(changing, before, strict=True):
                variable.assign(value)


def effects(graph: Any) -> Effects:
    """Look through a function's graph: its operations, and those of the functions that it calls."""
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
    operations = sorted({node.op for node in nodes})
    return Effects(
        writes=[name for name in operations if _WRITES.fullmatch(name)],
        random=[name for name in operations if _RANDOM.fullmatch(name)],
        python=[name for name in operations if "PyFunc" in name],
        variables=tuple(graph.variables),
    )


@contextmanager
def reload(path: Path, default: str = SIGNATURE) -> Iterator[Answers]:
    """Read a SavedModel back as servers do, into a session, and yield what answers for it.

    Who names no signature is answered by ``default``. Its variables are as they were written when this begins; a model
    that remembers goes on from call to call.
    """
    graph = tf.Graph()
    session = tf.compat.v1.Session(graph=graph)
    try:
        meta = _load(session, path)

        def answer(tensors: Tensors, signature: str = default, /) -> dict[str, npt.NDArray[Any]]:
            asked = meta.signature_def[signature]
            wanted = {name: info.name for name, info in sorted(asked.outputs.items())}
            answers = session.run(wanted, {asked.inputs[name].name: value for name, value in tensors.items()})
            return {name: as_array(each) for name, each in answers.items()}

        yield answer
    finally:
        session.close()


def as_array(answer: Any) -> npt.NDArray[Any]:
    """Make an array of an answer; one text alone comes as bytes, which NumPy would cut to a fixed width."""
    return np.array(answer, object) if isinstance(answer, bytes) else np.asarray(answer)


# --- private ---------------------------------------------------------------------------------------------------------

_WRITES = re.compile(
    r"Assign(Add|Sub)?(Variable.*)?|Resource(Scatter|Apply|SparseApply|StridedSliceAssign|CountUpTo).*"
    r"|Scatter(Add|Sub|Update|NdUpdate|NdAdd)|LookupTable(Insert|Import|Remove).*|Rng(ReadAnd)?Skip.*"
    r"|Stateful(Uniform|StandardNormal|TruncatedNormal|RandomBinomial).*"
)
_RANDOM = re.compile(r"(Random(?!Dataset)|TruncatedNormal|ParameterizedTruncatedNormal|Multinomial).*")


def _load(session: Any, path: Path) -> Any:
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)  # it would rather that nobody used sessions
    try:
        with session.graph.as_default():
            return tf.compat.v1.saved_model.load(session, ["serve"], str(path))
    finally:
        logger.setLevel(level)
