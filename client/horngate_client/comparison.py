"""Answers beside recorded ones: equal where they are whole numbers or text, near enough where they are fractions."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from horngate_client.codec import Array

TOLERANCE = 1e-3


@dataclass(slots=True)
class OutputComparison:
    """How one output compares over all answers.

    Attributes:
        rows: that were compared; an output without rows counts as one.
        different: of these, how many are not the same, or not near enough.
        largest: the largest difference between two fractions; None where there are none. Infinite where one is no
            number and the other is.
        classes_changed: rows whose highest value is at another place; None where it is no table of scores.
        example: the first row that differs, in words.
    """

    rows: int = 0
    different: int = 0
    largest: float | None = None
    classes_changed: int | None = None
    example: str = ""


@dataclass(slots=True)
class Comparison:
    """How answers compare with recorded ones.

    Attributes:
        tolerance: |answer - recorded| may be up to tolerance * (1 + |recorded|).
        compared: answers so far.
        different: of these, how many differ in any output.
        outputs: by name.
    """

    tolerance: float = TOLERANCE
    compared: int = 0
    different: int = 0
    outputs: dict[str, OutputComparison] = field(default_factory=dict)

    def add(self, recorded: Mapping[str, Array], answer: Mapping[str, Array], place: str) -> None:
        """Compare an answer.

        Args:
            recorded: what was answered then; what else an answer has is not looked at.
            answer: what is answered now.
            place: where the first was read, for people.
        """
        same = [self._same(name, array, answer.get(name), place) for name, array in recorded.items()]
        self.compared += 1
        self.different += not all(same)

    def json(self) -> dict[str, Any]:
        """Return what json.dumps takes."""
        return asdict(self)

    # --- private ------------------------------------------------------------------------------------------

    def _same(self, name: str, recorded: Array, answer: Array | None, place: str) -> bool:
        found = self.outputs.setdefault(name, OutputComparison())
        rows = len(recorded) if recorded.ndim else 1
        found.rows += rows
        if answer is None or answer.shape != recorded.shape or answer.dtype != recorded.dtype:
            found.different += rows
            came = "missing" if answer is None else f"{_kind(answer)} {list(answer.shape)}"
            found.example = found.example or (
                f"{place}: {name} is {came}; recorded was {_kind(recorded)} {list(recorded.shape)}"
            )
            return False
        near = self._near(found, recorded, answer)
        if near.all():
            return True
        found.different += int((~near.reshape(rows, -1)).any(axis=1).sum())
        at = tuple(np.argwhere(~near)[0].tolist())
        found.example = found.example or f"{place}: {name}{list(at)} is {answer[at]}; recorded was {recorded[at]}"
        return False

    def _near(self, found: OutputComparison, recorded: Array, answer: Array) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return, for each element, whether it is near enough; note how far it is."""
        if recorded.dtype.kind not in "fc":
            return np.asarray(answer == recorded, bool)
        then, now = (
            each.astype(np.complex128 if each.dtype.kind == "c" else np.float64) for each in (recorded, answer)
        )
        alike = (then == now) | (np.isnan(then) & np.isnan(now))
        with np.errstate(invalid="ignore"):
            distance = np.where(alike, 0.0, np.abs(now - then))
        distance[np.isnan(distance)] = np.inf
        found.largest = max(found.largest or 0.0, float(distance.max(initial=0.0)))
        if recorded.ndim == 2 and recorded.shape[1] > 1 and recorded.dtype.kind == "f":
            changed = int((then.argmax(axis=1) != now.argmax(axis=1)).sum())
            found.classes_changed = (found.classes_changed or 0) + changed
        near: np.ndarray[Any, np.dtype[np.bool_]] = alike | (
            np.isfinite(distance) & (distance <= self.tolerance * (1 + np.abs(then)))
        )
        return near


# --- private ------------------------------------------------------------------------------------------------


def _kind(array: Array) -> str:
    return "BYTES" if array.dtype.hasobject else str(array.dtype)
