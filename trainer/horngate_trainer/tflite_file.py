"""A .tflite file, taken as it stands: a version of it holds no SavedModel, and LiteRT alone computes it."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from horngate_trainer.errors import SourceError, first_line
from horngate_trainer.litert import FILE, fixed_width, interpreter
from horngate_trainer.saved_model_folder import USUAL
from horngate_trainer.savedmodel import Input
from horngate_trainer.written import SIGNATURE, Answers, Effects, Predict, Tensors, as_array


@dataclass(frozen=True, slots=True, eq=False)
class TfliteFile:
    """A .tflite file on disk.

    Attributes:
        path: where.
        signature: the one that is tried and recorded.
        inputs: of that signature.
        half: whether some of it computes with whole numbers of few bits in the place of fractions.
        predict: what it answers where it lies.
    """

    path: Path
    signature: str
    inputs: tuple[Input, ...]
    half: bool
    predict: Predict = field(repr=False)

    def fits(self, _: Tensors) -> bool:
        """Whether the shapes are right: nothing but computing says so."""
        return True

    def write(self, path: Path, others: Mapping[str, Any]) -> Effects:
        """Copy it to where servers look for it.

        Raises:
            OSError: it cannot be read or written.
        """
        assert not others
        shutil.copyfile(self.path, path / FILE)
        return Effects((), (), (), ())

    @contextmanager
    def reload(self, path: Path) -> Iterator[Answers]:
        """Read a copy back, and yield what answers for it."""
        predict = _Runner(path / FILE).predict

        def answer(tensors: Tensors, _: str = "", /) -> dict[str, npt.NDArray[Any]]:
            return predict(tensors)

        yield answer


@dataclass(frozen=True, slots=True)
class Kept:
    """The format ``litert`` of a version that is made of nothing else; see `formats.Format`."""

    source: TfliteFile
    name: str = "litert"
    file: Path = FILE
    approximate: bool = False

    def write(self, _: Path, destination: Path) -> Mapping[str, Any]:
        """Say what the manifest says of it; it is there already."""
        return {"bytes": destination.stat().st_size, "signatures": [self.source.signature]}

    @contextmanager
    def reload(self, path: Path) -> Iterator[Predict]:
        """Yield the predictions of what was written."""
        yield _Runner(path).predict


def load(path: Path) -> TfliteFile:
    """Read a .tflite file.

    Raises:
        SourceError: LiteRT cannot read it, or no server could run it.
    """
    runner = _Runner(path)
    if texts := [each.name for each in runner.inputs if each.dtype == "string"]:
        raise SourceError(f"{path} takes texts ({texts[0]}), which {_ELSE}")
    return TfliteFile(path, runner.signature, runner.inputs, runner.quantized, runner.predict)


# --- private ---------------------------------------------------------------------------------------------------------

_ELSE = "servers do not compute with LiteRT: import the Keras file or SavedModel that it was made from"


class _Runner:
    """What computes a file; without signatures, tensors have their own names, as servers have it.

    Args:
        path: of the file.

    Raises:
        SourceError: LiteRT cannot read it.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._interpreter = interpreter(path)
            signatures = self._interpreter.get_signature_list()
            self.signature = next((name for name in USUAL if name in signatures), min(signatures, default=SIGNATURE))
            self._call = self._interpreter.get_signature_runner(self.signature) if signatures else None
            if self._call is None:
                self._interpreter.allocate_tensors()
                self._ins = {each["name"]: each for each in self._interpreter.get_input_details()}
                self._outs = {each["name"]: each for each in self._interpreter.get_output_details()}
            else:
                self._ins, self._outs = self._call.get_input_details(), self._call.get_output_details()
        except (RuntimeError, ValueError, OSError) as exc:
            raise SourceError(
                f"LiteRT cannot read {path}: {first_line(exc)}; if it lacks an operation, {_ELSE}"
            ) from exc
        self.inputs = tuple(_input(name, each) for name, each in sorted(self._ins.items()))

    @property
    def quantized(self) -> bool:
        """Whether a tensor of its stands for fractions with whole numbers."""
        details = self._interpreter.get_tensor_details()
        return any(
            np.dtype(each["dtype"]).kind in "iu" and len(each["quantization_parameters"]["scales"]) for each in details
        )

    def predict(self, tensors: Tensors) -> dict[str, npt.NDArray[Any]]:
        """Answer a request.

        Raises:
            ValueError: it does not take it.
        """
        try:
            if self._call is not None:
                answers = self._call(**{name: fixed_width(array) for name, array in tensors.items()})
            else:
                for name, array in tensors.items():
                    self._interpreter.resize_tensor_input(self._ins[name]["index"], array.shape, strict=True)
                self._interpreter.allocate_tensors()
                for name, array in tensors.items():
                    self._interpreter.set_tensor(self._ins[name]["index"], array)
                self._interpreter.invoke()
                answers = {name: self._interpreter.get_tensor(each["index"]) for name, each in self._outs.items()}
        except RuntimeError as exc:
            raise ValueError(first_line(exc)) from exc
        return {name: as_array(answers[name]) for name in sorted(answers)}


def _input(name: str, details: Mapping[str, Any]) -> Input:
    known = details["shape_signature"] if len(details["shape_signature"]) else details["shape"]
    return Input(
        name, str(tf.as_dtype(details["dtype"]).name), tuple(None if axis < 0 else int(axis) for axis in known)
    )
