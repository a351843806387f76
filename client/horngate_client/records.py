"""Recorded requests: files that a server wrote with ``--record``, or a model's recorded answers, read one by one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import merge
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from horngate_client.codec import Array, RequestEncoder, widen
from horngate_client.errors import ConversionError
from horngate_client.signature import TensorSpec
from horngate_protos import tfrecords
from horngate_protos.tensor_protos import array_of
from horngate_protos.tensorflow_serving_pb2 import LogMetadata, PredictionLog

SUFFIX = ".tfrecord"


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """One request as it came, and what was answered.

    Attributes:
        place: where it was read, for people.
        model: whom it was for; empty where that is not recorded.
        version: who answered, in digits; empty where that is not recorded.
        signature: which of the model's; empty for the default one.
        inputs: type and elements by name.
        outputs: elements by name; empty where no answer was recorded.
        arrived: in seconds since 1970; 0 where that is not recorded.
        took: seconds in the server; None where that is not recorded.
    """

    place: str
    model: str
    version: str
    signature: str
    inputs: Mapping[str, tuple[str, Array]]
    outputs: Mapping[str, Array]
    arrived: float
    took: float | None

    def encoded(self, model: str, version: str) -> bytes:
        """Return it as a ModelInferRequest.

        Args:
            model: to ask; empty for the recorded one.
            version: to ask for; empty for the server's choice.

        Raises:
            ConversionError: no model is named.
        """
        if not (model or self.model):
            raise ConversionError(f"{self.place} names no model: choose one with --model NAME")
        specs = [TensorSpec(name, datatype, array.shape) for name, (datatype, array) in self.inputs.items()]
        encoder = RequestEncoder(model or self.model, version, specs, signature=self.signature)
        return encoder.encode({name: array for name, (_, array) in self.inputs.items()})


def files(given: Sequence[str]) -> list[Path]:
    """Return the files meant: of a folder, all that a server wrote below it.

    Raises:
        ConversionError: one does not exist, or a folder has none.
    """
    found = []
    for each in map(Path, given):
        inside = sorted(each.rglob(f"*{SUFFIX}")) if each.is_dir() else [each]
        if not inside:
            raise ConversionError(f"{each} has no *{SUFFIX} below it")
        found += inside
    return found


def read(paths: Sequence[Path], warn: Callable[[str], None]) -> Iterator[RecordedRequest]:
    """Read files side by side, and yield their requests by the time at which these arrived.

    Args:
        paths: the files.
        warn: told of a file that ends in the midst of a record, as where it is still being written.

    Raises:
        ConversionError: a file cannot be read, or is damaged.
    """
    return merge(*(_read(path, warn) for path in paths), key=lambda each: each.arrived)


# --- private ------------------------------------------------------------------------------------------------


def _read(path: Path, warn: Callable[[str], None]) -> Iterator[RecordedRequest]:
    try:
        with path.open("rb") as file:
            size = path.stat().st_size  # what comes later may be what is being sent
            for number, payload in enumerate(tfrecords.payloads(file)):
                log = PredictionLog.FromString(payload)
                if log.predict_log.request.inputs:
                    yield _request(f"record {number} of {path}", log)
                if file.tell() >= size:
                    break
    except tfrecords.Damaged as exc:
        if not exc.torn:
            raise ConversionError(f"{path} is {exc}") from exc
        warn(f"{path} ends in the midst of a record; those before it were read")
    except DecodeError as exc:
        raise ConversionError(f"{path} holds a record that is no PredictionLog: {exc}") from exc
    except OSError as exc:
        raise ConversionError(f"{path} cannot be read: {exc.strerror or exc}") from exc


def _request(place: str, log: PredictionLog) -> RecordedRequest:
    about: LogMetadata = log.log_metadata
    request, response = log.predict_log.request, log.predict_log.response
    spec = request.model_spec
    try:
        inputs = _arrays(request.inputs)
        outputs = _arrays(response.outputs)
    except ValueError as exc:
        raise ConversionError(f"{place}: {exc}") from exc
    answered = response.model_spec if response.model_spec.HasField("version") else spec
    return RecordedRequest(
        place,
        spec.name,
        str(answered.version.value) if answered.HasField("version") else "",
        spec.signature_name,
        inputs,
        {name: widen(array, datatype) for name, (datatype, array) in outputs.items()},
        about.horngate_arrived_us / 1e6 or float(about.timestamp_secs),
        about.horngate_took_us / 1e6 or None,
    )


def _arrays(tensors: Mapping[str, Any]) -> dict[str, tuple[str, Array]]:
    found = {}
    for name in sorted(tensors):  # protobuf's maps have no order
        datatype, array = array_of(name, tensors[name])
        found[name] = datatype.name, array
    return found
