"""Recorded requests with their answers, read from files of PredictionLog, and a few of them chosen."""

import hashlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from horngate_protos import tfrecords
from horngate_protos.datatypes import BY_NAME
from horngate_protos.tensor_protos import array_of
from horngate_protos.tensorflow_pb2 import TensorProto
from horngate_protos.tensorflow_serving_pb2 import PredictionLog
from horngate_trainer.errors import SourceError
from horngate_trainer.written import SIGNATURE, Tensors

SUFFIX = ".tfrecord"


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """One request and what was answered.

    Attributes:
        place: where it was read, for people.
        signature: which of the model's.
        request: by input.
        answer: by output; empty where none was recorded.
    """

    place: str
    signature: str
    request: Tensors
    answer: Tensors

    @property
    def rows(self) -> int:
        """The length of the longest input's first axis; 1 where none has any."""
        return max((len(array) for array in self.request.values() if array.ndim), default=1)


def read(path: Path) -> Iterator[Recorded]:
    """Read the predict requests of a file.

    A file that ends in the midst of a record, as where its server was killed, ends before that.

    Raises:
        SourceError: it is damaged, or holds something else.
        OSError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            for number, payload in enumerate(tfrecords.payloads(file)):
                log = PredictionLog.FromString(payload).predict_log
                if not log.request.inputs:
                    continue
                place = f"record {number} of {path}"
                signature = log.request.model_spec.signature_name or SIGNATURE
                yield Recorded(
                    place, signature, _arrays(place, log.request.inputs), _arrays(place, log.response.outputs)
                )
    except tfrecords.Damaged as exc:
        if not exc.torn:
            raise SourceError(f"{path} is {exc}") from exc
    except DecodeError as exc:
        raise SourceError(f"{path} holds a record that is no PredictionLog: {exc}") from exc


def choose(source: Path, rows: int) -> list[Recorded]:
    """Choose answered requests at random, the same ones of the same files, each another one.

    Args:
        source: a file, or a folder with files below it.
        rows: that they have together at most.

    Raises:
        SourceError: there are none, or none is that small.
        OSError: a file cannot be read.
    """
    chance = random.Random(0)  # noqa: S311 - no secret
    drawn: list[Recorded] = []
    fitting = least = 0
    for each in _distinct(source):
        least = min(least or each.rows, each.rows)
        if each.rows > rows:
            continue
        fitting += 1
        if len(drawn) < rows:
            drawn.append(each)
        elif (place := chance.randrange(fitting)) < rows:
            drawn[place] = each
    chosen = []
    for each in drawn:
        if each.rows <= rows:
            chosen.append(each)
            rows -= each.rows
    if not chosen and least:
        raise SourceError(f"the smallest request in {source} has {least} rows: --rows {least} or more takes it")
    if not chosen:
        raise SourceError(f"{source} has no request with an answer; expected what `horngate-server --record` writes")
    return chosen


# --- private ---------------------------------------------------------------------------------------------------------


def _distinct(source: Path) -> Iterator[Recorded]:
    """Read answered requests; of those that are the same, the first."""
    known: set[bytes] = set()
    for path in sorted(source.rglob(f"*{SUFFIX}")) if source.is_dir() else [source]:
        for each in read(path):
            if each.answer and (digest := _digest(each)) not in known:
                known.add(digest)
                yield each


def _arrays(place: str, tensors: Mapping[str, TensorProto]) -> Tensors:
    found = {}
    for name in sorted(tensors):
        try:
            datatype, array = array_of(name, tensors[name])
        except ValueError as exc:
            raise SourceError(f"{place}: {exc}") from exc
        found[name] = array.view(tf.bfloat16.as_numpy_dtype) if datatype == BY_NAME["BF16"] else array
    return found


def _digest(each: Recorded) -> bytes:
    """Return what requests have in common that are the same."""
    seen = hashlib.sha256(each.signature.encode())
    for name, array in each.request.items():
        seen.update(repr((name, array.dtype.str, array.shape)).encode())
        elements = array.reshape(-1).tolist() if array.dtype == np.dtype(object) else [array.tobytes()]
        for element in elements:
            seen.update(len(element).to_bytes(8, "little") + element)
    return seen.digest()
