"""A share of the requests on a disk, bounded, and nobody harmed by it."""

import errno
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from horngate_protos import tfrecords
from horngate_protos.tensor_protos import array_of
from horngate_protos.tensorflow_serving_pb2 import PredictionLog
from horngate_server.telemetry import recorder
from horngate_server.telemetry.record_files import RecordFiles, TooLarge
from horngate_server.telemetry.recorder import Recorder
from support.in_process import Clock, InProcessServer

EPOCH = datetime(2026, 1, 2, tzinfo=UTC).timestamp()


def logs(folder: Path) -> list[PredictionLog]:
    """Read all records below a folder."""
    found = []
    for path in sorted(folder.rglob("*.tfrecord")):
        with path.open("rb") as file:
            found += [PredictionLog.FromString(each) for each in tfrecords.payloads(file)]
    return found


@dataclass
class Recording:
    """A server in this process whose requests are recorded, and the recorder."""

    folder: Path
    share: float = 1.0
    chances: Iterator[float] = field(default_factory=lambda: iter(()))

    def __post_init__(self) -> None:
        clock = Clock()
        self.files = RecordFiles(self.folder, 1 << 20, 3600.0, lambda: EPOCH)
        self.recorder = Recorder(self.share, self.files, clock, lambda: EPOCH, chance=lambda: next(self.chances))
        self.server = InProcessServer(clock=clock, record=self.recorder.take)

    def ask(self, *rows: list[list[int]]) -> None:
        """Send requests, one after the other, and write what is recorded of them."""
        with self.server:
            for each in rows:
                assert self.server.ask(each).status() == "OK"
        self.recorder.start()
        self.recorder.stop()


def test_a_request_and_its_answer_are_recorded_with_their_time(tmp_path: Path) -> None:
    """Inputs and outputs as tensors, the version that answered, and when it came; also of one larger than a batch."""
    recording = Recording(tmp_path)
    many = [[number, 1] for number in range(20)]
    recording.ask([[1, 2], [3, 4]], many)
    first, large = logs(tmp_path)
    assert [path.parent for path in tmp_path.rglob("*.tfrecord")] == [tmp_path / "m" / "3"]
    request, response = first.predict_log.request, first.predict_log.response
    assert (request.model_spec.name, request.model_spec.version.value) == ("m", 3)
    assert request.model_spec.signature_name == "serving_default"
    assert first.log_metadata.horngate_arrived_us == EPOCH * 1e6
    assert array_of("x", request.inputs["x"])[1].tolist() == [[1, 2], [3, 4]]
    assert array_of("double", response.outputs["double"])[1].tolist() == [[2, 4], [6, 8]]
    assert array_of("total", response.outputs["total"])[1].tolist() == [3.0, 7.0]
    assert array_of("double", large.predict_log.response.outputs["double"])[1].tolist() == np.multiply(many, 2).tolist()
    assert recording.recorder.recorded == {("m", "3"): 2}


def test_neighbours_in_a_batch_are_recorded_with_their_own_rows(tmp_path: Path) -> None:
    """Whoever shares a run is recorded with its part of it."""
    recording = Recording(tmp_path)
    with recording.server as server:
        held = server.hold()
        waiting = [server.ask([[number, 0]] * (number + 1)) for number in range(3)]
        server.model.gate.set()
        assert [each.status() for each in (held, *waiting)] == ["OK"] * 4
    recording.recorder.start()
    recording.recorder.stop()
    for log in logs(tmp_path):
        x, double = log.predict_log.request.inputs["x"], log.predict_log.response.outputs["double"]
        assert (array_of("x", x)[1] * 2).tolist() == array_of("double", double)[1].tolist()
    assert recording.recorder.recorded == {("m", "3"): 4}


def test_each_request_has_the_same_chance(tmp_path: Path) -> None:
    """With a share of a half and these throws, two are passed over, one is taken, none passed over, one taken."""
    recording = Recording(tmp_path, 0.5, iter([0.8, 0.3, 0.99]))
    recording.ask([[1, 0]], [[2, 0]], [[3, 0]], [[4, 0]], [[5, 0]])
    taken = [array_of("x", log.predict_log.request.inputs["x"])[1].tolist() for log in logs(tmp_path)]
    assert taken == [[[3, 0]], [[4, 0]]]


