"""Who is measured: Horngate on each transport, its limits, and the peers; each started, asked and checked the same way.

python benchmarks/contestants.py install [--python PYTHON] [--only NAME,...] [--skip NAME,...]

puts each peer into an environment of its own below benchmarks/.peers; PYTHON needs a shared libpython for PyTriton.
TensorFlow Serving and Triton are containers: where there is docker or podman, their images are pulled.
"""

import argparse
import base64
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import container
import grpc
import harness
import numpy as np
from load import Load
from serving_process import Server, tree_mb

from horngate_protos.datatypes import BY_NUMPY
from horngate_protos.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from horngate_protos.tensorflow_serving_pb2 import PredictRequest, PredictResponse
from horngate_server.transports.pyvoy import grpc_framing

HERE = Path(__file__).parent
PEERS = ("grpcio_script", "pytriton", "mlserver", "ray_serve", "litserve", "bentoml")
CONTAINERS = ("tensorflow_serving", "triton")
ENVIRONMENTS = HERE / ".peers"
INFER = "/inference.GRPCInferenceService/ModelInfer"
START_S = 120.0
Images = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a contestant is asked.

    Attributes:
        request: images to a request's body.
        classes: an answer's body to the classes, as far as it tells them.
        path: the URL's.
        headers: name: value.
        grpc: whether it is gRPC, rather than JSON over HTTP/1.1.
    """

    request: Callable[[Images], bytes]
    classes: Callable[[bytes], list[int]]
    path: str = INFER
    headers: tuple[str, ...] = ("content-type: application/grpc", "te: trailers")
    grpc: bool = True


def _oip(images: Images) -> bytes:
    made = ModelInferRequest(model_name="mnist", raw_input_contents=[images.tobytes()])
    made.inputs.add(name="images", datatype="UINT8", shape=images.shape)
    return made.SerializeToString()


def _oip_classes(answer: bytes) -> list[int]:
    response = ModelInferResponse.FromString(answer)
    place = [tensor.name for tensor in response.outputs].index("classes")
    if response.raw_output_contents:
        return [int(each) for each in np.frombuffer(response.raw_output_contents[place], np.int64)]
    return list(response.outputs[place].contents.int64_contents)


def _predict(images: Images) -> bytes:
    request = PredictRequest()
    request.model_spec.name = "mnist"
    tensor = request.inputs["images"]
    tensor.dtype, tensor.tensor_content = BY_NUMPY[images.dtype].tensorflow, images.tobytes()
    for size in images.shape:
        tensor.tensor_shape.dim.add(size=size)
    return request.SerializeToString()


def _predicted_classes(answer: bytes) -> list[int]:
    tensor = PredictResponse.FromString(answer).outputs["classes"]
    if tensor.tensor_content:
        return [int(each) for each in np.frombuffer(tensor.tensor_content, np.int64)]
    return list(tensor.int64_val)


OIP = Dialect(_oip, _oip_classes)
JSON = ("content-type: application/json",)
DIALECTS = {
    "tensorflow_serving": Dialect(_predict, _predicted_classes, "/tensorflow.serving.PredictionService/Predict"),
    "ray_serve": Dialect(
        lambda images: images.tobytes(), lambda body: json.loads(body)["classes"], "/",
        ("content-type: application/octet-stream",), grpc=False,
    ),
    "litserve": Dialect(
        lambda images: json.dumps({"images": base64.b64encode(images.tobytes()).decode()}).encode(),
        lambda body: json.loads(body)["classes"], "/predict", JSON, grpc=False,
    ),
    "bentoml": Dialect(
        lambda images: json.dumps({"images": images.tolist()}).encode(),
        lambda body: np.argmax(json.loads(body), axis=1).tolist(), "/infer", JSON, grpc=False,
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Contestant:
    """One that runs.

    Attributes:
        name: who.
        address: host:port.
        memory_mb: reads what it and its children hold; None where these are a container's.
        start_s: seconds from its start to its first right answer.
    """

    name: str
    address: str
    memory_mb: Callable[[], float] | None
    start_s: float = 0.0

    @property
    def dialect(self) -> Dialect:
        """How it is asked."""
        return DIALECTS.get(self.name, OIP)

    def ask(self, images: Images) -> tuple[list[int], int]:
        """Return the classes, and the bytes of the answer's body on the wire."""
        dialect = self.dialect
        body = dialect.request(images)
        if dialect.grpc:
            options = [("grpc.max_receive_message_length", -1)]
            with grpc.insecure_channel(self.address, options=options) as channel:
                infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(dialect.path)
                answer = infer(body, timeout=30)
            return dialect.classes(answer), len(answer) + grpc_framing.PREFIX_BYTES
        headers = dict(header.split(": ") for header in dialect.headers)
        asked = urllib.request.Request(f"http://{self.address}{dialect.path}", body, headers)
        with urllib.request.urlopen(asked, timeout=30) as response:
            answer = response.read()
        return dialect.classes(answer), len(answer)

    def load(self, images: Images, *, answer_bytes: int | None, connections: int, in_flight: int) -> Load:
        """Describe a load of requests with these images."""
        dialect = self.dialect
        body = dialect.request(images)
        if not dialect.grpc:  # HTTP/1.1 has one request at a time on a connection; JSON's floats vary in length
            connections, in_flight, answer_bytes = connections * in_flight, 1, None
        return Load(
            f"http://{self.address}{dialect.path}",
            grpc_framing.frame(body) if dialect.grpc else body,
            answer_bytes, connections, in_flight, dialect.headers, http1=not dialect.grpc,
        )  # fmt: skip


