"""The command, most of it in this process."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

from client.conftest import images
from client.fake_server import Failure, FakeServer
from horngate_client import chart
from horngate_client.cli import main

COMMAND = [sys.executable, "-m", "horngate_client"]


@pytest.fixture
def digit(tmp_path: Path) -> str:
    """A PNG whose class is 7."""
    image = images(1)[0]
    image[0, 0] = 7
    path = tmp_path / "seven.png"
    Image.fromarray(image).save(path)
    return str(path)


def test_predict_prints_the_digit_and_a_bar_for_each_class(server: FakeServer, digit: str, capsys: Any) -> None:
    """For people."""
    assert main(["--server", server.address, "predict", "--show", digit]) == 0
    out = capsys.readouterr().out
    assert f"{digit}: 7  100.0%" in out
    assert sum(line.startswith("  ") and line.endswith("%") for line in out.splitlines()) == 10


def test_predict_prints_json(server: FakeServer, digit: str, tmp_path: Path, capsys: Any) -> None:
    """For programs: a record for each row of each file, in order."""
    batch = images(12)
    np.save(tmp_path / "many.npy", batch)
    assert main(["--server", server.address, "predict", "--json", digit, str(tmp_path / "many.npy")]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [row["class"] for row in answer["predictions"]] == [7, *(batch[:, 0, 0] % 10).tolist()]
    assert answer["predictions"][3]["row"] == 2
    assert (answer["version"], answer["timing"]["queue_s"]) == ("1", 0.0002)


def test_models_shows_every_version_with_its_state(server: FakeServer, capsys: Any) -> None:
    """A table for people: labels, age, rows, why a version does not serve, how a shadow compares; JSON for programs."""
    assert main(["--server", server.address, "models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "model",
        "version",
        "state",
        "labels",
        "age",
        "rows",
        "engine",
        "device",
        "verification,",
        "reason",
    ]
    assert lines[1].endswith("  verified (40 rows)")
    assert "default, stable  2h   12,345  litert  CPU" in lines[1]
    assert "shadow: 99.50% of 200 rows agree" in lines[2]
    assert lines[3].split() == ["mnist", "3", "unavailable", "-", "0s", "0", "-", "-", "it", "disagrees"]
    assert main(["--server", server.address, "models", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["labels"] == ["", "stable"]


def test_promote_gives_a_version_a_label(server: FakeServer, capsys: Any) -> None:
    """Stable unless said otherwise; a version that cannot be served is exit code 1 with the server's reason."""
    assert main(["--server", server.address, "promote", "2"]) == 0
    assert "mnist version 2 is stable" in capsys.readouterr().out
    assert main(["--server", server.address, "promote", "2", "--label", "canary"]) == 0
    sent = server.requests("RepositoryModelLoad")
    assert [(each.parameters["version"].int64_param, each.parameters["label"].string_param) for each in sent] == [
        (2, "stable"), (2, "canary"),
    ]  # fmt: skip
    assert main(["--server", server.address, "promote", "3"]) == 1
    assert "version 3 cannot be served: it disagrees" in capsys.readouterr().err
    assert main(["--server", server.address, "promote", "newest"]) == 2


def test_status_shows_the_server_and_the_signature(server: FakeServer, capsys: Any) -> None:
    """Exit code 0 when ready."""
    assert main(["--server", server.address, "status"]) == 0
    out = capsys.readouterr().out
    for words in ("fake 0.0", "mnist, ready", "images: UINT8 [-1, 28, 28]", "classes: INT64 [-1]"):
        assert words in out


def test_status_fails_when_one_is_not_ready(server: FakeServer, second: FakeServer, capsys: Any) -> None:
    """Of several servers each is shown, and all must be ready."""
    second.ready = False
    assert main(["--server", f"{server.address},{second.address}", "status", "--json"]) == 1
    assert [report["model_ready"] for report in json.loads(capsys.readouterr().out)] == [True, False]


