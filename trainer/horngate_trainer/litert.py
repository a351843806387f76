"""A SavedModel as a .tflite file, which LiteRT (TensorFlow Lite) runs without TensorFlow."""

import logging
import re
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from horngate_protos.control_groups import cores
from horngate_trainer import quiet
from horngate_trainer.errors import ExportError, first_line
from horngate_trainer.explaining import SIGNATURE as EXPLAIN
from horngate_trainer.model_files import LITE
from horngate_trainer.written import SIGNATURE, Predict, Tensors, as_array

FILE = Path(LITE)
LIMIT_BYTES = (1 << 31) - 1
"""A flatbuffer, which a .tflite file is, can be no larger."""
CALIBRATION_ROWS = 200
"""So many rows, at most, are looked at for the ranges of int8."""


@dataclass(frozen=True, slots=True)
class LiteRT:
    """The format ``litert``.

    Attributes:
        quantization: ``none``: float32 as in the SavedModel; ``dynamic``: weights of 8 bits; ``float16``: of 16
            bits; ``int8``: weights and activations of 8 bits.
        calibration: requests of one row each, from which ``int8`` takes the ranges of activations.
    """

    quantization: str = "none"
    calibration: Sequence[Tensors] = field(default=(), repr=False)
    name: str = "litert"
    file: Path = FILE

    @property
    def approximate(self) -> bool:
        """Whether its answers differ from the SavedModel's on purpose."""
        return self.quantization != "none"

    def write(self, saved_model: Path, destination: Path) -> Mapping[str, Any]:
        """Write the file, with every signature that LiteRT can hold.

        Raises:
            ExportError: it cannot hold ``serving_default``.
            OSError: the file cannot be written.
        """
        began = time.monotonic()
        weights = sum(file.stat().st_size for file in (saved_model / "variables").glob("*"))
        if weights > LIMIT_BYTES:
            raise ExportError(f"its weights are {weights / 1e9:.1f} GB, and a .tflite file holds at most 2.1 GB")
        names, left_out = [SIGNATURE], _gradients(saved_model)
        content = self._converted(saved_model, names)
        for other in _other_signatures(saved_model):
            try:
                content = self._converted(saved_model, [*names, other])
            except ExportError as exc:
                left_out[other] = str(exc)
            else:
                names.append(other)
        destination.write_bytes(content)
        notes: dict[str, Any] = {"bytes": len(content), "quantization": self.quantization, "signatures": names}
        if left_out:
            notes["signatures_left_out"] = left_out
        if self.approximate:
            notes["float_bytes"] = len(LiteRT()._converted(saved_model, names))  # noqa: SLF001 - its own
        return {**notes, "seconds": round(time.monotonic() - began, 2)}

    @contextmanager
    def reload(self, path: Path) -> Iterator[Predict]:
        """Read a .tflite file back, and yield its predictions by the names of its signature.

        Raises:
            ExportError: LiteRT cannot read or compute it, or its names are others than asked for.
        """
        with _refusals("LiteRT cannot read it"):
            reader = interpreter(path)
            runner = reader.get_signature_runner(SIGNATURE)

        first = iter([True])

        def predict(tensors: Tensors) -> dict[str, npt.NDArray[Any]]:
            with _refusals("LiteRT cannot compute it", silent=next(first, False)):
                answers = runner(**{name: fixed_width(array) for name, array in tensors.items()})
            return {name: as_array(answers[name]) for name in sorted(answers)}

        yield predict

    def _converted(self, saved_model: Path, signatures: Sequence[str]) -> bytes:
        """Convert these signatures.

        Raises:
            ExportError: LiteRT cannot hold them.
        """
        with _refusals("LiteRT cannot hold it"):
            converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model), signature_keys=list(signatures))
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
            if self.approximate:
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
            if self.quantization == "float16":
                converter.target_spec.supported_types = [tf.float16]
            if self.quantization == "int8":
                converter.target_spec.supported_ops.append(tf.lite.OpsSet.TFLITE_BUILTINS_INT8)
                converter.representative_dataset = self._representative
            content: bytes = converter.convert()
        return content

    def _representative(self) -> Iterator[tuple[str, dict[str, npt.NDArray[Any]]]]:
        for row in self.calibration[:CALIBRATION_ROWS]:
            yield SIGNATURE, dict(row)


def interpreter(path: Path) -> Any:
    """Return LiteRT's own interpreter where it is installed, else the one that TensorFlow brings along."""
    try:
        from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415 - it need not be there
    except ImportError:
        Interpreter = tf.lite.Interpreter  # noqa: N806 - the same class
    return Interpreter(model_path=str(path), num_threads=cores())


def fixed_width(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return texts as LiteRT's Python takes them."""
    return array.astype(np.bytes_) if array.dtype.hasobject else array


# --- private ---------------------------------------------------------------------------------------------------------

_LACKING = re.compile(r"^\s*(?:TF Select|Flex|Custom) ops: (.+)$", re.MULTILINE)

_WRONG = re.compile(r"'tf\.(\w+)' op (.+)")


@contextmanager
def _refusals(what: str, *, silent: bool = True) -> Iterator[None]:
    """Silence TensorFlow's tools, and turn what they raise into an ExportError: they may raise anything."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with quiet.everything() if silent else nullcontext(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as exc:
        raise ExportError(f"{what}: {_reason(exc)}") from exc
    finally:
        logger.setLevel(level)


def _reason(error: Exception) -> str:
    """Return why, without where in the converter's graph that was."""
    lacking = sorted({name for found in _LACKING.findall(str(error)) for name in found.split(", ")})
    if lacking:
        return f"it has no operation {', '.join(lacking)}"
    wrong = _WRONG.search(str(error))
    return f"the operation {wrong[1]} {wrong[2]}" if wrong else first_line(error)


def _gradients(saved_model: Path) -> dict[str, str]:
    return {EXPLAIN: "gradients stay with TensorFlow"} if EXPLAIN in _signatures(saved_model) else {}


def _signatures(saved_model: Path) -> set[str]:
    saved = saved_model_pb2.SavedModel.FromString((saved_model / "saved_model.pb").read_bytes())
    return {name for meta in saved.meta_graphs for name in meta.signature_def}


def _other_signatures(saved_model: Path) -> list[str]:
    names = _signatures(saved_model)
    return sorted(name for name in names if name not in (SIGNATURE, EXPLAIN) and not name.startswith("__"))
