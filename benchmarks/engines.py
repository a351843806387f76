"""TensorFlow and LiteRT beside each other, behind the same server: time to ready, memory, one at a time, under load.

python benchmarks/engines.py [--rounds 3] [--seconds 5] [--only NAME,...] [--transport fast] [--models DIR] [--no-save]

Per model, a fresh server with each engine in turn. Load from h2load: one request at a time (p50), 4 connections with 32
(large models: 1 with 32) in flight, and for small models 64 rows a request, 4 x 8. Ratios are the medians of the
rounds' own.
"""

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import harness
import numpy as np
from load import Answers, Load, measure
from serving_process import HERE, Server, alone

from horngate_protos.datatypes import BY_NUMPY
from horngate_protos.open_inference_pb2 import ModelInferRequest
from horngate_server.transports.pyvoy import grpc_framing

ENGINES = ("tensorflow", "litert")
URL = "http://{}/inference.GRPCInferenceService/ModelInfer"
ONE, MANY, BULK = "p50 one at a time, ms", "requests/s", "requests/s of 64 rows"
READY, MEMORY = "ready, s", "memory, MB"


@dataclass(frozen=True, slots=True)
class Workload:
    """A model, and what it is asked.

    Attributes:
        input: the input's name.
        row: its shape without rows, and its type.
        small: a request is over in less than a millisecond.
    """

    input: str
    row: tuple[tuple[int, ...], type[np.generic]]
    small: bool


MODELS = {
    "mlp": Workload("images", ((28, 28), np.uint8), small=True),
    "cnn": Workload("images", ((28, 28), np.uint8), small=True),
    "mobilenet": Workload("images", ((224, 224, 3), np.uint8), small=False),
}


def serve(name: str, engine: str, transport: str, models: Path, seconds: float) -> dict[str, float]:
    """Start a server with one model and one engine, and measure it."""
    workload = MODELS[name]
    with alone(models, name) as root, Server(root, "--engine", engine, "--transport", transport) as server:
        found = {READY: server.ready_s, MEMORY: server.memory_mb()}
        asked = partial(_asked, server, name, workload, seconds)
        found[ONE] = asked(1, 1, 1).p50_ms
        found[MANY] = asked(1, 4 if workload.small else 1, 32).per_second
        if workload.small:
            found[BULK] = asked(64, 4, 8).per_second
        return found


def write(models: Path, names: list[str]) -> None:
    """Write those models that are not there yet."""
    missing = [name for name in names if not (models / name).exists()]
    if missing:
        print(harness.timed([sys.executable, HERE / "engine_models.py", models, *missing])[1], end="", flush=True)


def main() -> None:
    """Measure, show and save."""
    parser = harness.options(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--only", default=",".join(MODELS))
    parser.add_argument("--transport", default="fast")
    parser.add_argument("--models", type=Path)
    asked = parser.parse_args()
    names = asked.only.split(",")
    content = {}
    with tempfile.TemporaryDirectory() as scratch:
        models = asked.models or Path(scratch)
        write(models, names)
        for name in names:
            print(name, flush=True)
            contestants: dict[str, Callable[[], dict[str, float]]] = {
                each: partial(serve, name, each, asked.transport, models, asked.seconds) for each in ENGINES
            }
            values = harness.rounds(asked.rounds, contestants)
            figures = [harness.Figures(figure, each, "") for figure, each in values.items()]
            ratios = {each.name: each.ratio("litert", "tensorflow") for each in figures}
            print(harness.table(figures))
            print("LiteRT to TensorFlow:", ", ".join(f"{figure} {ratio:.2f}" for figure, ratio in ratios.items()))
            content[name] = {"figures": values, "ratios": ratios}
    if asked.save:
        print(harness.save("engines", {"transport": asked.transport, "seconds": asked.seconds, "models": content}))


# --- private ------------------------------------------------------------------------------------------


def _asked(  # noqa: PLR0917 - what one load needs
    server: Server, name: str, workload: Workload, seconds: float, rows: int, connections: int, in_flight: int
) -> Answers:
    shape, dtype = workload.row
    array = np.random.default_rng(0).integers(0, 256, (rows, *shape)).astype(dtype)
    message = ModelInferRequest(model_name=name, raw_input_contents=[array.tobytes()])
    message.inputs.add(name=workload.input, datatype=BY_NUMPY[array.dtype].name, shape=array.shape)
    body = grpc_framing.frame(message.SerializeToString())
    return measure(Load(URL.format(server.grpc), body, None, connections, in_flight), seconds)


if __name__ == "__main__":
    main()
