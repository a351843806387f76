"""Golden answers: requests with the responses they must give, in TensorFlow Serving's warm-up file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from horngate_protos import tensorflow_pb2, tensorflow_serving_pb2
from horngate_protos.datatypes import BY_NUMPY
from horngate_trainer.errors import ExportError, VerificationError
from horngate_trainer.savedmodel import SIGNATURE, Tensors

FILE = Path("assets.extra") / "tf_serving_warmup_requests"
BATCHES = (1, 7, 32)  # rows of each request: the smallest, an odd one, a usual one


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far an answer may be from the golden one: ``|got - golden| <= atol + rtol * |golden|``.

    The default leaves room for a GPU, whose matrix products round their factors to ten bits (TF32); what a wrong or
    damaged model answers is farther off by far. Whole numbers, such as ``classes``, must be equal.
    """

    atol: float = 1e-3
    rtol: float = 1e-2


# Between the Keras model and the file just written, on one device: different only in the order of additions.
SAME_DEVICE = Tolerance(atol=1e-5, rtol=1e-4)


def batches(examples: Tensors) -> list[dict[str, npt.NDArray[Any]]]:
    """Cut requests of BATCHES rows out of examples, starting over where they run out."""
    rows = len(next(iter(examples.values())))
    ends = np.cumsum(BATCHES)
    spans = [np.arange(end - size, end) % rows for size, end in zip(BATCHES, ends, strict=True)]
    return [{name: np.ascontiguousarray(array[span]) for name, array in examples.items()} for span in spans]


def compare(got: Tensors, golden: Tensors, tolerance: Tolerance) -> None:
    """Hold answers against golden ones.

    Raises:
        VerificationError: they differ in names, shapes, dtypes or by more than the tolerance; the text says where.
    """
    if set(got) != set(golden):
        raise VerificationError(f"the written model answers {sorted(got)}, the Keras model {sorted(golden)}")
    for name, want in golden.items():
        have = got[name]
        if (have.shape, have.dtype) != (want.shape, want.dtype):
            raise VerificationError(
                f"{name}: the written model answers {have.dtype} {have.shape}, "
                f"the Keras model {want.dtype} {want.shape}"
            )
        if want.dtype.kind in "fc":
            near = np.isclose(have, want, rtol=tolerance.rtol, atol=tolerance.atol)
        else:
            near = np.asarray(have == want)
        if not near.all():
            at = tuple(int(index) for index in np.argwhere(~near)[0])
            raise VerificationError(
                f"the written model does not compute what the Keras model computes: {name}{list(at)} is {have[at]} "
                f"but must be {want[at]}, and {np.count_nonzero(~near)} of {near.size} values differ"
            )


def write(path: Path, name: str, records: Sequence[tuple[Tensors, Tensors]]) -> None:
    """Write requests and their responses for the model ``name`` as TFRecords of PredictionLog.

    Raises:
        ExportError: TensorFlow could not write the file.
    """
    try:
        with tf.io.TFRecordWriter(str(path)) as writer:
            for request, response in records:
                writer.write(_record(name, request, response).SerializeToString(deterministic=True))
    except (tf.errors.OpError, OSError) as exc:
        raise ExportError(f"cannot write {path.name}: {str(exc).splitlines()[0]}") from exc


# --- private ---------------------------------------------------------------------------------------------------------


def _record(name: str, request: Tensors, response: Tensors) -> tensorflow_serving_pb2.PredictionLog:
    log = tensorflow_serving_pb2.PredictionLog()
    for message in (log.predict_log.request, log.predict_log.response):
        message.model_spec.name = name
        message.model_spec.signature_name = SIGNATURE
    _fill(log.predict_log.request.inputs, request)
    _fill(log.predict_log.response.outputs, response)
    return log


def _fill(message: Any, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
    for name, array in tensors.items():
        datatype = BY_NUMPY.get(array.dtype)
        if datatype is None:
            raise ExportError(f"{name} is {array.dtype}, which cannot travel over the wire")
        tensor: tensorflow_pb2.TensorProto = message[name]
        tensor.dtype = datatype.tensorflow
        for size in array.shape:
            tensor.tensor_shape.dim.add(size=size)
        tensor.tensor_content = np.ascontiguousarray(array, datatype.numpy).tobytes()