def test_load_measures_and_prints_json(server: FakeServer, capsys: Any) -> None:
    """Throughput, exact quantiles, no errors; what is sent are recorded rows."""
    server.recorded = [{"images": images(7)}]
    argv = ["load", "--concurrency", "8", "--connections", "2", "--rows", "3", "--duration", "400ms"]
    assert main(["--server", server.address, *argv, "--warmup", "100ms", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["requests"] > 10
    assert report["rows"] == 3 * report["requests"]
    assert report["errors"] == {}
    latency = report["latency_ms"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["max"]
    known = {image.tobytes() for image in images(7)}
    sent = [request.raw_input_contents[0] for request in server.requests()]
    assert {data[at : at + 784] for data in sent for at in (0, 784, 1568)} == known


def test_load_counts_failures_and_fails(server: FakeServer, tmp_path: Path, capsys: Any) -> None:
    """Nothing is retried; each error is counted by its status, and one is quoted."""
    np.save(tmp_path / "x.npy", images(4))
    server.failures = [Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", pushback="1")] * 100_000
    argv = ["load", "--concurrency", "2", "--duration", "300ms", "--warmup", "1ms", "--input", str(tmp_path / "x.npy")]
    assert main(["--server", server.address, *argv]) == 1
    out = capsys.readouterr().out
    assert "RESOURCE_EXHAUSTED: " in out
    assert "full" in out


def test_load_notices_answers_of_the_wrong_shape(server: FakeServer, capsys: Any) -> None:
    """A fast wrong answer is an error."""
    server.model = lambda arrays: {
        "probabilities": np.zeros((len(arrays["images"]), 3), np.float32),
        "classes": np.zeros(len(arrays["images"]), np.int64),
    }
    argv = ["load", "--concurrency", "1", "--duration", "200ms", "--warmup", "1ms", "--json", "--random"]
    assert main(["--server", server.address, *argv]) == 1
    assert json.loads(capsys.readouterr().out)["errors"]["ProtocolError"] > 0


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        pytest.param([], "COMMAND", id="nothing"),
        pytest.param(["sing"], "invalid choice", id="unknown-command"),
        pytest.param(["predict"], "FILE", id="no-file"),
        pytest.param(["predict", "missing.png"], "missing.png cannot be read", id="missing-file"),
        pytest.param(["--timeout", "soon", "status"], "write 10s", id="timeout"),
        pytest.param(["--server", "http://a", "status"], "without a scheme", id="address"),
        pytest.param(["load", "--rows", "0"], "at least 1", id="rows"),
        pytest.param(["--tls-cert", "x.pem", "status"], "come together", id="half-a-certificate"),
    ],
)
def test_wrong_use_is_2_with_a_sentence(server: FakeServer, capsys: Any, argv: list[str], words: str) -> None:
    """On stderr, without a traceback."""
    assert main([*([] if "--server" in argv else ["--server", server.address]), *argv]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_a_call_that_fails_is_1(server: FakeServer, digit: str, capsys: Any) -> None:
    """With the server's words."""
    server.failures = [Failure(grpc.StatusCode.INTERNAL, "the model broke")] * 2
    assert main(["--server", server.address, "predict", digit]) == 1
    assert "the model broke" in capsys.readouterr().err


def test_every_option_has_a_variable_and_the_option_wins(
    server: FakeServer, second: FakeServer, digit: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HORNGATE_ and its name."""
    monkeypatch.setenv("HORNGATE_SERVER", server.address)
    monkeypatch.setenv("HORNGATE_JSON", "yes")
    assert main(["predict", digit]) == 0
    assert json.loads(capsys.readouterr().out)["predictions"][0]["class"] == 7
    assert main(["--server", second.address, "predict", digit]) == 0
    assert (server.count(), second.count()) == (1, 1)


@pytest.mark.parametrize(
    ("name", "value"), [("TIMEOUT", "soon"), ("JSON", "perhaps"), ("CONCURRENCY", "many")], ids=str
)
def test_a_variable_that_makes_no_sense_is_2_and_named(
    capsys: Any, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """As the option would be."""
    monkeypatch.setenv(f"HORNGATE_{name}", value)
    assert main(["status"]) == 2
    assert f"HORNGATE_{name}" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["--help"], ["predict", "--help"], ["load", "--help"]], ids=" ".join)
def test_help_teaches_with_examples(capsys: Any, argv: list[str]) -> None:
    """And names the variables."""
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert "examples:" in out
    assert "[HORNGATE_" in out


def test_the_command_runs_as_a_process(server: FakeServer, digit: str) -> None:
    """In a terminal that knows only ASCII too."""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [*COMMAND, "--server", server.address, "predict", "--show", digit],
        capture_output=True, text=True, timeout=60, env=environment, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "7 ##############################" in done.stdout


def test_ctrl_c_is_130_and_quiet(server: FakeServer, digit: str) -> None:
    """A call under way is given up."""
    server.gate.clear()
    process = subprocess.Popen(
        [*COMMAND, "--server", server.address, "predict", digit], stderr=subprocess.PIPE, text=True
    )
    assert server.arrived.wait(30)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors


def test_bars_are_as_long_as_their_shares() -> None:
    """In eighths of a character; many classes are cut to the likeliest."""
    assert chart.bars([0.5, 0.25, 0.0], width=4) == ["0 ██    50.0%", "1 █     25.0%", "2        0.0%"]
    assert [line.split()[0] for line in chart.bars([i / 999 for i in range(30)], most=2)] == ["29", "28"]
    assert chart.bars([0.5], width=4, unicode=False) == ["0 ##    50.0%"]
    assert chart.bars([float("nan"), 7.5], width=2) == ["0    nan", "1 ██ 7.5"]


def test_a_picture_is_drawn_in_half_blocks() -> None:
    """Two rows of pixels in a line; shades in ASCII."""
    image = np.array([[255, 0], [0, 255], [255, 255]], np.uint8)
    assert chart.picture(image) == ["▀▄", "▀▀"]
    assert chart.picture(image, unicode=False) == ["@ ", " @", "@@"]
