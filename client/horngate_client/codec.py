"""Arrays to ``ModelInferRequest``, ``ModelInferResponse`` to arrays: raw both ways; typed answers are read too."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from horngate_client.errors import ProtocolError
from horngate_client.signature import TensorSpec
from horngate_protos import open_inference_pb2 as oip
from horngate_protos.datatypes import BY_NAME
from horngate_protos.wire import varint

Array = NDArray[Any]

_RAW_TAG = bytes([oip.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER << 3 | 2])


@dataclass(frozen=True, slots=True)
class Answer:
    """One response.

    Attributes:
        outputs: the arrays by name.
        version: the model version that answered.
        queue_seconds: waiting in the server, where it tells.
        compute_seconds: the model's time, where it tells.
    """

    outputs: dict[str, Array]
    version: str
    queue_seconds: float | None
    compute_seconds: float | None


class RequestEncoder:
    """Encodes requests that differ in their rows only.

    What comes before the tensors' bytes is built by protobuf once per number of rows; the bytes are appended
    by hand (fields of a message may come in any order), so that a large array is copied once and not four
    times.
    """

    def __init__(
        self,
        model: str,
        version: str,
        specs: Sequence[TensorSpec],
        outputs: Sequence[str] = (),
        *,
        timing: bool = False,
        signature: str = "",
    ) -> None:
        self._specs = specs
        self._base = oip.ModelInferRequest(
            model_name=model,
            model_version=version,
            outputs=[oip.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in outputs],
        )
        if timing:
            self._base.parameters["horngate_timing"].bool_param = True
        if signature:
            self._base.parameters["signature"].string_param = signature
        self._heads: dict[tuple[tuple[int, ...], ...], bytes] = {}

    def encode(self, arrays: Mapping[str, Array]) -> bytes:
        """Return the request's bytes; the arrays fit the signature already and are contiguous."""
        chosen = [arrays[spec.name] for spec in self._specs]
        shapes = tuple(array.shape for array in chosen)
        parts: list[bytes | memoryview] = [self._heads.get(shapes) or self._head(shapes)]
        for array in chosen:
            raw = _pack(array) if array.dtype.hasobject else array.data
            parts += (_RAW_TAG, varint(raw.nbytes if isinstance(raw, memoryview) else len(raw)), raw)
        return b"".join(parts)

    def _head(self, shapes: tuple[tuple[int, ...], ...]) -> bytes:
        message = oip.ModelInferRequest()
        message.CopyFrom(self._base)
        for spec, shape in zip(self._specs, shapes, strict=True):
            message.inputs.add(name=spec.name, datatype=spec.datatype, shape=shape)
        self._heads[shapes] = message.SerializeToString()
        return self._heads[shapes]


def decode(payload: bytes, *, rows: int | None = None, wanted: Sequence[str] = ()) -> Answer:
    """Read a response.

    Args:
        payload: the message's bytes.
        rows: the length of every output's first axis, where the model works in rows.
        wanted: outputs that must be there.
    """
    try:
        message = oip.ModelInferResponse.FromString(payload)
    except DecodeError as exc:
        raise ProtocolError(f"the answer of {len(payload)} bytes is no ModelInferResponse") from exc
    raw = message.raw_output_contents
    if raw and len(raw) != len(message.outputs):
        raise ProtocolError(f"the answer names {len(message.outputs)} outputs and carries bytes for {len(raw)}")
    outputs = {}
    for index, tensor in enumerate(message.outputs):
        array = _unpack(tensor, raw[index]) if raw else _typed(tensor)
        if rows is not None and (array.ndim == 0 or len(array) != rows):
            raise ProtocolError(f"{rows} rows were asked and {tensor.name} came in the shape {list(array.shape)}")
        outputs[tensor.name] = array
    for name in wanted:
        if name not in outputs:
            raise ProtocolError(f"the answer lacks the output {name!r}; it has {', '.join(outputs) or 'none'}")
    return Answer(
        outputs,
        message.model_version,
        _seconds(message, "horngate_queue_us"),
        _seconds(message, "horngate_compute_us"),
    )


