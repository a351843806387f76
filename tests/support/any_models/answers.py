"""TensorFlow's own answers to every request run alone, and how others' are held against them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from support.any_models.kinds import COUNTS, SHAPES, Kind

Array = NDArray[Any]
FOLDER = ".answers"


def write(root: Path, kind: Kind, answers: list[Mapping[str, Array]]) -> None:
    """Keep a kind's answers, one mapping for each of its requests."""
    (root / FOLDER).mkdir(exist_ok=True)
    arrays = {f"{place} {name}": array for place, answer in enumerate(answers) for name, array in answer.items()}
    np.savez(root / FOLDER / f"{kind.name}.npz", **arrays)  # type: ignore[arg-type]  # NumPy's stub has other keywords


def read(root: Path, kind: Kind) -> list[dict[str, Array]]:
    """Return what was kept."""
    answers: list[dict[str, Array]] = [{} for _ in kind.asks]
    with np.load(root / FOLDER / f"{kind.name}.npz", allow_pickle=True) as stored:
        for key, array in stored.items():
            place, _, name = key.partition(" ")
            answers[int(place)][name] = array.view(ml_dtypes.bfloat16) if array.dtype.kind == "V" else array
    return answers


def difference(kind: Kind, wanted: Mapping[str, Array], got: Mapping[str, Array]) -> str:
    """Say how an answer differs from TensorFlow's; empty where it does not."""
    if set(wanted) != set(got):
        return f"outputs {sorted(got)}; expected {sorted(wanted)}"
    for name, right in wanted.items():
        mine = got[name]
        if mine.dtype != right.dtype and {mine.dtype, right.dtype} != {np.dtype("f4"), np.dtype(ml_dtypes.bfloat16)}:
            return f"{name} is {mine.dtype}; expected {right.dtype}"
        if mine.shape != right.shape:
            return f"{name} has shape {list(mine.shape)}; expected {list(right.shape)}"
        if kind.check == SHAPES or (kind.check == COUNTS and name == "calls"):
            continue
        if not _same(right, mine, kind.rtol):
            return f"{name} is {_shown(mine)}; expected {_shown(right)}"
    return ""


# --- private ------------------------------------------------------------------------------------------


def _same(right: Array, mine: Array, rtol: float) -> bool:
    if right.dtype.kind not in "fcV":
        return bool(np.array_equal(right, mine))
    exact = np.complex128 if right.dtype.kind == "c" else np.float64
    one, other = right.astype(exact), mine.astype(exact)
    finite = np.abs(one[np.isfinite(one)])
    return bool(np.allclose(other, one, rtol=rtol, atol=rtol * float(finite.max(initial=0.0)), equal_nan=True))


def _shown(array: Array) -> str:
    text = np.array2string(array, threshold=12, edgeitems=2).replace("\n", " ")
    return text if len(text) < 200 else f"{text[:200]}..."
