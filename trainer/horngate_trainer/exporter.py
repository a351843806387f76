"""The public export: any Keras model becomes the next version of a model that a Horngate server can take over."""

import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

import horngate_protos
from horngate_trainer import golden, publish
from horngate_trainer.errors import ExportError
from horngate_trainer.golden import SAME_DEVICE, Tolerance
from horngate_trainer.savedmodel import Predict, Servable, Tensors, reload, servable

Card = Mapping[str, Any]


def export(
    model: Any,
    root: str | Path,
    *,
    name: str,
    examples: Tensors | None = None,
    dtypes: Mapping[str, str] | None = None,
    divisors: Mapping[str, float] | None = None,
    classes_of: str | None = None,
    tolerance: Tolerance | None = None,
    describe: Callable[[Predict], Card] | None = None,
) -> Path:
    """Write a Keras model as the next version of ``<root>/<name>/``, verified, atomically.

    The SavedModel's ``serving_default`` takes the model's inputs by the names of its ``keras.Input`` and returns its
    outputs by the keys of the dict that the model answers with, or by the names of its last layers. The first axis of
    every tensor is the batch. Before anything is published, the written files are read back and must answer as the
    Keras model does; those answers go along, so that a server can check its own.

    Args:
        model: a built Keras model, Sequential or functional, with any number of inputs and outputs.
        root: the folder of models; made if missing.
        name: the model's name, a plain folder name.
        examples: real rows for each input, [N, ...] with one N >= 1, in the dtypes of the signature; requests of 1, 7
            and 32 rows are cut out of them. Without them, seeded noise is used where the signature allows it.
        dtypes: the dtype of an input on the wire, where it is not the model's own: {"images": "uint8"}. It is cast to
            the model's own inside the graph.
        divisors: what an input is divided by, after the cast, inside the graph: {"images": 255}.
        classes_of: name of an output [N, ..., K]; adds an output ``classes``, int64 [N, ...], the index of the largest
            of the K entries.
        tolerance: how near a server's answers must come to the golden ones.
        describe: called with the written model's own predict function ({name: array} -> {name: array}); what it
            returns becomes ``data``, ``evaluation``, ``training`` and ``baseline`` in the manifest. An exception that
            it raises passes through, and nothing is published.

    Returns:
        The folder of the published version, for example ``models/wine/3``.

    Raises:
        ExportError: the model cannot be served this way, or the folder cannot be written. Nothing was published.
        VerificationError: the written model does not answer as the Keras model does. Nothing was published.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ExportError(f"the model's name must be a plain folder name, not {name!r}")
    served = servable(model, dtypes=dtypes or {}, divisors=divisors or {}, classes_of=classes_of)
    requests = golden.batches(_checked(served, examples) if examples is not None else _noise(served))
    try:
        with publish.staging(Path(root) / name) as staging:
            served.write(staging.path)
            predict = reload(staging.path)
            responses = [predict(request) for request in requests]
            for request, response in zip(requests, responses, strict=True):
                golden.compare(response, served.predict(request), SAME_DEVICE)
            card = describe(predict) if describe is not None else {}
            (staging.path / golden.FILE).parent.mkdir(exist_ok=True)
            golden.write(staging.path / golden.FILE, name, list(zip(requests, responses, strict=True)))
            return staging.publish(_manifest(name, tolerance or Tolerance(), card))
    except OSError as exc:
        raise ExportError(f"cannot write to {Path(root) / name}: {exc.strerror or exc}") from exc


# --- private ---------------------------------------------------------------------------------------------------------


def _manifest(name: str, tolerance: Tolerance, card: Card) -> dict[str, Any]:
    """The manifest but for what publication fills in: version and files."""
    return {
        "schema": 1,
        "name": name,
        "version": None,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "horngate": horngate_protos.__version__,
        "data": card.get("data"),
        "evaluation": card.get("evaluation"),
        "training": card.get("training"),
        "baseline": card.get("baseline"),
        "tolerance": asdict(tolerance),
        "versions": {
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
        },
        "files": {},
    }


def _checked(served: Servable, examples: Tensors) -> dict[str, npt.NDArray[Any]]:
    names = [name for name, _, _ in served.inputs]
    if set(examples) != set(names):
        raise ExportError(f"examples are for {', '.join(sorted(examples))}; the model's inputs are {', '.join(names)}")
    rows = {len(array) if np.ndim(array) else 0 for array in examples.values()}
    if len(rows) != 1 or 0 in rows:
        raise ExportError("examples need one number of rows, at least one, for all inputs")
    for name, dtype, shape in served.inputs:
        array = examples[name]
        fits = array.ndim == len(shape) and all(
            want in (None, have) for want, have in zip(shape, array.shape, strict=True)
        )
        if not fits or array.dtype != dtype:
            raise ExportError(f"examples for {name} are {array.dtype} {array.shape}; the input is {dtype} {shape}")
    return dict(examples)


def _noise(served: Servable) -> dict[str, npt.NDArray[Any]]:
    """Seeded rows that fit the signature: small numbers, axes of any length at 1."""
    generator = np.random.default_rng(0)
    rows = sum(golden.BATCHES)
    result: dict[str, npt.NDArray[Any]] = {}
    for name, dtype, shape in served.inputs:
        sizes = (rows, *(size or 1 for size in shape[1:]))
        try:
            kind = np.dtype(dtype).kind
        except TypeError as exc:
            raise ExportError(f"input {name} is {dtype}, which cannot travel over the wire") from exc
        whole = kind in "iub"
        values = generator.integers(0, 2, sizes) if whole else generator.standard_normal(sizes)
        result[name] = values.astype(dtype)
    return result
