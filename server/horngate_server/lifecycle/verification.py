"""A model must reproduce its own recorded answers before it takes traffic.

``assets.extra/tf_serving_warmup_requests`` is TensorFlow Serving's warm-up file: a TFRecord file of PredictionLog. The
trainer records the responses too; here the requests are replayed, as they came and, where rows share runs, at several
batch sizes, and the answers compared: the same class wins every row, and values agree within the manifest's tolerance.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from horngate_protos import tfrecords
from horngate_protos.tensorflow_pb2 import TensorProto
from horngate_protos.tensorflow_serving_pb2 import PredictionLog, PredictLog
from horngate_server.core.errors import InvalidRequest, ModelError, RequestError
from horngate_server.core.model import Array, Model
from horngate_server.core.settings import TENSORFLOW
from horngate_server.core.signature import Batching, Signature, TensorSpec
from horngate_server.engine.batching import joined
from horngate_server.lifecycle.comparison import Tolerance, as_numbers, decisions, first_difference
from horngate_server.lifecycle.repository import MANIFEST, Version
from horngate_server.lifecycle.trial_runs import computed
from horngate_server.protocols.tensor_proto import data_of, shape_of

RECORDS = Path("assets.extra", "tf_serving_warmup_requests")
MAX_RECORDS = 1000
"""TensorFlow Serving refuses more."""
VERIFIED = "verified"
"""How the text begins that says that it did."""
TOLERANCE = {"atol": 1e-4, "rtol": 1e-3, "argmax_agreement": 1.0}
"""Where the manifest gives none: devices and batch sizes differ in the last bits."""
REPLAY_ROWS = (1, 7, 64)
"""Rows per replayed batch: one, an odd number that is padded, many."""


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One recorded request.

    Attributes:
        inputs: per input of its signature, in order, all axes.
        outputs: what must come back, per output; None where nobody has written it down.
    """

    inputs: Sequence[Array]
    outputs: Sequence[Array] | None


Records = Mapping[str, Sequence[Record]]
"""By signature."""


def records(version: Version, model: Model) -> Records:
    """Read a version's recorded requests.

    Raises:
        ModelError: the file is damaged, or a record fits no signature.
    """
    path = version.path / RECORDS
    if not path.is_file():
        return {}
    vouched = version.manifest is not None and RECORDS.as_posix() in version.manifest["files"]
    found: dict[str, list[Record]] = defaultdict(list)
    for log in read(path, sealed=vouched):
        name = log.request.model_spec.signature_name
        signature = model.signatures.get(name) if name else model.signature
        if signature is None or not log.request.inputs:
            continue  # not served, or no predict request
        outputs = _arrays(log.response.outputs, signature.outputs, path) if log.response.outputs else None
        found[signature.name].append(Record(_arrays(log.request.inputs, signature.inputs, path), outputs))
    return found


def verify(
    version: Version,
    model: Model,
    recorded: Records,
    batchings: Mapping[str, Batching],
    engine: str = TENSORFLOW,
) -> str:
    """Replay the recorded requests and compare.

    Args:
        version: whose they are.
        model: computes.
        recorded: what `records` returned.
        batchings: by signature, whether its rows share runs.
        engine: what computes: the manifest may give each a tolerance of its own.

    Returns:
        "verified (N rows)", or why there was nothing to verify.

    Raises:
        ModelError: an answer differs, naming the worst example.
    """
    if not recorded:
        return "unverified: it has no recorded answers"
    tolerance = _tolerance(version, engine)
    total = 0
    same: list[bool] = []
    for name, mine in recorded.items():
        answered = [record for record in mine if record.outputs is not None]
        signature = model.signatures[name]
        batching = batchings.get(name, Batching())
        if batching.whole or not _in_rows(answered, batching):
            for number, record in enumerate(answered):
                same += _replay(model, signature, [record], batching, tolerance, f"request {number}")
        else:
            single = [each for record in answered for each in _rows(record, batching)]
            for rows in REPLAY_ROWS:
                if rows == 1 or rows <= min(batching.max_rows, len(single) or 1):
                    for start in range(0, len(single), rows):
                        same += _replay(model, signature, single[start : start + rows], batching, tolerance, start)
        _check_gaps(version, signature, answered)
        total += sum(_count(record) for record in answered)
    if sum(same) < tolerance.argmax_agreement * len(same):
        raise ModelError(
            f"it disagrees with its recorded answers: {sum(same)} of {len(same)} decisions are the same; expected at "
            f"least {tolerance.argmax_agreement:.1%} (argmax_agreement in {MANIFEST})"
        )
    return f"{VERIFIED} ({total} rows)" if total else "unverified: its recorded requests have no answers"


