"""TensorFlow and LiteRT behind the same server: the same answers, chosen and named; a .tflite file alone is a model."""

import json
import re
import shutil
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from horngate_client import Client
from support.process import ServerProcess
from support.waiting import until


def models(server: ServerProcess) -> list[dict[str, Any]]:
    """Return what ``/models`` says."""
    with urllib.request.urlopen(f"{server.http}/models", timeout=20) as response:
        found: list[dict[str, Any]] = json.load(response)
        return found


def lite_alone(trained: Path, root: Path) -> Path:
    """Make a version of the trained model's .tflite file, and of nothing else."""
    version = root / "digits/1"
    version.mkdir(parents=True)
    shutil.copy(trained / "model.tflite", version)
    return version


def test_ten_thousand_images_get_the_same_classes_from_both_engines(
    trained: Path, mnist: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    """And probabilities that differ by less than 1e-5."""
    answers = []
    for engine in ("tensorflow", "litert"):
        (folder := tmp_path / engine).mkdir()
        with ServerProcess(trained.parents[1], folder, "--engine", engine) as server, Client(server.grpc) as client:
            answers.append(client.predict(mnist[0]))
            assert models(server)[0]["report"]["engine"] == engine
    full, lite = answers
    assert (full.classes == lite.classes).all()
    assert len(full.classes) == 10_000
    assert np.abs(full.probabilities - lite.probabilities).max() < 1e-5


def test_by_itself_a_server_says_which_engine_computes_and_why(trained: Path, tmp_path: Path) -> None:
    """In the banner, in /models and in the metrics; gradients are TensorFlow's whichever it is."""
    with ServerProcess(trained.parents[1], tmp_path) as server:
        [report] = [each["report"] for each in models(server)]
        assert report["engines"]["explain"] == "tensorflow"
        assert "TensorFlow's time" in report["why_engine"]
        [banner] = [line for line in server.log if "  engine     " in line]
        assert report["engine"] in banner
        assert report["why_engine"] in banner
        with Client(server.grpc) as client:
            client.predict(np.zeros((3, 28, 28), np.uint8))
            assert client.explain(np.zeros((1, 28, 28), np.uint8)).attributions.shape == (1, 28, 28)

        def counted() -> bool:
            with urllib.request.urlopen(f"{server.http}/metrics", timeout=20) as response:
                page = response.read().decode()
            return all(f'horngate_batch_seconds_count{{engine="{each}",model="mnist"}}' in page for each in computing)

        computing = {report["engine"], "tensorflow"}
        until(counted)  # a batch is counted after its callers were answered


def test_a_tflite_file_alone_is_a_model(trained: Path, tmp_path: Path, transport: str) -> None:
    """Without a manifest, by TensorFlow Serving's name for it; its metadata and answers are as a SavedModel's."""
    lite_alone(trained, tmp_path / "models")
    with (
        ServerProcess(tmp_path / "models", tmp_path, "--transport", transport) as server,
        Client(server.grpc, model="digits") as client,
    ):
        [version] = client.models()
        assert (version.engine, version.device) == ("litert", "CPU")
        assert version.verification.startswith("unverified")
        assert [each.name for each in client.model().inputs] == ["images"]
        answer = client.infer({"images": np.zeros((5, 28, 28), np.uint8)})
        assert answer["probabilities"].shape == (5, 10)


def test_the_other_engine_agrees_with_the_one_that_answers(
    trained: Path, mnist: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    """As a shadow, on live requests: the same class for every row."""
    config = tmp_path / "models.toml"
    config.write_text('[models.mnist]\nshadow = { engine = "litert", share = 1.0 }\n')
    with (
        ServerProcess(trained.parents[1], tmp_path, "--config", str(config)) as server,
        Client(server.grpc) as client,
    ):

        def computed() -> bool:
            client.predict(mnist[0][:64])
            return client.models()[0].shadow_rows >= 128

        until(computed)
        [version] = client.models()
        assert version.engine == "tensorflow"
        assert version.shadow_agreed == version.shadow_rows


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cannot be read"),
        (b"\x1c\0\0\0TFL3" + bytes(64), "damaged"),
        (b"PK\x03\x04" + bytes(99), "it is no TFL3 file"),
    ],
    ids=["empty", "damaged", "another-format"],
)
def test_a_file_that_is_no_model_is_refused_in_words(tmp_path: Path, content: bytes, said: str) -> None:
    """And the server lives on, without it."""
    version = tmp_path / "models/m/1"
    version.mkdir(parents=True)
    (version / "model.tflite").write_bytes(content)
    with ServerProcess(tmp_path / "models", tmp_path) as server:
        until(lambda: any("is refused" in line for line in server.log))
        [line] = [line for line in server.log if "is refused" in line]
        assert "model m version 1 is refused" in line
        assert "Traceback" not in "\n".join(server.log)
        assert re.search(said, line)