def decode_inputs(request: oip.ModelInferRequest) -> dict[str, Array]:
    """Read the arrays of a request whose contents are raw, by input name.

    Args:
        request: as a server wrote it down.
    """
    raw = request.raw_input_contents
    if len(raw) != len(request.inputs):
        raise ProtocolError(f"a recorded request names {len(request.inputs)} inputs and carries bytes for {len(raw)}")
    return {tensor.name: _unpack(tensor, data) for tensor, data in zip(request.inputs, raw, strict=True)}


# --- private ------------------------------------------------------------------------------------------------

_Tensor = oip.ModelInferResponse.InferOutputTensor | oip.ModelInferRequest.InferInputTensor


def _pack(array: Array) -> bytes:
    """BYTES travel as a length of four bytes before each element."""
    return b"".join(len(item).to_bytes(4, "little") + item for item in array.reshape(-1).tolist())


def _seconds(message: oip.ModelInferResponse, name: str) -> float | None:
    return message.parameters[name].int64_param / 1e6 if name in message.parameters else None


def _unpack(tensor: _Tensor, raw: bytes) -> Array:
    shape = _shape_of(tensor)
    if tensor.datatype == "BYTES":
        return _bytes_array(_split_bytes(tensor.name, raw), tensor.name, shape)
    dtype = _numpy(tensor)
    if len(raw) != prod(shape) * dtype.itemsize:
        raise ProtocolError(
            f"{tensor.name} {tensor.datatype} {list(shape)} takes {prod(shape) * dtype.itemsize} bytes, "
            f"and {len(raw)} came"
        )
    return widen(np.frombuffer(raw, dtype).reshape(shape), tensor.datatype)


def _typed(tensor: oip.ModelInferResponse.InferOutputTensor) -> Array:
    shape = _shape_of(tensor)
    if tensor.datatype == "BYTES":
        return _bytes_array(list(tensor.contents.bytes_contents), tensor.name, shape)
    dtype = _numpy(tensor)
    field = BY_NAME[tensor.datatype].contents
    values = getattr(tensor.contents, field) if field else ()
    if len(values) != prod(shape):
        raise ProtocolError(f"{tensor.name} {list(shape)} takes {prod(shape)} values, and {len(values)} came")
    return np.array(values, dtype).reshape(shape)


def _shape_of(tensor: _Tensor) -> tuple[int, ...]:
    shape = tuple(tensor.shape)
    if any(axis < 0 for axis in shape):
        raise ProtocolError(f"{tensor.name} came in the shape {list(shape)}")
    return shape


def _numpy(tensor: _Tensor) -> np.dtype[np.generic]:
    if tensor.datatype not in BY_NAME:
        raise ProtocolError(f"{tensor.name} came with the unknown datatype {tensor.datatype!r}")
    return BY_NAME[tensor.datatype].numpy


def widen(array: Array, datatype: str) -> Array:
    """BF16 is the upper half of a float32, and NumPy knows only that."""
    return (array.astype("<u4") << 16).view("<f4") if datatype == "BF16" else array


def _split_bytes(name: str, raw: bytes) -> list[bytes]:
    items, at = [], 0
    while at < len(raw):
        start = at + 4
        at = start + int.from_bytes(raw[at:start], "little")
        items.append(raw[start:at])
    if at != len(raw):
        raise ProtocolError(f"the strings of {name} end in the midst of one")
    return items


def _bytes_array(items: list[bytes], name: str, shape: tuple[int, ...]) -> Array:
    if len(items) != prod(shape):
        raise ProtocolError(f"{name} {list(shape)} takes {prod(shape)} strings, and {len(items)} came")
    out = np.empty(len(items), dtype=object)
    out[:] = items
    return out.reshape(shape)
