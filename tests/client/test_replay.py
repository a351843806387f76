"""Recorded requests sent again: what goes out, when, and how what comes back is judged."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from client.conftest import images
from client.fake_server import Failure, FakeServer, classify, serve
from horngate_client import records, replay
from horngate_client.channels import Endpoint
from horngate_client.cli import main
from horngate_client.comparison import Comparison
from horngate_client.errors import ConversionError
from horngate_protos import tfrecords
from horngate_protos.datatypes import BY_NUMPY, BYTES
from horngate_protos.tensor_protos import fill
from horngate_protos.tensorflow_serving_pb2 import PredictionLog


def log(inputs: Mapping[str, Any], outputs: Mapping[str, Any], *, at: float = 0.0, name: str = "mnist") -> bytes:
    """Make a record."""
    made = PredictionLog()
    logged = made.predict_log
    for spec in (logged.request.model_spec, logged.response.model_spec):
        spec.name, spec.version.value, spec.signature_name = name, 1, "serving_default"
    made.log_metadata.horngate_arrived_us = round(at * 1e6)
    made.log_metadata.horngate_took_us = 2500
    for tensors, arrays in ((logged.request.inputs, inputs), (logged.response.outputs, outputs)):
        for key, array in arrays.items():
            if array.dtype.hasobject:
                fill(tensors[key], BYTES, array.shape, array.reshape(-1).tolist())
            else:
                fill(tensors[key], BY_NUMPY[array.dtype], array.shape, array.tobytes())
    return tfrecords.framed(made.SerializeToString())


def recorded(folder: Path, count: int, **changes: Any) -> Path:
    """Record requests of the reference model, ten seconds after each other; changes replace what was answered."""
    file = folder / "recorded.tfrecord"
    file.write_bytes(
        b"".join(
            log({"images": x}, {**classify({"images": x}), **changes}, at=1e9 + 10 * number)
            for number in range(count)
            for x in [images(2, seed=number)]
        )
    )
    return file


def run(server: FakeServer, capsys: Any, *argv: str) -> tuple[int, Any]:
    """Run the command as fast as it goes; return its exit code and its report."""
    code = main(["replay", "--server", server.address, "--speed", "max", "--concurrency", "1", "--json", *argv])
    return code, json.loads(capsys.readouterr().out)


def test_the_same_server_gives_the_same_answers(server: FakeServer, tmp_path: Path, capsys: Any) -> None:
    """What was sent goes out again, byte for byte, and the report has both latencies; the exit code is 0."""
    code, report = run(server, capsys, str(recorded(tmp_path, 3).parent))
    assert (code, report["same"], report["requests"], report["errors"]) == (0, True, 3, {})
    sent = server.requests()
    assert [each.raw_input_contents[0] for each in sent] == [images(2, seed=number).tobytes() for number in range(3)]
    assert {each.parameters["signature"].string_param for each in sent} == {"serving_default"}
    assert report["comparison"]["outputs"]["probabilities"] == {
        "rows": 6, "different": 0, "largest": 0.0, "classes_changed": 0, "example": "",
    }  # fmt: skip
    assert report["comparison"]["outputs"]["classes"]["largest"] is None
    assert (report["recorded_by"], report["answered_by"]) == ({"mnist version 1": 3}, {"1": 3})
    assert (report["recorded_seconds"], report["recorded_latency_ms"]["p99"]) == (20.0, 2.5)


def test_answers_that_differ_are_told_and_make_the_exit_code_1(server: FakeServer, tmp_path: Path, capsys: Any) -> None:
    """How many, by how much, whose class is another, and the first of them; for people, too."""
    other = np.eye(10, dtype=np.float32)[[0, 0]] * np.float32(0.75)
    file = recorded(tmp_path, 2, probabilities=other)
    code, report = run(server, capsys, str(file))
    output = report["comparison"]["outputs"]["probabilities"]
    assert (code, report["comparison"]["different"], output["different"]) == (1, 2, 4)
    assert output["largest"] == 1.0
    assert output["example"].startswith(f"record 0 of {file}: probabilities[0, 0] is")
    assert main(["replay", "--server", server.address, "--speed", "max", str(file)]) == 1
    text = capsys.readouterr().out
    assert "different            2 of 2 answers" in text
    assert "such as     record " in text


def test_errors_are_counted_by_code(server: FakeServer, tmp_path: Path, capsys: Any) -> None:
    """What fails is not retried, and the exit code is 1; a server without the model is one."""
    server.failures = [Failure(grpc.StatusCode.RESOURCE_EXHAUSTED)]
    code, report = run(server, capsys, str(recorded(tmp_path, 3)))
    assert (code, report["errors"], report["answered"]) == (1, {"RESOURCE_EXHAUSTED": 1}, 2)
    code, report = run(server, capsys, "--model", "other", str(tmp_path))
    assert (code, report["errors"]) == (1, {"NOT_FOUND": 3})
    assert "no model is named 'other'" in report["error_messages"]["NOT_FOUND"]


def test_another_version_is_asked_for_by_name(server: FakeServer, tmp_path: Path, capsys: Any) -> None:
    """Without --model-version the server chooses."""
    file = str(recorded(tmp_path, 1))
    run(server, capsys, file)
    run(server, capsys, "--model-version", "2", file)
    assert [each.model_version for each in server.requests()] == ["", "2"]


def test_requests_are_sent_when_they_came(server: FakeServer, tmp_path: Path) -> None:
    """At twice the speed, after half the time; the files are read side by side, in the order of time."""
    now = [0.0]
    x = images(1)
    for name, times in (("a", (1e9, 1e9 + 30)), ("b", (1e9 + 10, 1e9 + 20))):
        data = b"".join(log({"images": x}, {}, at=each) for each in times)
        (tmp_path / f"{name}.tfrecord").write_bytes(data)
    waited = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)
        now[0] += seconds

    report = asyncio.run(
        replay.run(
            Endpoint.of(server.address, tls=False, token=None, allow_plaintext_token=False),
            records.read(records.files([str(tmp_path)]), pytest.fail),
            replay.ReplayPlan(speed=2.0),
            clock=lambda: now[0],
            sleep=sleep,
        )
    )
    assert waited == [0.0, 5.0, 5.0, 5.0]
    assert (report.answered, report.comparison.compared, report.same) == (4, 0, True)


def test_strings_and_scalars_go_out_as_they_came(tmp_path: Path, capsys: Any) -> None:
    """BYTES are packed anew, empty ones too; an input without axes stays one."""

    def echo(inputs: Any) -> Any:
        return {"text": inputs["text"], "times": inputs["times"]}

    specs = (("text", "BYTES", (-1,)), ("times", "INT32", ()))
    given = {"text": np.array([b"", b"\xff"], object), "times": np.array(3, np.int32)}
    (tmp_path / "a.tfrecord").write_bytes(log(given, given, name="texts"))
    with serve(FakeServer(specs, specs, echo, name="texts", explains=False)) as server:
        code, report = run(server, capsys, str(tmp_path))
    assert (code, report["comparison"]["compared"], report["errors"]) == (0, 1, {})


def test_files_that_cannot_be_sent_are_refused_in_words(server: FakeServer, tmp_path: Path, capsys: Any) -> None:
    """Exit code 2 where a file is missing, damaged or names no model; one that is still being written is read."""
    whole = recorded(tmp_path, 2)
    data = whole.read_bytes()
    whole.write_bytes(data[:-5])
    assert main(["replay", "--server", server.address, "--speed", "max", str(whole)]) == 0
    assert "ends in the midst of a record" in capsys.readouterr().err
    whole.write_bytes(data[:50] + b"?" + data[51:])
    (tmp_path / "nameless.tfrecord").write_bytes(log({"images": images(1)}, {}, name=""))
    (tmp_path / "none").mkdir()
    for name, said in (
        ("recorded.tfrecord", "is damaged at byte 0"),
        ("nameless.tfrecord", "names no model: choose one with --model"),
        ("missing", "cannot be read: No such file"),
        ("none", "has no *.tfrecord below it"),
    ):
        assert main(["replay", "--server", server.address, "--speed", "max", str(tmp_path / name)]) == 2
        assert said in capsys.readouterr().err
    assert main(["replay", "--server", server.address, "--speed", "0", str(whole)]) == 2


def test_fractions_have_a_tolerance_and_nothing_else_has() -> None:
    """NaN equals NaN; infinity is far from any number; a dtype or a shape that is another one differs in every row."""
    comparison = Comparison(tolerance=0.01)
    then = np.array([[1.0, np.nan], [np.inf, 0.0]])
    comparison.add({"x": then}, {"x": then + np.array([[0.015, 0], [0, 0.009]])}, "here")
    assert (comparison.different, comparison.outputs["x"].classes_changed) == (0, 0)
    comparison.add({"x": then}, {"x": np.array([[1.0, np.nan], [5.0, 0.0]])}, "there")
    assert comparison.outputs["x"].largest == np.inf
    assert comparison.outputs["x"].example == "there: x[1, 0] is 5.0; recorded was inf"
    comparison.add({"n": np.array([1, 2])}, {"n": np.array([1, 3])}, "n")
    comparison.add({"n": np.array([1, 2])}, {"n": np.array([1, 2], np.int32)}, "n")
    comparison.add({"n": np.array([1, 2])}, {}, "n")
    assert (comparison.outputs["n"].rows, comparison.outputs["n"].different, comparison.different) == (6, 5, 4)


def test_a_record_without_a_type_that_can_be_sent_is_refused(tmp_path: Path) -> None:
    """Resources and variants are TensorFlow's own."""
    made = PredictionLog()
    made.predict_log.request.inputs["x"].dtype = 20
    (tmp_path / "a.tfrecord").write_bytes(tfrecords.framed(made.SerializeToString()))
    with pytest.raises(ConversionError, match=r"record 0 of .*a.tfrecord: x is DT_RESOURCE"):
        list(records.read([tmp_path / "a.tfrecord"], pytest.fail))
