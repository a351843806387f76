"""Versions come and go under a real server with real callers: what an operator and a caller see."""

import hashlib
import json
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.utils import InferenceServerException

from horngate_client import CallError, Client
from horngate_protos.open_inference_pb2 import ModelInferResponse
from support.in_process import request
from support.process import ServerProcess
from support.waiting import until

INFER = "/inference.GRPCInferenceService/ModelInfer"


@pytest.fixture
def root(trained: Path, tmp_path: Path) -> Path:
    """A model root of the test's own with version 1 in it."""
    shutil.copytree(trained, tmp_path / "models/mnist/1")
    return tmp_path / "models"


class Callers:
    """Eight callers that ask without a pause; every answer must be whole and from a version that may answer."""

    def __init__(self, target: str, images: np.ndarray) -> None:
        self.errors: list[str] = []
        self.answers: dict[str, set[bytes]] = {}
        self.count = 0
        self._stop = threading.Event()
        self._target = target
        self._body = request({"images": images[:4]}, model="mnist").SerializeToString()
        self._threads = [threading.Thread(target=self._call) for _ in range(8)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        until(lambda: self.count > 100)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _call(self) -> None:
        with grpc.insecure_channel(self._target) as channel:
            infer: grpc.UnaryUnaryMultiCallable[bytes, ModelInferResponse] = channel.unary_unary(
                INFER, response_deserializer=ModelInferResponse.FromString
            )
            while not self._stop.is_set():
                try:
                    answer = infer(self._body, timeout=30)
                except grpc.RpcError as error:
                    self.errors.append(f"{error.code()}: {error.details()}")
                    return
                self.answers.setdefault(answer.model_version, set()).add(answer.raw_output_contents[1])
                self.count += 1


def spread(answers: Iterable[bytes]) -> float:
    """How far answers to one request are apart: batches of other sizes may differ in a number's last bits."""
    numbers = np.array([np.frombuffer(answer, np.float32) for answer in answers])
    return float(np.ptp(numbers, axis=0).max())


def states(server: ServerProcess) -> dict[int, tuple[str, str]]:
    """Each version's state and reason, as the HTTP port has them."""
    with urllib.request.urlopen(f"{server.http}/models", timeout=10) as response:
        return {each["version"]: (each["state"], each["reason"]) for each in json.load(response)}


def train(root: Path, scratch: Path) -> Path:
    """Let the trainer publish another version, of a different model."""
    done = subprocess.run(
        [
            sys.executable, "-m", "horngate_trainer.cli", "--output", root, "--epochs", "1", "--seed", "5",
            "--min-accuracy", "0.8", "--report", scratch / "report",
        ],
        check=True, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    return Path(done.stdout.splitlines()[-1])


def reseal(path: Path) -> None:
    """Make the manifest agree with files that were tampered with."""
    file = path / "assets.extra/horngate.json"
    manifest = json.loads(file.read_text())
    manifest["files"] = {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in manifest["files"]}
    file.write_text(json.dumps(manifest))


@pytest.fixture
def server(root: Path, transport: str, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that administrators can talk to."""
    with ServerProcess(root, tmp_path, "--transport", transport, "--admin") as running:
        yield running
        assert running.stop() == 0


def test_a_version_from_the_trainer_takes_over_and_labels_say_who_answers(
    server: ServerProcess, root: Path, tmp_path: Path, mnist: tuple[np.ndarray, np.ndarray]
) -> None:
    """Under load: published, proved, promoted, no call lost; then stable and canary are as right as their evaluations.

    A version that has another's weights, right shapes and all, is refused with the worst example; it is there to see
    in the log, the metrics and Triton's RepositoryIndex, and nobody ever gets its answers.
    """
    images, labels = mnist
    with Callers(server.grpc, images) as callers:
        second = train(root, tmp_path)
        server.wait_for("model mnist: version 2 answers from now on")
        wrong = tmp_path / "models/mnist/.wrong"
        shutil.copytree(root / "mnist/1", wrong)
        shutil.rmtree(wrong / "variables")
        shutil.copytree(second / "variables", wrong / "variables")
        reseal(wrong)
        wrong.rename(root / "mnist/3")
        server.wait_for("version 3 is refused: it disagrees with its recorded answers: ")
    assert not callers.errors
    assert set(callers.answers) == {"1", "2"}
    assert all(spread(answers) < 1e-5 for answers in callers.answers.values())

    repository = triton.InferenceServerClient(server.grpc).get_model_repository_index()
    entry = {each.version: each for each in repository.models}["3"]
    assert (entry.state, "disagrees with its recorded answers" in entry.reason) == ("UNAVAILABLE", True)
    with urllib.request.urlopen(f"{server.http}/metrics", timeout=10) as response:
        samples = [
            sample for family in text_string_to_metric_families(response.read().decode()) for sample in family.samples
        ]
    assert [s.value for s in samples if s.labels.items() >= {"version": "3", "state": "failed"}.items()] == [1]
    reasons = [s.labels["reason"] for s in samples if s.name == "horngate_model_state_reason_info"]
    assert any("disagrees" in reason for reason in reasons)

    with Client(server.grpc, timeout=60) as client:
        client.promote("1")
        client.promote("2", label="canary")
        with pytest.raises(CallError, match="version 3 cannot be served: it disagrees"):
            client.promote("3")
        shown = {each.version: each for each in client.models()}
    assert {version: each.labels for version, each in shown.items()} == {"1": ("", "stable"), "2": ("canary",), "3": ()}
    assert shown["2"].rows > 0
    for label, version in (("stable", "1"), ("canary", "2"), ("", "1")):
        evaluation = json.loads((root / "mnist" / version / "assets.extra/horngate.json").read_text())["evaluation"]
        with Client(server.grpc, version=label, timeout=60) as client:
            prediction = client.predict(images)
        assert prediction.version == version
        assert int((prediction.classes == labels).sum()) == evaluation["correct"]


def test_swaps_under_load_lose_nothing(server: ServerProcess, root: Path, mnist: tuple[np.ndarray, np.ndarray]) -> None:
    """Six versions take over one after the other; each answer is whole, and the last one's state says who is left."""
    with Callers(server.grpc, mnist[0]) as callers:
        for version in range(2, 8):
            shutil.copytree(root / "mnist/1", root / f"mnist/.copy-{version}")
            (root / f"mnist/.copy-{version}").rename(root / f"mnist/{version}")
            server.wait_for(f"model mnist version {version - 1} has left: version {version} answers instead")
    assert not callers.errors
    assert spread(answer for answers in callers.answers.values() for answer in answers) < 1e-5
    assert {version: state for version, (state, _) in states(server).items()} == {
        **dict.fromkeys(range(1, 7), "ended"), 7: "ready",
    }  # fmt: skip


def test_an_empty_root_is_live_and_becomes_ready(trained: Path, transport: str, tmp_path: Path) -> None:
    """A server may be there before its first model."""
    (tmp_path / "models").mkdir()
    with ServerProcess(tmp_path / "models", tmp_path, "--transport", transport) as server:
        assert "no model   yet: waits for" in "\n".join(server.log)
        assert urllib.request.urlopen(f"{server.http}/livez", timeout=10).status == 200
        with pytest.raises(OSError, match="503") as not_ready:
            urllib.request.urlopen(f"{server.http}/readyz", timeout=10)
        not_ready.value.close()  # type: ignore[attr-defined]
        (tmp_path / "models/mnist").mkdir()
        shutil.copytree(trained, tmp_path / "models/mnist/.copy")
        (tmp_path / "models/mnist/.copy").rename(tmp_path / "models/mnist/1")
        server.wait_for("version 1 answers from now on")
        until(lambda: Client(server.grpc).ready())
        assert urllib.request.urlopen(f"{server.http}/readyz", timeout=10).status == 200
        client = triton.InferenceServerClient(server.grpc)
        assert [each.state for each in client.get_model_repository_index().models] == ["READY"]
        with pytest.raises(InferenceServerException, match="start it with --admin"):
            client.unload_model("mnist")
        assert server.stop() == 0


def test_tritonclient_unloads_and_loads(server: ServerProcess) -> None:
    """NVIDIA's client drives the model repository extension."""
    client = triton.InferenceServerClient(server.grpc)
    client.unload_model("mnist")
    with pytest.raises(InferenceServerException, match="NOT_FOUND"):
        client.is_model_ready("mnist")
    client.load_model("mnist")
    assert client.is_model_ready("mnist")
    with pytest.raises(InferenceServerException, match="NOT_FOUND"):
        client.load_model("nobody")
    client.close()


def test_inspect_says_what_would_be_served_and_why_not(trained: Path, tmp_path: Path) -> None:
    """The load report as text and as JSON, and exit code 1 with the reason for a version that would be refused."""

    def inspect(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "horngate_server", "inspect", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    report = json.loads(inspect(trained.parent, "--json").stdout)
    assert (report["name"], str(report["version"]), report["device"]) == ("mnist", trained.name, "CPU")
    assert report["verification"].startswith("verified (")
    assert report["memory_bytes"] < 100e6, "engines' libraries, 300 MB, are not the model's"
    assert [rung["rows"] for rung in report["rungs"]][-1] == report["max_batch_rows"] == 1024
    assert "signature    (images UINT8[?,28,28])" in inspect(trained).stdout
    shutil.copytree(trained, tmp_path / "mnist/9")
    (tmp_path / "mnist/9/variables/variables.index").write_bytes(b"")
    refused = inspect(tmp_path / "mnist/9")
    assert refused.returncode == 1
    assert "variables.index is not the file that the manifest lists" in refused.stderr.splitlines()[-1]
