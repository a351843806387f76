"""Golden answers: requests with the responses they must give, in TensorFlow Serving's warm-up file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from horngate_protos import tensorflow_serving_pb2
from horngate_protos.datatypes import BY_NAME, BYTES, COMPLEX, DATATYPES, Datatype
from horngate_protos.tensor_protos import fill
from horngate_protos.tfrecords import framed
from horngate_trainer.errors import ExportError, VerificationError
from horngate_trainer.written import Tensors

FILE = Path("assets.extra") / "tf_serving_warmup_requests"


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far an answer may be from the golden one: ``|got - golden| <= atol + rtol * |golden|``.

    The default leaves room for a GPU, whose matrix products round their factors to ten bits (TF32); what a wrong or
    damaged model answers is farther off by far. Whole numbers, such as ``classes``, must be equal.

    Attributes:
        atol: in the unit of the output.
        rtol: a share of the golden answer.
    """

    atol: float = 1e-3
    rtol: float = 1e-2


HALF = Tolerance(atol=2e-2, rtol=5e-2)
"""The default where something is computed with the eight or eleven bits of half precision."""


def same_device(*, half: bool) -> Tolerance:
    """Between two runs on one device: different only in the order of additions."""
    return HALF if half else Tolerance(atol=1e-5, rtol=1e-4)


def compare(got: Tensors, golden: Tensors, tolerance: Tolerance | None) -> None:
    """Hold answers against golden ones.

    Args:
        got: what the written model answers.
        golden: what the original answers.
        tolerance: None where values cannot be compared, because there is not one right answer.

    Raises:
        VerificationError: they differ in names, shapes, dtypes or by more than the tolerance; the text says where.
    """
    if set(got) != set(golden):
        raise VerificationError(f"the written model answers {sorted(got)}, the original {sorted(golden)}")
    for name, want in golden.items():
        have = got[name]
        if (have.shape, have.dtype) != (want.shape, want.dtype):
            raise VerificationError(
                f"{name}: the written model answers {have.dtype} {have.shape}, the original {want.dtype} {want.shape}"
            )
        close = np.ones(want.shape, bool) if tolerance is None else near(have, want, tolerance)
        if not close.all():
            at = tuple(int(index) for index in np.argwhere(~close)[0])
            raise VerificationError(
                f"the written model does not compute what the original computes: {name}{list(at)} is {have[at]} "
                f"but must be {want[at]}, and {np.count_nonzero(~close)} of {close.size} values differ"
            )


def near(have: npt.NDArray[Any], want: npt.NDArray[Any], tolerance: Tolerance) -> npt.NDArray[np.bool_]:
    """Return, for each value, whether it is what is wanted. NaN equals NaN; only fractions have a tolerance."""
    if not is_fraction(want):
        return np.asarray(have == want, bool)
    # bfloat16 is none of NumPy's own types: it is compared as what holds all its values.
    kind = np.complex128 if want.dtype.kind == "c" else np.float64
    return np.asarray(
        np.isclose(have.astype(kind), want.astype(kind), rtol=tolerance.rtol, atol=tolerance.atol, equal_nan=True)
    )


def is_fraction(array: npt.NDArray[Any]) -> bool:
    """Whether it has floating-point or complex numbers."""
    return array.dtype.kind in "fc" or array.dtype.name == "bfloat16"


def nan(array: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return, for each value, whether it is no number."""
    if not is_fraction(array):
        return np.zeros(array.shape, bool)
    return np.asarray(np.isnan(array if array.dtype.kind == "c" else array.astype(np.float64)))


def write(path: Path, name: str, records: Mapping[str, Sequence[tuple[Tensors, Tensors | None]]]) -> None:
    """Write requests and their responses, where there are any, for the model ``name`` as TFRecords of PredictionLog.

    Args:
        path: of the file.
        name: the model's.
        records: by signature.

    Raises:
        ExportError: a tensor cannot travel over the wire.
        OSError: the file cannot be written.
    """
    with path.open("wb") as file:
        for signature, pairs in records.items():
            for request, response in pairs:
                file.write(framed(_record(name, signature, request, response).SerializeToString(deterministic=True)))


# --- private ---------------------------------------------------------------------------------------------------------

_BF16 = BY_NAME["BF16"]
_BY_NUMPY = {each.numpy: each for each in (*DATATYPES, *COMPLEX, BYTES) if each != _BF16}


def _record(
    name: str, signature: str, request: Tensors, response: Tensors | None
) -> tensorflow_serving_pb2.PredictionLog:
    log = tensorflow_serving_pb2.PredictionLog()
    for message in (log.predict_log.request, log.predict_log.response)[: 1 if response is None else 2]:
        message.model_spec.name = name
        message.model_spec.signature_name = signature
    _fill(log.predict_log.request.inputs, request)
    if response is not None:
        _fill(log.predict_log.response.outputs, response)
    return log


def _fill(message: Any, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
    for name, array in tensors.items():
        datatype = _datatype(name, array)
        content = array.astype(array.dtype.newbyteorder("<"), order="C")
        fill(message[name], datatype, array.shape, content.ravel().tolist() if datatype is BYTES else content.tobytes())


def _datatype(name: str, array: npt.NDArray[Any]) -> Datatype:
    found = _BF16 if array.dtype.name == "bfloat16" else _BY_NUMPY.get(array.dtype)
    if found is None:
        raise ExportError(f"{name} is {array.dtype}, which cannot travel over the wire")
    return found
