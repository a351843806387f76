"""Which formats a version gets beside its SavedModel, and what the manifest says of each."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from horngate_trainer import formats
from horngate_trainer.errors import ExportError
from horngate_trainer.examples import Request, one_row_each
from horngate_trainer.formats import SAVED_MODEL, Format, Judge
from horngate_trainer.golden import Tolerance
from horngate_trainer.litert import CALIBRATION_ROWS, LiteRT
from horngate_trainer.proving import Proof
from horngate_trainer.savedmodel import Input
from horngate_trainer.settings import QUANTIZATIONS
from horngate_trainer.tfjs import TfJs
from horngate_trainer.written import Tensors

FORMATS: Mapping[str, Callable[[str, Sequence[Tensors]], Format]] = {"litert": LiteRT, "tfjs": lambda *_: TfJs()}
"""Makes each, from a quantization and requests to calibrate it with."""
USUAL = ("litert",)
"""Those that are written where nothing is said, if they can hold the model."""


def wanted(names: Any, quantize: Any, inputs: Sequence[Input], rows: Request | None) -> Sequence[Format]:
    """Return the formats to write.

    Args:
        names: as ``formats`` of `export`; None for the usual ones.
        quantize: as there.
        inputs: of the model.
        rows: real ones; None where there are none.

    Raises:
        ExportError: there is no such format or quantization, or int8 has no rows to be calibrated with.
    """
    known = (SAVED_MODEL, *FORMATS)
    if names is not None and (isinstance(names, str) or not set(names) <= set(known) or SAVED_MODEL not in names):
        raise ExportError(f"formats must be {SAVED_MODEL!r} and any of {', '.join(FORMATS)}, not {names!r}")
    if quantize not in QUANTIZATIONS:
        raise ExportError(f"quantize must be one of {', '.join(QUANTIZATIONS)}, not {quantize!r}")
    if quantize != "none" and names is not None and "litert" not in names:
        raise ExportError(f"quantize={quantize!r} is for the format litert, which formats={names!r} leaves out")
    if quantize == "int8" and rows is None:
        raise ExportError("quantize='int8' needs real rows: give some as calibration=... or examples=...")
    calibration = one_row_each(inputs, rows, CALIBRATION_ROWS) if quantize == "int8" and rows is not None else ()
    return [FORMATS[name](quantize, calibration) for name in FORMATS if name in (USUAL if names is None else names)]


def write(
    wanted: Sequence[Format],
    version: Path,
    proof: Proof,
    tolerance: Tolerance,
    judge: Judge | None,
    *,
    by_name: bool,
) -> dict[str, Any]:
    """Write formats into a version in the making; return what the manifest says of each.

    Args:
        wanted: what to write.
        version: the version's folder, which holds the SavedModel.
        proof: has the recorded requests and answers.
        tolerance: of a server that holds a model against them.
        judge: sees each before it is kept.
        by_name: they were asked for: one that cannot hold the model is an error.

    Raises:
        ExportError: one that was asked for cannot hold the model, or answers something else.
    """
    found: dict[str, Any] = {}
    for each in wanted:
        try:
            found[each.name] = formats.add(each, version, proof.requests, proof.answers, tolerance, judge)
        except ExportError as exc:
            if by_name:
                raise ExportError(f"no {each.file}: {exc}") from exc
            found[each.name] = {"file": each.file.as_posix(), "left_out": str(exc)}
    return found


def remarks(written: Mapping[str, Any]) -> list[str]:
    """Return what a person should know of the formats: those that are left out, and why."""
    return [f"no {each['file']}: {each['left_out']}" for each in written.values() if "left_out" in each]


def describe(written: Mapping[str, Any]) -> str:
    """Say in one line what the manifest says of a format that was tested, or why it is left out."""
    file = Path(written["file"])
    if "left_out" in written:
        return f"left out  {file.name}: {written['left_out']}"
    line = f"format    {file} {written['bytes'] / 1e6:.2f} MB"
    test = written.get("test")
    if test is None:
        return line
    if written.get("quantization", "none") != "none":
        line += f" ({written['quantization']}, float32 {written['float_bytes'] / 1e6:.2f} MB)"
    return (
        f"{line}: same classes for {test['same_classes']} of {test['total']} test images, "
        f"{test['accuracy']:.2%} right, largest difference {test['largest_difference']:.1g}"
    )
