"""Models that are large, or whose answers are, at default settings: time to ready, memory, throughput.

python benchmarks/large_models.py [--rounds 3] [--seconds 10] [--only NAME,...] [--transports NAME,...] [--models DIR]

Each alone in a fresh server, on the fast and on the grpcio transport: seconds until /readyz is 200, the process's
largest and kept memory, and rows a second with 32 requests of one row in flight (texts of different lengths, where a
model takes these). Beside these TensorFlow's own Python signature in a process of its own with every core: called one
after the other, with one row and with 32, and from eight threads at once with one row; and PyTriton, the fastest peer
with a small model, where it is installed (`contestants.py install`), under the same load. One contestant runs at a
time, in turn; ratios are the medians of the rounds' own. Where there is the right to make a cgroup (version 2), the
server is killed above its limit; elsewhere its memory is only measured. Ends with 1 if a call failed, an answer was
wrong, or a limit was passed.
"""

import json
import statistics
import sys
import tempfile
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

import contestants
import grpc
import harness
import sequences
from callers import Callers, Calls, infer_body
from memory_limit import limited
from serving_process import HERE, Server, alone, foreign, status_mb

from horngate_protos.datatypes import BY_NAME
from horngate_protos.open_inference_pb2 import ModelMetadataRequest, ModelMetadataResponse

LIMITS_MB = {
    "mobilenet": 3000, "resnet50": 3000, "image256": 2500, "image512": 2500, "classes32k": 2500,
    "transformer": 2500, "lstm": 2500, "mlp": 2500,
}  # fmt: skip
IN_FLIGHT = 32
START_S = 300.0
CHECKED = 8
"""Every so many answers, one is compared: with megabytes each, comparing would be the load."""
TENSORFLOW = "TensorFlow"
THREADS = 8
ONE, MANY, AT_ONCE = "rows/s, 1 a call", "rows/s, 32 a call", f"rows/s, {THREADS} threads"
ROWS = "rows/s, 32 in flight"
PEER = "pytriton"
Figures = dict[str, float]


def serve(name: str, transport: str, models: Path, seconds: float, *, about: dict[str, Any]) -> Figures:
    """Start a server with one model, and measure it.

    Args:
        name: of the model.
        transport: of the server.
        models: holds it.
        seconds: of load.
        about: takes how it is batched, and whether its memory was limited.
    """
    flags = ("--transport", transport)
    most = LIMITS_MB[name] * 1_000_000
    with (
        alone(models, name) as root,
        limited("horngate-benchmark", most) as before,
        Server(root, *flags, before=before, start_s=START_S) as server,
        Callers() as callers,
    ):
        about["limited"] = bool(before)
        about["batching"], about["rungs"] = _batching(server)
        kept = status_mb(server.process.pid, "VmRSS")
        loading = server.peak_mb()
        return {
            "ready, s": server.ready_s,
            "peak while loading, MB": loading,
            "kept after loading, MB": kept,
            **_loaded(callers, server.grpc, name, seconds),
            "peak, MB": server.peak_mb(),
            "kept after the load, MB": status_mb(server.process.pid, "VmRSS"),
        }


def peer(name: str, models: Path, seconds: float) -> Figures:
    """Start the peer with one model, and measure it."""
    folder = (models / name / "1").resolve()
    with (
        contestants.started(PEER, folder, lambda running: _bodies(running.address, name), START_S) as running,
        Callers() as callers,
    ):
        return {"ready, s": running.start_s, **_loaded(callers, running.address, name, seconds)}


def tensorflow(name: str, models: Path, seconds: float) -> Figures:
    """Measure TensorFlow's own signature."""
    program = HERE / "tensorflow_rate.py"
    _, text = harness.timed([sys.executable, program, models / name / "1", seconds, THREADS, 1, IN_FLIGHT])
    rates = json.loads(text)
    return {ONE: rates["1"], MANY: rates[str(IN_FLIGHT)], AT_ONCE: rates["threads"]}


