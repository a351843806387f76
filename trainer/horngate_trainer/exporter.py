"""The public export: any Keras model becomes the next version of a model that a Horngate server can take over."""

import logging
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import horngate_protos
from horngate_trainer import explaining, further_formats, golden, publish
from horngate_trainer.errors import ExportError
from horngate_trainer.examples import Request, given
from horngate_trainer.explaining import Explainer
from horngate_trainer.formats import Format, Judge
from horngate_trainer.golden import HALF, Tolerance
from horngate_trainer.proving import Proof, prove
from horngate_trainer.savedmodel import servable
from horngate_trainer.sources import Source
from horngate_trainer.written import Predict, Tensors

log = logging.getLogger(__name__)

Card = Mapping[str, Any]

BATCHING = ("auto", "rows", "whole")
LENGTHS = ("auto", "padded", "apart")
LABELS = Path("assets.extra") / "labels.txt"
"""The classes' names by index, one a line; Horngate's servers answer with them where a caller asks for classes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What goes into a version beside the model; see `export`, whose arguments these are once they are checked.

    Attributes:
        rows: examples.
        tolerance: None for the usual one.
        batching: one of `BATCHING`.
        lengths: one of `LENGTHS`.
        explainer: of the model; None where it is not to explain itself.
        describe: what else the manifest says.
        formats: to be written beside the model.
        by_name: they were asked for.
        describe_format: what else the manifest says of each.
        labels: the classes' names, by index.
        progress: told of each step in a few words.
    """

    rows: Request | None = None
    tolerance: Tolerance | None = None
    batching: str = "auto"
    lengths: str = "auto"
    explainer: Explainer | None = None
    describe: Callable[[Predict], Card] | None = None
    formats: Sequence[Format] = ()
    by_name: bool = False
    describe_format: Judge | None = None
    labels: Sequence[str] | None = None
    progress: Callable[[str], None] = lambda _: None