def is_float32(version: Version, engine: str) -> bool:
    """Whether an engine's file computes with the numbers that the model was trained with, as far as that is known."""
    return bool(_format(version, engine).get("quantization", "none") == "none")


def read(path: Path, *, sealed: bool = False) -> Iterator[PredictLog]:
    """Read the predict logs of a TFRecord file.

    Args:
        path: the file.
        sealed: a manifest's SHA-256 has vouched for it: its checksums, slow in Python, are not looked at.

    Raises:
        ModelError: it is damaged, or has more than `MAX_RECORDS` records.
    """
    try:
        with path.open("rb") as file:
            for number, payload in enumerate(tfrecords.payloads(file, checked=not sealed)):
                if number == MAX_RECORDS:
                    raise ModelError(f"{path} has more than {MAX_RECORDS} records")
                yield PredictionLog.FromString(payload).predict_log
    except tfrecords.Damaged as error:
        raise ModelError(f"{path} is {error}") from error
    except DecodeError as error:
        raise ModelError(f"{path} holds a record that is no PredictionLog: {error}") from error


# --- private ------------------------------------------------------------------------------------------


def _format(version: Version, engine: str) -> Mapping[str, Any]:
    """Return what the manifest says of an engine's file."""
    formats = (version.manifest or {}).get("formats")
    about = formats.get(engine) if isinstance(formats, dict) else None
    return about if isinstance(about, dict) else {}


def _tolerance(version: Version, engine: str) -> Tolerance:
    """Return how far an engine's answers may be from the recorded ones.

    Raises:
        ModelError: the manifest gives one that is none.
    """
    given = _format(version, engine).get("tolerance") or (version.manifest or {}).get("tolerance") or {}
    try:
        return Tolerance(**{key: float(given.get(key, default)) for key, default in TOLERANCE.items()})
    except (AttributeError, TypeError, ValueError) as error:
        raise ModelError(
            f"{version.path / MANIFEST} has the tolerance {given!r}; expected numbers for {', '.join(TOLERANCE)}"
        ) from error


