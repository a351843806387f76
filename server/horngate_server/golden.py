"""A model must reproduce its own recorded answers before it takes traffic.

``assets.extra/tf_serving_warmup_requests`` is TensorFlow Serving's warm-up file: a TFRecord file of PredictionLog. The
trainer records the responses too; here the requests are replayed, at several batch sizes, and the answers compared:
the same class wins every row, and values agree within the manifest's tolerance.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError

from horngate_protos.tensorflow_pb2 import TensorProto
from horngate_protos.tensorflow_serving_pb2 import PredictionLog, PredictLog
from horngate_server.errors import ModelError, ModelFailed
from horngate_server.model import Array, Model
from horngate_server.repository import Version
from horngate_server.signature import Signature, TensorSpec

RECORDS = Path("assets.extra", "tf_serving_warmup_requests")
MAX_RECORDS = 1000
"""TensorFlow Serving refuses more."""
TOLERANCE = {"atol": 1e-4, "rtol": 1e-3}
"""Where the manifest gives none: devices and batch sizes differ in the last bits."""
REPLAY_ROWS = (1, 7, 64)
"""Rows per replayed batch: one, an odd number that is padded, many."""


def verify(version: Version, model: Model, rungs: Sequence[int]) -> str:
    """Replay the recorded requests and compare.

    Returns:
        "verified (N rows)", or why there was nothing to verify.

    Raises:
        ModelError: an answer differs, naming the worst example; or the file is damaged.
    """
    path = version.path / RECORDS
    if not path.is_file():
        return "unverified: it has no recorded answers"
    vouched = version.manifest is not None and RECORDS.as_posix() in version.manifest["files"]
    records = read(path, sealed=vouched)
    pairs = [pair for pair in (_pair(log, model.signature, path) for log in records) if pair is not None]
    if not pairs:
        return "unverified: its recorded requests have no answers"
    inputs, expected = (_concatenate(side) for side in zip(*pairs, strict=True))
    tolerance = {**TOLERANCE, **((version.manifest or {}).get("tolerance") or {})}
    total = len(next(iter(inputs)))
    for rows in REPLAY_ROWS:
        if rows > rungs[-1]:
            break
        for start in range(0, total, rows):
            given = [array[start : start + rows] for array in inputs]
            wanted = [array[start : start + rows] for array in expected]
            _compare(_run(model, given, rungs), wanted, model.signature, tolerance, start)
    return f"verified ({total} rows)"


def read(path: Path, *, sealed: bool = False) -> Iterator[PredictLog]:
    """Read the predict logs of a TFRecord file (length, masked CRC-32C, payload, masked CRC-32C).

    Args:
        path: the file.
        sealed: a manifest's SHA-256 has vouched for it: its checksums, slow in Python, are not looked at.

    Raises:
        ModelError: it is damaged, or has more than `MAX_RECORDS` records.
    """
    data = path.read_bytes()
    position = 0
    for _ in range(MAX_RECORDS):
        if position == len(data):
            return
        payload, position = _frame(data, position, path, sealed=sealed)
        try:
            yield PredictionLog.FromString(payload).predict_log
        except DecodeError as error:
            raise ModelError(f"{path} holds a record that is no PredictionLog: {error}") from error
    if position != len(data):
        raise ModelError(f"{path} has more than {MAX_RECORDS} records")


# --- private ------------------------------------------------------------------------------------------

_Arrays = list[Array]


def _frame(data: bytes, position: int, path: Path, *, sealed: bool) -> tuple[bytes, int]:
    header = data[position : position + 12]
    if len(header) == 12:
        length, length_crc = struct.unpack("<QI", header)
        start, stop = position + 12, position + 12 + length
        if (sealed or length_crc == _masked_crc(header[:8])) and stop + 4 <= len(data):
            payload = data[start:stop]
            if sealed or struct.unpack("<I", data[stop : stop + 4])[0] == _masked_crc(payload):
                return payload, stop + 4
    raise ModelError(f"{path} is damaged at byte {position}: not a whole TFRecord")


def _masked_crc(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _crc_entry(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)  # Castagnoli's polynomial, reflected
    return byte


_CRC_TABLE = tuple(map(_crc_entry, range(256)))


def _pair(log: PredictLog, signature: Signature, path: Path) -> tuple[_Arrays, _Arrays] | None:
    """Return a record's inputs and expected outputs in the signature's order; None where it has no response."""
    if not log.response.outputs or log.request.model_spec.signature_name not in ("", signature.name):
        return None
    return (
        _arrays(log.request.inputs, signature.inputs, path),
        _arrays(log.response.outputs, signature.outputs, path),
    )


def _arrays(tensors: Mapping[str, TensorProto], specs: Sequence[TensorSpec], path: Path) -> _Arrays:
    arrays = []
    for spec in specs:
        tensor = tensors.get(spec.name)
        shape = tuple(dim.size for dim in tensor.tensor_shape.dim) if tensor else ()
        if tensor is None or tensor.dtype != spec.datatype.tensorflow or not spec.fits(shape):
            raise ModelError(f"{path} holds a record that does not fit {spec}")
        if len(tensor.tensor_content) != spec.nbytes(shape):
            raise ModelError(f"{path} holds a record whose {spec.name} is not {list(shape)} in tensor_content")
        arrays.append(np.frombuffer(tensor.tensor_content, spec.datatype.numpy).reshape(shape))
    return arrays


def _concatenate(records: Sequence[_Arrays]) -> _Arrays:
    return [np.concatenate(arrays) for arrays in zip(*records, strict=True)]


def _run(model: Model, given: _Arrays, rungs: Sequence[int]) -> Sequence[Array]:
    rows = len(given[0])
    rung = next(rung for rung in rungs if rung >= rows)
    feed = model.feed(model.signature, [(rung, *array.shape[1:]) for array in given])
    for memory, array in zip(feed.arrays, given, strict=True):
        memory[:rows] = array
        memory[rows:] = 0
    try:
        return [array[:rows] for array in model.run(feed)]
    except ModelFailed as error:
        raise ModelError(f"it fails on its own recorded requests: {error}") from error


def _compare(
    got: Sequence[Array], wanted: _Arrays, signature: Signature, tolerance: Mapping[str, float], start: int
) -> None:
    for spec, mine, recorded in zip(signature.outputs, got, wanted, strict=True):
        if mine.shape != recorded.shape:
            raise ModelError(f"{spec} came back as {list(mine.shape)}; recorded was {list(recorded.shape)}")
        if spec.datatype.numpy.kind == "f":
            distance = np.abs(mine.astype(np.float64) - recorded.astype(np.float64))
            off = distance - (tolerance["atol"] + tolerance["rtol"] * np.abs(recorded))
            agrees = not (off > 0).any() and not np.isnan(off).any()
            if mine.ndim == 2 and agrees:
                agrees = bool((mine.argmax(axis=1) == recorded.argmax(axis=1)).all())
            if agrees:
                continue
            worst = tuple(map(int, np.unravel_index(np.nanargmax(np.nan_to_num(off, nan=np.inf)), off.shape)))
        elif (mine == recorded).all():
            continue
        else:
            worst = tuple(map(int, np.argwhere(mine != recorded)[0]))
        raise ModelError(
            f"it disagrees with its recorded answers: {spec.name} of recorded row {start + worst[0]} is "
            f"{mine[worst]}, recorded was {recorded[worst]}"
        )
