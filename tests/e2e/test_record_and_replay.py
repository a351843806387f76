"""A day in small: requests are recorded under load, sent again, held against the next version, and made its proof."""

import json
import shutil
import subprocess
import sys
import urllib.request
from collections import Counter
from pathlib import Path

import pytest

from horngate_client import Client, records
from horngate_client.cli import main
from support.process import ServerProcess
from support.waiting import until


def another(version: Path, model: Path) -> None:
    """Make a version of a .tflite file whose largest run of weights has holes."""
    data = bytearray(model.read_bytes())
    middle = len(data) // 2
    data[middle : middle + len(data) // 8] = bytes(len(data) // 8)
    version.mkdir()
    (version / model.name).write_bytes(data)


def test_recorded_traffic_is_replayed_against_the_next_version_and_becomes_its_proof(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same version answers the same; another one is told apart; golden's choice is what inspect verifies."""
    version = Path(shutil.copytree(trained, tmp_path / "models/mnist/1"))
    folder = tmp_path / "recorded"
    flags = ("--engine", "litert")
    recording = ("--record", str(folder), "--record-share", "1", "--workers", "2")
    with ServerProcess(version.parents[1], tmp_path, *flags, *recording) as server:
        load = ("load", "--concurrency", "8", "--duration", "500ms", "--warmup", "100ms", "--json")
        assert main(["--server", server.grpc, *load]) == 0
        sent = json.loads(capsys.readouterr().out)["requests"]

        def written() -> float:
            with urllib.request.urlopen(f"{server.http}/metrics", timeout=20) as response:
                lines = response.read().decode().splitlines()
            return sum(float(each.split()[-1]) for each in lines if each.startswith("horngate_recorded_requests_total"))

        until(lambda: written() >= sent)
        assert server.stop() == 0
    replay = ("replay", str(folder / "mnist/1"), "--speed", "max", "--json")
    with ServerProcess(version.parents[1], tmp_path, *flags) as server:
        assert main(["--server", server.grpc, *replay]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["requests"] >= sent
        assert report["comparison"]["compared"] == report["requests"]
        assert set(report["answered_by"]) == {"1"}
        another(version.parent / "2", version / "model.tflite")
        with Client(server.grpc) as client:
            until(lambda: any((each.version, each.state) == ("2", "ready") for each in client.models()))
        assert main(["--server", server.grpc, *replay]) == 1
        report = json.loads(capsys.readouterr().out)
        assert report["answered_by"] == {"2": report["requests"]}
        assert report["comparison"]["outputs"]["probabilities"]["classes_changed"] > 0
        assert not report["errors"]
    subprocess.run(
        [sys.executable, "-m", "horngate_trainer.cli", "golden", folder, "--version", version, "--rows", "30"],
        check=True, timeout=100,
    )  # fmt: skip
    rows: dict[str, int] = Counter()
    for each in records.read([version / "assets.extra/tf_serving_warmup_requests"], pytest.fail):
        rows[each.signature] += len(each.inputs["images"][1])
    assert rows["serving_default"] == 30
    done = subprocess.run(
        [sys.executable, "-m", "horngate_server", "inspect", version, "--json", "--engine", "tensorflow"],
        check=True, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert json.loads(done.stdout)["verification"] == f"verified ({sum(rows.values())} rows)"