@contextmanager
def horngate(name: str, models: Path, *flags: str) -> Iterator[Contestant]:
    """Run Horngate."""
    began = time.perf_counter()
    with Server(models, *flags) as server:
        yield Contestant(name, server.grpc, server.memory_mb, time.perf_counter() - began)


@contextmanager
def peer(name: str, models: Path, images: Images) -> Iterator[Contestant]:
    """Run a peer with mnist, from its environment, until it has answered once."""
    folder = max((models / "mnist").iterdir()).resolve()
    with started(name, folder, lambda running: running.ask(images)) as running:
        yield running


@contextmanager
def started(
    name: str, folder: Path, ask: Callable[[Contestant], object], start_s: float = START_S
) -> Iterator[Contestant]:
    """Run a peer with the model in a version's folder, from its environment, until it has been asked successfully."""
    port = harness.free_port()
    command = [str(python(name)), str(HERE / "peers" / name / "serve.py"), str(folder), str(port)]
    with _running(command, dict(os.environ)) as process:
        began = time.perf_counter()
        memory_mb = None if name in CONTAINERS else lambda: tree_mb(process.pid)
        running = Contestant(name, f"127.0.0.1:{port}", memory_mb)
        while True:
            try:
                ask(running)
                break
            except (grpc.RpcError, OSError, KeyError, ValueError) as error:
                if process.poll() is not None or time.perf_counter() - began > start_s:
                    raise SystemExit(f"{name} did not start: {error}") from error
                time.sleep(0.01)
        yield Contestant(name, running.address, running.memory_mb, time.perf_counter() - began)


@contextmanager
def echo(sizes: dict[int, int]) -> Iterator[Contestant]:
    """Run the fast transport alone, in the configuration that Horngate gives it."""
    port = harness.free_port()
    pairs = ",".join(f"{asked}:{answered}" for asked, answered in sizes.items())
    with _running(
        [sys.executable, str(HERE / "echo.py"), str(port)], {**os.environ, "HORNGATE_ECHO": pairs}
    ) as process:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.01)
        yield Contestant("echo", f"127.0.0.1:{port}", lambda: tree_mb(process.pid))


def python(name: str) -> Path:
    """Return the Python that runs a peer; the script and what runs in containers have no environment of their own."""
    return Path(sys.executable) if name in {"grpcio_script", *CONTAINERS} else ENVIRONMENTS / name / "bin/python"


def installed(name: str) -> bool:
    """Whether a peer is there."""
    if name in CONTAINERS:
        engine = container.engine()
        return engine is not None and container.pulled(engine, image(name))
    return python(name).exists()


def image(name: str) -> str:
    """Return the image of a peer that is a container."""
    return (HERE / "peers" / name / "image").read_text().strip()


def version(name: str) -> str:
    """Return the package and version of a peer that is installed, or its image."""
    if name in CONTAINERS:
        return image(name)
    package = {"grpcio_script": "grpcio", "pytriton": "nvidia-pytriton", "ray_serve": "ray"}.get(name, name)
    program = f"from importlib.metadata import version; print('{package}', version('{package}'))"
    done = subprocess.run([str(python(name)), "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def install(names: list[str], interpreter: str) -> None:
    """Make the peers' environments, and pull their images."""
    for name in names:
        if name in CONTAINERS:
            if (engine := container.engine()) is None:
                print(f"{name} is a container, and left out: there is neither docker nor podman")
            elif subprocess.run([engine, "pull", image(name)], check=False).returncode:
                print(f"{name} is left out: {image(name)} cannot be pulled")
        elif name != "grpcio_script" and not (ENVIRONMENTS / name / ".ready").exists():
            print(f"installing {name}", flush=True)
            subprocess.run([interpreter, "-m", "venv", "--clear", str(ENVIRONMENTS / name)], check=True)
            subprocess.run(
                [str(python(name)), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "-r",
                 str(HERE / "peers" / name / "requirements.txt")],
                check=True,
            )  # fmt: skip
            (ENVIRONMENTS / name / ".ready").touch()


# --- private ------------------------------------------------------------------------------------------


@contextmanager
def _running(command: list[str], environment: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE), environment.get("PYTHONPATH", "")])
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        try:
            yield process
        except BaseException:
            log.seek(0)
            print(log.read().decode(errors="replace")[-3000:], file=sys.stderr)
            raise
        finally:
            try:
                os.killpg(process.pid, 15)
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait()
            except ProcessLookupError:
                pass


def main() -> None:
    """Install."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["install"])
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--only", default=",".join((*PEERS, *CONTAINERS)))
    parser.add_argument("--skip", default="")
    asked = parser.parse_args()
    install([name for name in asked.only.split(",") if name not in asked.skip.split(",")], asked.python)


if __name__ == "__main__":
    main()