def test_a_failed_request_is_not_recorded(tmp_path: Path) -> None:
    """There is no answer to compare with."""
    recording = Recording(tmp_path)

    def fail(_: object) -> list[np.ndarray]:
        raise ValueError("no")

    recording.server.model.compute = fail
    with recording.server as server:
        assert server.ask([[1, 2]]).status() == "INTERNAL"
    recording.recorder.start()
    recording.recorder.stop()
    assert logs(tmp_path) == []


def test_what_does_not_fit_into_the_queue_is_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the disk is slow, callers get their answers as ever."""
    monkeypatch.setattr(recorder, "WAITING", 2)
    recording = Recording(tmp_path)
    recording.ask([[1, 0]], [[2, 0]], [[3, 0]])
    assert recording.recorder.recorded == {("m", "3"): 2}
    assert recording.recorder.dropped == {"queue_full": 1}


def test_a_full_disk_is_a_warning_and_leaves_whole_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A part that was written of a record is taken back; later ones are dropped for a while, and counted."""
    written = os.write
    calls = []

    def write(descriptor: int, data: memoryview) -> int:
        calls.append(len(data))
        if len(calls) == 1:
            return written(descriptor, data)
        if len(calls) == 2:
            return written(descriptor, data[:7])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", write)
    recording = Recording(tmp_path)
    recording.ask([[1, 0]], [[2, 0]], [[3, 0]])
    assert len(logs(tmp_path)) == 1
    assert recording.recorder.dropped == {"disk": 2}
    assert len(calls) == 3, "the third request was tried at once"
    assert "No space left on device" in caplog.text
    assert recording.server.sample("horngate_requests_total", OK) == 3


OK = {"model": "m", "protocol": "open_inference", "code": "OK"}


def test_files_are_bounded_together_and_the_oldest_leave(tmp_path: Path) -> None:
    """Whoever writes, and to however many versions: all files together never take more than they may."""
    now = [EPOCH]
    most = 64 << 10
    writers = [RecordFiles(tmp_path, most, 1e6, lambda: now[0], writers=2) for _ in range(2)]
    for number in range(200):
        now[0] += 1
        writers[number % 2].append("m", str(number % 3), bytes(1000))
        assert sum(path.stat().st_size for path in tmp_path.rglob("*.tfrecord")) <= most
    kept = sum(path.stat().st_size for path in tmp_path.rglob("*.tfrecord"))
    assert kept > most / 2
    with pytest.raises(TooLarge):
        writers[0].append("m", "1", bytes(most // 8))


def test_old_files_leave_and_others_stay(tmp_path: Path) -> None:
    """What is older than the age is deleted; what is not ours is left alone."""
    now = [EPOCH]
    files = RecordFiles(tmp_path, 1 << 20, 3600.0, lambda: now[0])
    files.append("m", "1", b"old")
    (tmp_path / "m" / "1" / "mine.tfrecord").write_bytes(b"x")
    now[0] += 1800
    files.sweep()
    files.append("m", "1", b"new")
    now[0] += 2000
    files.sweep()
    files.close()
    assert sorted(path.read_bytes() for path in tmp_path.rglob("*.tfrecord")) == [b"new", b"x"]
    assert {oct(path.stat().st_mode & 0o777) for path in tmp_path.rglob("2026*.tfrecord")} == {"0o600"}


def test_requests_that_come_while_it_ends_are_not_waited_for(tmp_path: Path) -> None:
    """After `stop`, nothing is written any more, and nobody fails."""
    recording = Recording(tmp_path)
    recording.recorder.start()
    recording.recorder.stop()
    with recording.server as server:
        assert server.ask([[1, 2]]).status() == "OK"
    assert recording.recorder.dropped == {"queue_full": 1}
    assert not any(thread.name == "record" for thread in threading.enumerate())