def export(
    model: Any,
    root: str | Path,
    *,
    name: str,
    examples: Any = None,
    dtypes: Mapping[str, str] | None = None,
    divisors: Mapping[str, float] | None = None,
    classes_of: str | None = None,
    tolerance: Tolerance | None = None,
    batching: str = "auto",
    lengths: str = "auto",
    explain: bool = False,
    baseline: Any = "black",
    describe: Callable[[Predict], Card] | None = None,
    formats: Sequence[str] | None = None,
    quantize: str = "none",
    calibration: Any = None,
    describe_format: Judge | None = None,
    labels: Sequence[str] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write a Keras model as the next version of ``<root>/<name>/``, verified, atomically.

    The SavedModel's ``serving_default`` takes the model's inputs by the names of its ``keras.Input`` and returns its
    outputs by the keys of the dict that the model answers with, or by the names of its last layers. Before anything is
    published, the written files are read back and must answer as the Keras model does; those answers go along, so that
    a server can check its own. What a person should know of the model is logged as a warning: that it is random or
    remembers, and so has no answers to record (``"deterministic": false`` in the manifest); that its rows are not
    independent of each other (``"independent_rows": false``); that some requests are refused, or answered with NaN.

    Args:
        model: a built Keras model, Sequential or functional, with any number of inputs and outputs.
        root: the folder of models; made if missing.
        name: the model's name, a plain folder name.
        examples: real rows for each input, [N, ...] with one N >= 1, in the dtypes of the signature; requests of 1, 7
            and 32 rows are cut out of them. A dict by the inputs' names, a list in their order, or an array for the
            only one. Without them, seeded noise is tried until the model accepts some; free axes at a few lengths.
        dtypes: the dtype of an input on the wire, where it is not the model's own: {"images": "uint8"}. It is cast to
            the model's own inside the graph.
        divisors: what an input is divided by, after the cast, inside the graph: {"images": 255}.
        classes_of: name of an output [N, ..., K]; adds an output ``classes``, int64 [N, ...], the index of the largest
            of the K entries.
        tolerance: how near a server's answers must come to the golden ones.
        batching: how a server is to run it: "rows" (requests share runs), "whole" (one request, one run), or "auto",
            which leaves it to the server to find out.
        lengths: how a server is to run requests of different lengths: "padded" (with 0, in one run), "apart" (in runs
            by length), or "auto", as for ``batching``.
        explain: write a second signature, ``explain``: integrated gradients of the entries of ``classes_of`` by the
            model's only input. It takes the input and ``target``, int64 [N], the class to explain, -1 for the predicted
            one; it answers ``attributions``, float32 of the input's shape, which sum to ``score`` less
            ``baseline_score`` but for ``gap``, and ``target``.
        baseline: the input that shows nothing, where explanations begin: "black" (0), "white" (255, or 1 of
            fractions), "mean" (of the examples), or a row as it is on the wire.
        describe: called with the written model's own predict function ({name: array} -> {name: array}); what it
            returns becomes ``data``, ``evaluation``, ``training``, ``baseline`` and ``imported`` in the manifest; NaN
            and infinities become null. An exception that it raises passes through, and nothing is published.
        formats: what the version holds: "savedmodel", which is always there, "litert", a ``model.tflite`` for LiteRT,
            and "tfjs", a graph model for TF.js. One that cannot hold the model, or answers something else, is an
            error. Without ``formats``, LiteRT's is there if it can hold the model, and otherwise the manifest and a
            warning say why not.
        quantize: of ``model.tflite``: "none" (float32), "dynamic" (weights of 8 bits), "float16" (weights of 16 bits)
            or "int8" (weights and activations of 8 bits). What it costs is in the manifest.
        calibration: rows as ``examples`` has them, real ones, from which "int8" takes the ranges of activations;
            ``examples`` where there are none.
        describe_format: called with a format's name and its predict function; what it returns joins the manifest's
            section of the format. An exception that it raises passes through, and nothing is published.
        labels: the classes' names by index; they become ``assets.extra/labels.txt``, which servers answer with.
        progress: told of each step in a few words, before it begins.

    Returns:
        The folder of the published version, for example ``models/wine/3``.

    Raises:
        ExportError: the model cannot be served this way, or the folder cannot be written. Nothing was published.
        VerificationError: the written model does not answer as the Keras model does. Nothing was published.
    """
    _check(name, root, tolerance, batching=batching, lengths=lengths, labels=labels)
    served = servable(model, dtypes=dtypes or {}, divisors=divisors or {}, classes_of=classes_of)
    rows = given(served.inputs, examples) if examples is not None else None
    calibrating = given(served.inputs, calibration) if calibration is not None else rows
    plan = Plan(
        rows=rows,
        tolerance=tolerance,
        batching=batching,
        lengths=lengths,
        explainer=explaining.explainer(served, baseline, rows) if explain else None,
        describe=describe,
        formats=further_formats.wanted(formats, quantize, served.inputs, calibrating),
        by_name=formats is not None,
        describe_format=describe_format,
        labels=labels,
        progress=progress,
    )
    return write_version(served, Path(root) / name, plan)


def write_version(source: Source, folder: Path, plan: Plan) -> Path:
    """Write a model as the next version in the model's folder, verified, atomically; see `export`.

    Args:
        source: the model.
        folder: ``<root>/<name>``.
        plan: what goes into the version beside the model.

    Raises:
        ExportError: it cannot be served, or the folder cannot be written. Nothing was published.
        VerificationError: what was written does not answer as the original does. Nothing was published.
    """
    explainer = plan.explainer
    try:
        with publish.staging(folder) as staging:
            plan.progress("writing the model")
            effects = source.write(staging.path, {explaining.SIGNATURE: explainer.trace()} if explainer else {})
            with source.reload(staging.path) as answer:
                plan.progress("asking what was written, and the original")
                proof = prove(source, effects, answer, plan.rows)
                definite = proof.answers is not None
                explained = explainer and explaining.try_out(
                    explainer, answer, plan.rows or proof.requests[-1], definite=definite
                )
                card = _card(plan.describe(answer) if plan.describe is not None else {})
            (staging.path / golden.FILE).parent.mkdir(exist_ok=True)
            records = {source.signature: _pairs(proof.requests, proof.answers)}
            allowed = plan.tolerance or (HALF if source.half else Tolerance())
            asked = {"batching": plan.batching, "lengths": plan.lengths}
            manifest = _manifest(folder.name, allowed, card, proof, asked)
            if explained:
                records[explaining.SIGNATURE] = _pairs(explained.requests, explained.answers)
                manifest["explanation"] = _plain(explained.card)
            golden.write(staging.path / golden.FILE, folder.name, records)
            if plan.labels is not None:
                (staging.path / LABELS).write_text("".join(f"{each}\n" for each in plan.labels), encoding="utf-8")
            plan.progress(", ".join(["recording answers", *(f"proving {each.file}" for each in plan.formats)]))
            written = further_formats.write(
                plan.formats, staging.path, proof, allowed, plan.describe_format, by_name=plan.by_name
            )
            manifest["formats"] = _plain(written)
            version = staging.publish(manifest)
    except OSError as exc:
        raise ExportError(f"cannot write to {folder}: {exc.strerror or exc}") from exc
    mixed = plan.batching == "rows" and proof.independent is False
    remarks = [
        *proof.remarks,
        *(explained.remarks if explained else ()),
        *(further_formats.remarks(written) if definite else ()),
    ]
    for remark in [*remarks, *["batching='rows' tells servers to mix its requests nevertheless"] * mixed]:
        log.warning("%s: %s", version, remark)
    return version


# --- private ---------------------------------------------------------------------------------------------------------


def _check(name: Any, root: Any, tolerance: Any, *, batching: Any, lengths: Any, labels: Any) -> None:
    """Refuse options of the wrong kind in words, rather than where they happen to be used first."""
    if not isinstance(name, str) or not publish.NAME.fullmatch(name):
        raise ExportError(f"the model's name must be a plain folder name, not {name!r}")
    if not isinstance(root, str | Path):
        raise ExportError(f"the folder of models must be a path, not {root!r}")
    if "://" in str(root):
        raise ExportError("the folder of models must be a local path; horngate_trainer.upload copies to a store")
    if tolerance is not None and not isinstance(tolerance, Tolerance):
        raise ExportError(f"tolerance must be a horngate_trainer.Tolerance, not {tolerance!r}")
    if batching not in BATCHING:
        raise ExportError(f"batching must be one of {', '.join(BATCHING)}, not {batching!r}")
    if lengths not in LENGTHS:
        raise ExportError(f"lengths must be one of {', '.join(LENGTHS)}, not {lengths!r}")
    for label in labels or ():
        if not isinstance(label, str) or label.splitlines() != [label]:
            raise ExportError(f"a label must be a text of one line, not {label!r}")


def _pairs(requests: Sequence[Tensors], answers: Sequence[Tensors] | None) -> Sequence[tuple[Tensors, Tensors | None]]:
    return [(request, answers[number] if answers else None) for number, request in enumerate(requests)]


def _card(described: Any) -> dict[str, Any]:
    """What a caller said of the model, as JSON has it.

    Raises:
        ExportError: JSON has no such thing.
    """
    card = _plain(described)
    if not isinstance(card, dict):
        raise ExportError(f"describe must return a dict, not {described!r}")
    return card


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return value if isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    raise ExportError(f"describe returned a {type(value).__name__}, which JSON does not have: {value!r}")


def _manifest(name: str, tolerance: Tolerance, card: Card, proof: Proof, asked: Mapping[str, str]) -> dict[str, Any]:
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
        **({"imported": card["imported"]} if "imported" in card else {}),
        "baseline": card.get("baseline"),
        "tolerance": asdict(tolerance),
        "deterministic": proof.answers is not None,
        "independent_rows": proof.independent,
        **{key: way for key, way in asked.items() if way != "auto"},
        "versions": {
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
        },
        "files": {},
    }