def _arrays(tensors: Mapping[str, TensorProto], specs: Sequence[TensorSpec], path: Path) -> Sequence[Array]:
    arrays = []
    for spec in specs:
        tensor = tensors.get(spec.name)
        if tensor is None or tensor.dtype != spec.datatype.tensorflow:
            raise ModelError(f"{path} holds a record that does not fit {spec}")
        try:
            shape = shape_of(spec.name, tensor)
            data = data_of(spec.name, tensor)
        except InvalidRequest as error:
            raise ModelError(f"{path} holds a record that cannot be read: {error}") from error
        if not spec.fits(shape):
            raise ModelError(f"{path} holds a record that does not fit {spec}")
        item = spec.size(())
        if len(data) == item < spec.size(shape):
            data = joined([data] * (spec.size(shape) // item))  # one value stands for all
        if len(data) != spec.size(shape):
            raise ModelError(f"{path} holds a record whose {spec.name} does not fill {list(shape)}")
        if isinstance(data, list):
            array = np.empty(len(data), object)
            array[:] = data
        else:
            array = np.frombuffer(data, spec.datatype.numpy)
        arrays.append(array.reshape(shape))
    return arrays


def _check_gaps(version: Version, signature: Signature, answered: Sequence[Record]) -> None:
    """See that recorded attributions sum to what they explain, as near as the manifest says.

    Raises:
        ModelError: they miss more of it.
    """
    match (version.manifest or {}).get("explanation"):
        case {"signature": signature.name, "gap": {"tolerance": float(tolerance)}}:
            names = [spec.name for spec in signature.outputs]
        case _:
            return
    if not {"attributions", "score", "baseline_score"}.issubset(names):
        return
    for number, record in enumerate(answered):
        assert record.outputs is not None
        of = {
            name: as_numbers(array, spec.datatype)
            for name, array, spec in zip(names, record.outputs, signature.outputs, strict=True)
        }
        sums = of["attributions"].reshape(len(of["score"]), -1).sum(axis=1)
        gap = np.abs(of["score"] - of["baseline_score"] - sums).max(initial=0.0)
        if not gap <= tolerance:
            raise ModelError(
                f"the attributions of recorded request {number} miss {gap:.3g} of what they explain; "
                f"the manifest allows {tolerance:g}"
            )


def _count(record: Record) -> int:
    """Return a request's rows; 1 where it has none."""
    return max((len(array) for array in record.inputs if array.ndim), default=1)


def _in_rows(records: Sequence[Record], batching: Batching) -> bool:
    """Whether these can be joined and cut: all inputs and outputs have as many rows, of one kind."""
    kinds = set()
    for record in records:
        assert record.outputs is not None
        rowed = [*record.inputs, *(each for place, each in enumerate(record.outputs) if place not in batching.shared)]
        if any(not array.ndim for array in rowed) or len({len(array) for array in rowed}) != 1:
            return False
        kinds.add(tuple(array.shape[1:] for array in rowed))
    return len(kinds) <= 1


def _rows(record: Record, batching: Batching) -> Iterator[Record]:
    """Yield a request's rows as requests of one each."""
    assert record.outputs is not None
    for row in range(_count(record)):
        outputs = [
            each if place in batching.shared else each[row : row + 1] for place, each in enumerate(record.outputs)
        ]
        yield Record([each[row : row + 1] for each in record.inputs], outputs)


def _replay(  # noqa: PLR0917 - what one comparison needs
    model: Model,
    signature: Signature,
    records: Sequence[Record],
    batching: Batching,
    tolerance: Tolerance,
    which: str | int,
) -> Sequence[bool]:
    """Compute recorded requests in one run, and compare; ``which`` names them, or is the number of the first row.

    Returns:
        Whether each decision is the same, where not all have to be; else none.

    Raises:
        ModelError: an answer differs, or the model fails.
    """
    given = [
        np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
        for arrays in zip(*(each.inputs for each in records), strict=True)
    ]
    try:
        answers = computed(model, signature, given)
    except RequestError as error:
        raise ModelError(f"it fails on its own recorded requests: {error}") from error
    same: list[bool] = []
    for place, (spec, mine) in enumerate(zip(signature.outputs, answers, strict=True)):
        theirs = [each.outputs[place] for each in records if each.outputs is not None]
        recorded = theirs[0] if len(theirs) == 1 or place in batching.shared else np.concatenate(theirs)
        if mine.shape != recorded.shape:
            raise ModelError(f"{spec} came back as {list(mine.shape)}; recorded was {list(recorded.shape)}")
        decided = decisions(mine, recorded, spec.datatype) if tolerance.argmax_agreement < 1 else None
        if decided is not None:
            same += decided.tolist()
            if spec.datatype.numpy.kind not in "fc":
                continue
        worst = first_difference(mine, recorded, spec.datatype, tolerance)
        if worst is None and decided is None and mine.ndim == 2 and mine.dtype.kind == "f" and mine.size:
            lost = np.flatnonzero(mine.argmax(axis=1) != recorded.argmax(axis=1))
            worst = (int(lost[0]), int(recorded[lost[0]].argmax())) if len(lost) else None
        if worst is not None:
            what = which if isinstance(which, str) else f"row {which + (worst[0] if worst else 0)}"
            raise ModelError(
                f"it disagrees with its recorded answers: {spec.name} of recorded {what} is {mine[worst]} "
                f"at {list(worst)}, recorded was {recorded[worst]}"
            )
    return same
