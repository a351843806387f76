"""A SavedModel that lies on disk, taken as it stands: its files are copied, and every signature stays."""

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from horngate_trainer import golden, publish, quiet
from horngate_trainer.errors import ExportError, SourceError, first_line
from horngate_trainer.litert import FILE as LITE
from horngate_trainer.model_files import GRAPH
from horngate_trainer.savedmodel import Input
from horngate_trainer.tfjs import FILE as TFJS
from horngate_trainer.written import SIGNATURE, Answers, Effects, Tensors, as_array, effects, reload

USUAL = (SIGNATURE, "predict")
"""The signatures that a server answers with where a caller names none, the first one that there is."""


@dataclass(frozen=True, slots=True, eq=False)
class SavedModelFolder:
    """A SavedModel on disk.

    Attributes:
        path: its folder.
        signature: the one that is tried and recorded.
        inputs: of that signature.
        half: whether some of it computes in half precision.
        function: the loaded signature.
        loaded: what owns the variables of that.
    """

    path: Path
    signature: str
    inputs: tuple[Input, ...]
    half: bool
    function: Any
    loaded: Any

    def predict(self, tensors: Tensors) -> dict[str, npt.NDArray[Any]]:
        """What it answers where it lies, computed by TensorFlow's own Python."""
        specs = {each.name: each.dtype for each in self.inputs}
        answers = self.function(**{name: tf.constant(value, specs[name]) for name, value in tensors.items()})
        return {name: as_array(value.numpy()) for name, value in answers.items()}

    def fits(self, _: Tensors) -> bool:
        """Whether the shapes are right: nothing but computing says so."""
        return True

    def write(self, path: Path, others: Mapping[str, Any]) -> Effects:
        """Copy all but what an export adds by itself.

        Raises:
            ExportError: no server could run it.
            OSError: a file cannot be read or written.
        """
        assert not others
        found = effects(self.function.graph)
        found.refuse_python()
        ours = {publish.MANIFEST, golden.FILE, TFJS.parent, LITE}

        def left_out(folder: str, names: Sequence[str]) -> set[str]:
            inside = Path(folder).relative_to(self.path)
            return {name for name in names if inside / name in ours}

        shutil.copytree(self.path, path, ignore=left_out, copy_function=shutil.copyfile, dirs_exist_ok=True)
        return found

    def reload(self, path: Path) -> AbstractContextManager[Answers]:
        """Read a copy back as servers do, and yield what answers for it."""
        return reload(path, self.signature)


def load(path: Path, examples: Mapping[str, npt.NDArray[Any]] | None) -> SavedModelFolder:
    """Read a SavedModel.

    Args:
        path: its folder.
        examples: the caller's, by input: they have as many axes as inputs of which the file does not say.

    Raises:
        SourceError: it is damaged, or cannot be served; the text says what to do.
    """
    meta = _serving(path)
    name = _default_signature(path, meta)
    asked = meta.signature_def[name]
    inputs = tuple(_input(key, info, examples or {}) for key, info in sorted(asked.inputs.items()))
    with _told(path):
        loaded = tf.saved_model.load(str(path), tags=["serve"])
        function = loaded.signatures[name]
    return SavedModelFolder(path, name, inputs, _is_half(function.graph), function, loaded)


# --- private ---------------------------------------------------------------------------------------------------------


def _serving(path: Path) -> meta_graph_pb2.MetaGraphDef:
    """Return what servers load of it.

    Raises:
        SourceError: there is nothing that they would.
    """
    try:
        saved = saved_model_pb2.SavedModel.FromString((path / GRAPH).read_bytes())
    except DecodeError as exc:
        raise SourceError(f"{path / GRAPH} is damaged, or of no SavedModel") from exc
    found = [meta for meta in saved.meta_graphs if set(meta.meta_info_def.tags) == {"serve"}]
    if not found:
        tags = [sorted(meta.meta_info_def.tags) for meta in saved.meta_graphs]
        raise SourceError(f"{path} has graphs with the tags {tags}; servers load the one with ['serve']")
    return found[0]


def _default_signature(path: Path, meta: meta_graph_pb2.MetaGraphDef) -> str:
    known = sorted(name for name in meta.signature_def if not name.startswith("__"))
    if not known:
        raise SourceError(
            f"{path} has no signature that could be called: write it with tf.saved_model.save(model, folder, "
            f"signatures={{{SIGNATURE!r}: function}}), or a Keras model with model.export(folder)"
        )
    return next((name for name in USUAL if name in known), known[0])


def _input(name: str, info: meta_graph_pb2.TensorInfo, examples: Mapping[str, npt.NDArray[Any]]) -> Input:
    """Return an input as the file has it.

    Raises:
        SourceError: it is sparse or ragged, or nothing says how many axes it has.
    """
    if info.WhichOneof("encoding") != "name":
        raise SourceError(f"its input {name} is no plain tensor (sparse or ragged), and none can travel over the wire")
    if not info.tensor_shape.unknown_rank:
        shape = tuple(None if dim.size < 0 else int(dim.size) for dim in info.tensor_shape.dim)
    elif name in examples:
        shape = (None,) * np.ndim(examples[name])
    else:
        raise SourceError(f"the file does not say how many axes its input {name} has: give rows with --examples FILE")
    return Input(name, str(tf.as_dtype(info.dtype).name), shape)


def _is_half(graph: Any) -> bool:
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
    kinds = (types_pb2.DT_HALF, types_pb2.DT_BFLOAT16)
    return any(value.type in kinds for node in nodes for value in node.attr.values())


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Silence TensorFlow, and turn what it raises into a SourceError: it may raise anything."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with quiet.everything():
            yield
    except (ExportError, MemoryError):
        raise
    except Exception as exc:
        raise SourceError(f"TensorFlow {tf.__version__} cannot load {path}: {first_line(exc)}") from exc
    finally:
        logger.setLevel(level)
