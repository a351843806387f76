"""Clients that call by HTTP, unmodified: they change the address and nothing else."""

import asyncio
import gzip
import json
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from horngate_client import Client
from support.process import ServerProcess, free_port

FOREIGN = Path(__file__).parents[1] / "foreign"
IMAGES = 8
WAIT_S = 60.0


@pytest.fixture(scope="module", params=["1", "2"], ids=["one-process", "two-workers"])
def server(
    trained: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server with the trained model, alone and with workers behind it; its REST port is another one, too."""
    flags = ["--transport", "grpcio", "--workers", request.param, "--rest-port", str(free_port())]
    with ServerProcess(trained.parents[1], tmp_path_factory.mktemp("rest"), *flags) as running:
        yield running
        assert not [line for line in running.log if " error " in line]


@pytest.fixture(scope="module")
def images(mnist: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The first test images."""
    return mnist[0][:IMAGES]


@pytest.fixture(scope="module")
def labels(mnist: tuple[np.ndarray, np.ndarray]) -> list[int]:
    """What they are; the trained model knows all of these."""
    return [int(each) for each in mnist[1][:IMAGES]]


@pytest.fixture(scope="module")
def probabilities(server: ServerProcess, images: np.ndarray) -> np.ndarray:
    """All images' probabilities, as our own client gets them by gRPC."""
    with Client(server.grpc) as client:
        return client.predict(images).probabilities


def tensor(images: np.ndarray, *, binary: bool = True, name: str = "images") -> triton.InferInput:
    """Build tritonclient's input."""
    made = triton.InferInput(name, list(images.shape), "UINT8")
    made.set_data_from_numpy(images, binary_data=binary)
    return made


def address(server: ServerProcess) -> str:
    """Return the HTTP port as tritonclient wants it."""
    return server.http.removeprefix("http://")


def test_tritonclient(server: ServerProcess, images: np.ndarray, labels: list[int], probabilities: np.ndarray) -> None:
    """NVIDIA's client with its defaults, and with what else it can send: tensors in JSON, compression, classes."""
    with triton.InferenceServerClient(address(server)) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("mnist")
        assert not client.is_model_ready("nope")
        plain = client.infer("mnist", [tensor(images)], request_id="7", priority=2, timeout=30_000_000)
        assert plain.get_response()["id"] == "7"
        assert plain.get_output("probabilities")["parameters"] == {"binary_data_size": IMAGES * 40}
        np.testing.assert_allclose(plain.as_numpy("probabilities"), probabilities, atol=1e-6)
        assert plain.as_numpy("classes").tolist() == labels
        for compression in ("gzip", "deflate"):
            for binary in (True, False):
                outputs = [
                    triton.InferRequestedOutput(name, binary_data=binary) for name in ("classes", "probabilities")
                ]
                result = client.infer(
                    "mnist",
                    [tensor(images, binary=binary)],
                    outputs=outputs,
                    request_compression_algorithm=compression,
                    response_compression_algorithm=compression,
                )
                assert result.as_numpy("classes").tolist() == labels
                np.testing.assert_allclose(result.as_numpy("probabilities"), probabilities, atol=1e-6)
        wanted = [triton.InferRequestedOutput("probabilities", class_count=3)]
        top = client.infer("mnist", [tensor(images)], outputs=wanted).as_numpy("probabilities")
        assert [int(row[0].split(b":")[1]) for row in top] == labels


def test_tritonclient_asks_about_the_server_and_its_models(server: ServerProcess, trained: Path) -> None:
    """What it is told over HTTP is what gRPC says, in Triton's JSON: numbers are numbers."""
    with triton.InferenceServerClient(address(server)) as client:
        assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
        assert client.get_model_metadata("mnist")["inputs"][0]["shape"] == [-1, 28, 28]
        config = client.get_model_config("mnist", trained.name)
        assert (config["max_batch_size"], config["input"][0]["dims"]) == (1024, [28, 28])
        [statistics] = client.get_inference_statistics("mnist")["model_stats"]
        assert (statistics["version"], type(statistics["inference_count"])) == (trained.name, int)
        assert client.get_inference_statistics()["model_stats"][0]["name"] == "mnist"
        [indexed] = client.get_model_repository_index()
        assert (indexed["name"], indexed["version"], indexed["state"]) == ("mnist", trained.name, "READY")
        for ask in (client.get_system_shared_memory_status, client.get_trace_settings, client.get_log_settings):
            with pytest.raises(InferenceServerException) as failed:
                ask()
            assert failed.value.status() == "501"
        for ask in (client.load_model, client.unload_model):
            with pytest.raises(InferenceServerException, match="--admin"):
                ask("mnist")


MISTAKES: dict[str, tuple[str, dict[str, Any]]] = {
    "unknown-model": ("404", {"model_name": "nope"}),
    "unknown-version": ("404", {"model_version": "99"}),
    "unknown-input": ("400", {"inputs": [tensor(np.zeros((1, 28, 28), np.uint8), name="pixels")]}),
    "wrong-shape": ("400", {"inputs": [tensor(np.zeros((1, 28, 27), np.uint8))]}),
    "unknown-output": ("400", {"outputs": [triton.InferRequestedOutput("nope")]}),
    "timed-out": ("504", {"timeout": 1}),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_tritonclients_mistakes_have_their_codes(server: ServerProcess, mistake: str) -> None:
    """Whatever is wrong, the exception has HTTP's code for it, and a sentence."""
    code, arguments = MISTAKES[mistake]
    with triton.InferenceServerClient(address(server)) as client, pytest.raises(InferenceServerException) as failed:
        client.infer(**{"model_name": "mnist", "inputs": [tensor(np.zeros((1, 28, 28), np.uint8))], **arguments})
    assert failed.value.status() == code
    assert " " in failed.value.message()


def test_tritonclient_aio(server: ServerProcess, images: np.ndarray, labels: list[int]) -> None:
    """The asyncio client, and the one with threads of its own, get the same answers."""

    async def run() -> list[int]:
        async with triton_aio.InferenceServerClient(address(server)) as client:
            found: list[int] = (await client.infer("mnist", [tensor(images)])).as_numpy("classes").tolist()
            return found

    assert asyncio.run(run()) == labels
    with triton.InferenceServerClient(address(server), concurrency=4) as client:
        asked = [client.async_infer("mnist", [tensor(images[each : each + 1])]) for each in range(IMAGES)]
        assert [int(each.get_result().as_numpy("classes")[0]) for each in asked] == labels


def test_kserve(
    server: ServerProcess, images: np.ndarray, labels: list[int], probabilities: np.ndarray, tmp_path: Path
) -> None:
    """KServe's InferenceRESTClient, by version 2 with tensors in JSON and behind it, and by version 1."""
    np.save(tmp_path / "images.npy", images)
    done = subprocess.run(
        [sys.executable, FOREIGN / "kserve_client.py", server.http, tmp_path / "images.npy"],
        capture_output=True, text=True, timeout=WAIT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    came = json.loads(done.stdout)
    assert came["live"] and came["ready"] and came["model ready"]  # noqa: PT018 - one answer
    for how in ("binary False", "binary True"):
        identity, classes, found = came[how]
        assert (identity, classes) == ("k-1", labels)
        got = np.frombuffer(bytes.fromhex(found), np.float32).reshape(IMAGES, 10)
        np.testing.assert_allclose(got, probabilities, atol=1e-6)
    assert "no model 'nope'" in came["error"]
    assert came["v1"] == labels


def curl(url: str, *flags: object, body: bytes | None = None) -> tuple[int, bytes]:
    """Ask with curl; return HTTP's status and what was said."""
    command = ["curl", "--silent", "--write-out", "%{stderr}%{http_code}", *map(str, flags), url]
    if body is not None:
        command += ["--data-binary", "@-"]
    done = subprocess.run(command, input=body, capture_output=True, timeout=WAIT_S, check=True)
    return int(done.stderr), done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")
def test_tensorflow_servings_curl_calls(
    server: ServerProcess, trained: Path, images: np.ndarray, labels: list[int], probabilities: np.ndarray
) -> None:
    """Those of its documentation, on the port that is for them: status, metadata, predict, classify, errors."""
    ports = dict(line.split() for line in server.ports.splitlines())
    base = f"http://localhost:{ports['rest']}/v1/models"

    def ask(path: str, body: object = None, *flags: object) -> tuple[int, Any]:
        code, said = curl(base + path, *flags, body=None if body is None else json.dumps(body).encode())
        return code, json.loads(said)

    state = {"version": trained.name, "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    for path in ("/mnist", f"/mnist/versions/{trained.name}"):
        assert ask(path) == (200, {"model_version_status": [state]})
    code, metadata = ask("/mnist/metadata")
    assert metadata["model_spec"] == {"name": "mnist", "signature_name": "", "version": trained.name}
    definition = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]
    dims = [{"size": size, "name": ""} for size in ("-1", "28", "28")]
    assert definition["inputs"]["images"]["dtype"] == "DT_UINT8"
    assert definition["inputs"]["images"]["tensor_shape"] == {"dim": dims, "unknown_rank": False}
    assert definition["method_name"] == "tensorflow/serving/predict"
    rows = {"signature_name": "serving_default", "instances": images.tolist()}
    for path, given in (("/mnist:predict", rows), (f"/mnist/versions/{trained.name}:predict", rows)):
        code, answer = ask(path, given, "-X", "POST")
        assert (code, [each["classes"] for each in answer["predictions"]]) == (200, labels)
        np.testing.assert_allclose([each["probabilities"] for each in answer["predictions"]], probabilities, atol=1e-6)
    named = {"instances": [{"images": each} for each in images.tolist()]}
    assert [each["classes"] for each in ask("/mnist:predict", named)[1]["predictions"]] == labels
    for inputs in (images.tolist(), {"images": images.tolist()}):
        code, answer = ask("/mnist:predict", {"inputs": inputs})
        assert (code, answer["outputs"]["classes"]) == (200, labels)
    examples = [{"images": each.reshape(-1).tolist()} for each in images]
    code, answer = ask("/mnist:classify", {"examples": examples})
    assert [max(row, key=lambda scored: scored[1])[0] for row in answer["results"]] == [str(each) for each in labels]
    wrong: list[tuple[str, Any, int, str]] = [
        ("/nope:predict", rows, 404, "nope"),
        ("/nope", None, 404, "Could not find any versions of model nope"),
        ("/mnist/versions/99:predict", rows, 404, "99"),
        ("/mnist/labels/nope:predict", rows, 400, "nope"),
        ("/mnist:predict", {"instances": []}, 400, "no values in 'instances'"),
        ("/mnist:predict", {"signature_name": "x", "instances": [1]}, 400, "no signature 'x'"),
        ("/mnist:predict", {"instances": [[1, 2]]}, 400, "shape [1, 2]; expected [-1, 28, 28]"),
        ("/mnist:regress", {"examples": examples}, 400, "Regress"),
        ("/mnist:nonsense", rows, 400, "Malformed request: POST /v1/models/mnist:nonsense"),
    ]
    for path, given, expected, said in wrong:
        code, answer = ask(path, given)
        assert (code, list(answer), said in answer["error"]) == (expected, ["error"], True), answer


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_curl_with_compression(server: ServerProcess, images: np.ndarray, labels: list[int], encoding: str) -> None:
    """Bodies come compressed, and so do answers where curl asks for that and there is something to save."""
    body = json.dumps({"instances": np.tile(images, (10, 1, 1)).tolist()}).encode()
    packed = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
    flags = ("-H", f"content-encoding: {encoding}", "-H", f"accept-encoding: {encoding}")
    code, said = curl(f"{server.http}/v1/models/mnist:predict", *flags, body=packed)
    expanded = gzip.decompress(said) if encoding == "gzip" else zlib.decompress(said)
    assert code == 200
    assert [each["classes"] for each in json.loads(expanded)["predictions"]] == labels * 10


def test_an_administrator_loads_and_unloads_by_tritonclient(trained: Path, tmp_path: Path) -> None:
    """With a token for it; without one, on this port and by these routes as by gRPC, nobody gets anything."""
    made = subprocess.run(
        [sys.executable, "-m", "horngate_server", "token", "operator", "--admin", "--file", tmp_path / "tokens"],
        capture_output=True, text=True, check=True, timeout=WAIT_S,
    )  # fmt: skip
    admin = {"authorization": f"Bearer {made.stdout.strip()}"}
    flags = ["--transport", "grpcio", "--admin", "--tokens", str(tmp_path / "tokens")]
    with (
        ServerProcess(trained.parents[1], tmp_path, *flags) as server,
        triton.InferenceServerClient(address(server)) as client,
    ):
        given = [tensor(np.zeros((1, 28, 28), np.uint8))]
        for ask in (
            lambda: client.infer("mnist", given),
            lambda: client.unload_model("mnist"),
            client.get_inference_statistics,
        ):
            with pytest.raises(InferenceServerException) as failed:
                ask()
            assert failed.value.status() == "401"
        for path in ("/v1/models/mnist", "/openapi.json", "/openapi"):
            assert curl(server.http + path)[0] == 401
        assert client.is_server_ready()
        client.unload_model("mnist", headers=admin)
        with pytest.raises(InferenceServerException):
            client.infer("mnist", given, headers=admin)
        client.load_model("mnist", headers=admin)
        assert client.infer("mnist", given, headers=admin).as_numpy("classes").shape == (1,)
