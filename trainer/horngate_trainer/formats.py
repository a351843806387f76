"""The formats that a version holds beside its SavedModel: each is written from it, and must answer as it does.

A format that cannot hold a model is left out, with the reason.
"""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from horngate_trainer import golden
from horngate_trainer.errors import ExportError, VerificationError
from horngate_trainer.golden import Tolerance
from horngate_trainer.written import Predict, Tensors

SAVED_MODEL = "savedmodel"
"""What every version holds: the others are written from it."""

Judge = Callable[[str, Predict], Mapping[str, Any]]
"""Called with a format's name and its predict function; returns what else the manifest says of it."""


class Format(Protocol):
    """What else a version can hold."""

    @property
    def name(self) -> str:
        """As ``formats=`` has it."""
        ...

    @property
    def file(self) -> Path:
        """What the version's folder gets; a file, or the first one of a folder of its own."""
        ...

    @property
    def approximate(self) -> bool:
        """Whether its answers are others on purpose, as a quantized model's are."""
        ...

    def write(self, saved_model: Path, destination: Path) -> Mapping[str, Any]:
        """Write a SavedModel in this format; return what the manifest says of the writing.

        Raises:
            ExportError: the format cannot hold the model; the text says why.
            OSError: it cannot be written.
        """

    def reload(self, path: Path) -> AbstractContextManager[Predict]:
        """Read what was written back, and yield its predictions by the SavedModel's names.

        Raises:
            ExportError: it cannot be read or computed.
        """


@dataclass(frozen=True, slots=True)
class Agreement:
    """How near answers are to a SavedModel's.

    Attributes:
        rows: that were compared.
        largest_difference: of two fractions; None where there are none.
        argmax_agreement: the share of rows whose largest entry, or whole numbers, are the same; None where there are
            neither.
    """

    rows: int
    largest_difference: float | None
    argmax_agreement: float | None


def agreement(pairs: Sequence[tuple[Tensors, Tensors]]) -> Agreement:
    """Compare answers, each with what the SavedModel answers."""
    differences, same, rows = [], [], 0
    for got, wanted in pairs:
        rows += max((len(array) for array in wanted.values() if array.ndim), default=1)
        for name, want in wanted.items():
            if golden.is_fraction(want):
                differences.append(_difference(got[name], want))
            if (places := _decided(got[name], want)) is not None:
                same.append(places)
    return Agreement(
        rows,
        max(differences) if differences else None,
        float(np.concatenate(same).mean()) if same else None,
    )


def add(  # noqa: PLR0917 - what one format meets
    each: Format,
    version: Path,
    requests: Sequence[Tensors],
    answers: Sequence[Tensors] | None,
    tolerance: Tolerance,
    judge: Judge | None,
) -> dict[str, Any]:
    """Write one format into a version in the making, and hold it against the recorded answers.

    Args:
        each: the format.
        version: the version's folder, which holds the SavedModel.
        requests: that are recorded.
        answers: to them; None where there is not one right answer.
        tolerance: of a server that holds a model against them.
        judge: sees it too, before it is kept.

    Returns:
        What the manifest says of it.

    Raises:
        ExportError: it cannot hold the model, or answers something else. It left nothing behind.
        OSError: it cannot be written.
    """
    if answers is None:
        raise ExportError("the model has no recorded answers that it could be held against")
    path = version / each.file
    try:
        notes = each.write(version, path)
        with each.reload(path) as predict:
            pairs = [(predict(request), wanted) for request, wanted in zip(requests, answers, strict=True)]
            found = agreement(_same_shapes(pairs))
            if not each.approximate:
                for got, wanted in pairs:
                    golden.compare(got, wanted, tolerance)
            allowed = _widened(tolerance, found) if each.approximate else asdict(tolerance)
            judged = judge(each.name, predict) if judge is not None else {}
    except ExportError:
        _remove(version, each.file)
        raise
    return {"file": each.file.as_posix(), **asdict(found), **notes, **judged, "tolerance": allowed}


# --- private ---------------------------------------------------------------------------------------------------------


def _same_shapes(pairs: Sequence[tuple[Tensors, Tensors]]) -> Sequence[tuple[Tensors, Tensors]]:
    """Return them as they are.

    Raises:
        VerificationError: names, shapes or dtypes differ.
    """
    for got, wanted in pairs:
        golden.compare(got, wanted, None)
    return pairs


def _difference(got: npt.NDArray[Any], want: npt.NDArray[Any]) -> float:
    kind = np.complex128 if want.dtype.kind == "c" else np.float64
    mine, theirs = got.astype(kind), want.astype(kind)
    same = (mine == theirs) | (np.isnan(mine) & np.isnan(theirs))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(mine - theirs))
    largest = float(apart.max(initial=0.0))
    if not math.isfinite(largest):
        raise VerificationError("an answer is no finite number where the SavedModel's is, or the other way round")
    return largest


def _decided(got: npt.NDArray[Any], want: npt.NDArray[Any]) -> npt.NDArray[np.bool_] | None:
    """Return, for each decision in an answer, whether it is the same; None where nothing is decided."""
    if not golden.is_fraction(want):
        return np.asarray(got == want, bool).ravel()
    if want.dtype.kind == "c" or want.ndim < 2 or want.shape[-1] < 2 or not want.size:
        return None
    return np.asarray(got.argmax(axis=-1) == want.argmax(axis=-1)).ravel()


def _widened(tolerance: Tolerance, found: Agreement) -> dict[str, float]:
    """Return the tolerance of a format that differs on purpose: twice what was seen, never less than the model's."""
    seen = found.largest_difference or 0.0
    widened = asdict(Tolerance(max(tolerance.atol, float(f"{2 * seen:.2g}")), tolerance.rtol))
    return {**widened, "argmax_agreement": round(max(0.0, (found.argmax_agreement or 0.0) - 0.05), 3)}


def _remove(version: Path, file: Path) -> None:
    """Remove a file, or the folder of its own that it is in."""
    if len(file.parts) > 1:
        shutil.rmtree(version / file.parent, ignore_errors=True)
    else:
        (version / file).unlink(missing_ok=True)