def main() -> int:
    """Measure, print, save; 1 if a call failed or a limit was passed."""
    parser = harness.options(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--only", default=",".join(LIMITS_MB))
    parser.add_argument("--transports", default="fast,grpcio")
    parser.add_argument("--models", type=Path, help="keep the models here (default: in a temporary folder)")
    asked = parser.parse_args()
    names, transports = asked.only.split(","), asked.transports.split(",")
    content: dict[str, Any] = {"rounds": asked.rounds, "seconds": asked.seconds, "models": {}}
    with_peer = contestants.installed(PEER)
    if with_peer:
        content["peer"] = contestants.version(PEER)
    else:
        print(f"{PEER} is not installed, and left out: python benchmarks/contestants.py install --only {PEER}")
    broken = []
    with tempfile.TemporaryDirectory() as scratch:
        models = asked.models or Path(scratch)
        foreign(models, *names)
        for name in names:
            peers = {PEER: partial(peer, name, models, asked.seconds)} if with_peer else {}
            about: dict[str, Any] = {"limit_mb": LIMITS_MB[name]}
            print(name)
            figures = harness.rounds(
                asked.rounds,
                {
                    **{each: partial(serve, name, each, models, asked.seconds, about=about) for each in transports},
                    TENSORFLOW: partial(tensorflow, name, models, asked.seconds),
                    **peers,
                },
            )
            about["ratios"] = {
                each: {of: _ratio(figures, each, of, TENSORFLOW) for of in (ONE, MANY, AT_ONCE)} for each in transports
            }
            about["to the peer"] = {each: _ratio(figures, each, ROWS, PEER) for each in transports if with_peer}
            about["figures"] = figures
            content["models"][name] = about
            print(f"  {about['batching']}; memory {'limited' if about['limited'] else 'only measured'}")
            for each in transports:
                print(f"  {each}: " + ", ".join(f"{v:.2f} of {of}" for of, v in about["ratios"][each].items()))
                if with_peer:
                    print(f"  {each}: {about['to the peer'][each]:.2f} times {PEER}")
                broken += [
                    f"{name} on {each}: {what}"
                    for what, most in (("failed", 0), ("wrong", 0), ("peak, MB", LIMITS_MB[name]))
                    if max(figures[what][each]) > most
                ]
    if asked.save:
        print(harness.save("large_models", content))
    print("\n".join(broken), file=sys.stderr)
    return 1 if broken else 0


# --- private ------------------------------------------------------------------------------------------


def _loaded(callers: Callers, target: str, name: str, seconds: float) -> Figures:
    """Load a server, after a while in which it may get warm."""
    body, *others = _bodies(target, name)
    calls = Calls(target, body, IN_FLIGHT, checked=CHECKED, others=tuple(others))
    callers.call(calls, min(2.0, seconds))
    seen = callers.call(calls, seconds)
    return {
        ROWS: seen.per_second,
        "p50, ms": seen.ms(0.5),
        "failed": sum(seen.codes.values()) - seen.codes["OK"],
        "wrong": seen.wrong,
    }


def _batching(server: Server) -> tuple[str, dict[int, float]]:
    """Return how requests are batched and why, and the milliseconds of the sizes that were tried."""
    with urllib.request.urlopen(f"{server.http}/models") as response:
        [model] = json.load(response)
    report = model["report"]
    batching = report["batching"]["serving_default"]
    most = f"up to {report['max_batch_rows']} rows" if batching["mode"] == "rows" else "one request a run"
    return f"{most}: {batching['why']}", {each["rows"]: each["ms"] for each in report["rungs"]}


def _bodies(target: str, name: str) -> list[bytes]:
    """Write requests with a row, as the model's metadata say."""
    with grpc.insecure_channel(target) as channel:
        ask: grpc.UnaryUnaryMultiCallable[ModelMetadataRequest, ModelMetadataResponse] = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelMetadata",
            request_serializer=ModelMetadataRequest.SerializeToString,
            response_deserializer=ModelMetadataResponse.FromString,
        )
        [tensor] = ask(ModelMetadataRequest(name=name)).inputs
    made = sequences.inputs(BY_NAME[tensor.datatype].numpy, tensor.shape[1:], 1)
    return [infer_body(name, tensor.name, tensor.datatype, each.shape, each.tobytes()) for each in made]


def _ratio(figures: dict[str, dict[str, list[float]]], transport: str, of: str, other: str) -> float:
    pairs = zip(figures[ROWS][transport], figures[of][other], strict=True)
    return statistics.median(a / b for a, b in pairs)


if __name__ == "__main__":
    sys.exit(main())
