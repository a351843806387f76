"""What a kind of model is: how it is written, what callers ask it, and how its answers are held against TensorFlow's."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Inputs = Mapping[str, Array]

VALUES = "values"
SHAPES = "shapes"
COUNTS = "counts"


class _Lazy:
    """A package that is imported when it is first used: tests read what is asked here, and never import TensorFlow."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)


tf: Any = _Lazy("tensorflow")
keras: Any = _Lazy("keras")


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """One request: its inputs by name, and the signature that is to answer, where that is not the default one."""

    inputs: Inputs
    signature: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """One model that people serve.

    Attributes:
        name: its folder's.
        write: writes its version into a folder.
        asks: what callers send, each answerable.
        check: what is compared. VALUES: everything. SHAPES: dtypes and shapes, as it is random on purpose. COUNTS: the
            output "calls" counts the runs since it was loaded, everything else by value.
        batching: "rows" or "whole", where the server must find out one of them; empty where either is right.
        foreign_only: only TensorFlow Serving's protocol can carry it.
        method: of TensorFlow Serving that answers it as well: "classify" or "regress"; its input is serialized examples.
        options: its lines in models.toml.
        tags: of its MetaGraph.
        rtol: how far numbers may be from TensorFlow's, relative to their output's largest.
    """

    name: str
    write: Callable[[Path], None]
    asks: Sequence[Ask]
    check: str = VALUES
    batching: str = ""
    lengths: str = ""
    foreign_only: bool = False
    method: str = ""
    options: Mapping[str, object] = field(default_factory=dict)
    tags: Sequence[str] = ("serve",)
    rtol: float = 1e-5


KINDS: dict[str, Kind] = {}


def written(asks: Sequence[Inputs | Ask], **facts: Any) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    """Register a function that writes a version."""

    def register(write: Callable[[Path], None]) -> Callable[[Path], None]:
        name = write.__name__
        assert name not in KINDS, name
        KINDS[name] = Kind(name, write, [each if isinstance(each, Ask) else Ask(each) for each in asks], **facts)
        return write

    return register


def computed(
    *inputs: str, asks: Sequence[Inputs | Ask], **facts: Any
) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """Register a function of tensors, which becomes the signature serving_default.

    Args:
        inputs: "name dtype axes", as "x float32 ?,4"; no axes for a scalar, "any" for any number of them.
        asks: requests.
        facts: of the kind.
    """

    def register(function: Callable[..., object]) -> Callable[..., object]:
        def write(path: Path) -> None:
            save(path, {"serving_default": signature(function, *inputs)})

        write.__name__ = function.__name__
        written(asks, **facts)(write)
        return function

    return register


def signature(function: Callable[..., object], *inputs: str) -> Any:
    """Return a tf.function with these inputs; see `computed`."""
    return tf.function(function, input_signature=[_spec(text) for text in inputs])


def save(path: Path, signatures: Mapping[str, Any], **attributes: Any) -> None:
    """Write a SavedModel whose functions may use what the attributes hold."""
    module = tf.Module()
    for name, value in {**signatures, **attributes}.items():
        setattr(module, name, value)
    tf.saved_model.save(module, str(path), signatures=dict(signatures))


def save_graph(
    path: Path,
    build: Callable[[], tuple[Mapping[str, Any], Mapping[str, Any]]],
    *,
    tags: Sequence[str] = ("serve",),
    method: str = "predict",
    start: bool = False,
) -> None:
    """Write a SavedModel as TensorFlow 1 did.

    Args:
        path: the version's folder.
        build: makes the graph; returns the signature's inputs and outputs by name.
        tags: of its MetaGraph.
        method: what the signature is for.
        start: tables are filled when it is loaded.
    """
    v1 = tf.compat.v1
    describe = v1.saved_model.build_tensor_info
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        inputs, outputs = build()
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        made = v1.saved_model.build_signature_def(
            {name: describe(tensor) for name, tensor in inputs.items()},
            {name: describe(tensor) for name, tensor in outputs.items()},
            f"tensorflow/serving/{method}",
        )
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(
            session, list(tags), {"serving_default": made}, main_op=v1.tables_initializer() if start else None
        )
        builder.save()


def draw(*counts: int, low: int = 1, high: int = 10, **inputs: tuple[Any, ...]) -> list[Inputs]:
    """Return requests of so many rows (1, 3, 2 and 1 where nothing is said), their values drawn.

    Args:
        counts: rows of each request.
        low: the least of whole numbers.
        high: one more than the largest of them.
        inputs: name to (dtype, axes of a row ...).
    """
    rng = np.random.default_rng(7)
    return [
        {name: numbers(rng, dtype, (rows, *row), low, high) for name, (dtype, *row) in inputs.items()}
        for rows in counts or (1, 3, 2, 1)
    ]


def numbers(rng: np.random.Generator, dtype: str, shape: tuple[int, ...], low: int = 1, high: int = 10) -> Array:
    """Return drawn values of any numeric type."""
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if "int" in dtype:
        return rng.integers(low, high, shape).astype(dtype)
    if "complex" in dtype:
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)
    return rng.standard_normal(shape).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def texts(*values: str | bytes, shape: tuple[int, ...] | None = None) -> Array:
    """Return strings as an array of bytes: in one row, or in this shape."""
    array = np.empty(len(values), object)
    array[:] = [value.encode() if isinstance(value, str) else value for value in values]
    return array.reshape(len(values) if shape is None else shape)


# --- private ------------------------------------------------------------------------------------------


def _spec(text: str) -> Any:
    name, dtype, *axes = text.split()
    if axes == ["any"]:
        return tf.TensorSpec(None, getattr(tf, dtype), name)
    shape = [None if axis == "?" else int(axis) for axis in axes[0].split(",")] if axes else []
    return tf.TensorSpec(shape, getattr(tf, dtype), name)
