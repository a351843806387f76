"""Swaps under load: versions take over one after the other while callers go on calling, and nobody may notice.

Two models of the same architecture that answer differently are published in turn. Every answer is held against what
the version named in it must say; its version must have been promoted when it was given. Memory is compared after the
fifth and the last swap, latency with that of the same callers before the first.
"""

import asyncio
import json
import shutil
import statistics
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import grpc
import harness
import numpy as np
from comparing import SAME, same, spread
from serving_process import Server

from horngate_protos.open_inference_pb2 import ModelInferRequest, ModelInferResponse

DATA = Path(__file__).parents[1] / "trainer/horngate_trainer/data/mnist.npz"
INFER = "/inference.GRPCInferenceService/ModelInfer"
CALLERS = 16
ROWS = 4
PROBABILITIES = 1
"""Their place among the outputs: two models may well agree on four classes, not on forty probabilities."""


class Callers:
    """Sixteen callers that together send so many requests a second, and check every answer."""

    def __init__(self, target: str, per_second: float, images: np.ndarray) -> None:
        self._target = target
        self._pause = CALLERS / per_second
        self._bodies = []
        for start in range(0, 64, ROWS):
            message = ModelInferRequest(model_name="mnist", raw_input_contents=[images[start : start + ROWS].tobytes()])
            message.inputs.add(name="images", datatype="UINT8", shape=[ROWS, 28, 28])
            self._bodies.append(message.SerializeToString())
        self.seconds: list[float] = []
        self.failures: list[str] = []
        self.answers: dict[int, dict[str, set[bytes]]] = {}
        self.versions: dict[str, int] = {}
        self._stop = False

    async def run(self) -> None:
        """Call until told to stop."""
        async with grpc.aio.insecure_channel(self._target) as channel:
            infer: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(INFER)
            await asyncio.gather(*(self._call(infer, number) for number in range(CALLERS)))

    def stop(self) -> None:
        """Let each end after its present call."""
        self._stop = True

    async def _call(self, infer: "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]", number: int) -> None:
        body = self._bodies[number]
        due = time.perf_counter() + number * self._pause / CALLERS
        while not self._stop:
            due += self._pause
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            began = time.perf_counter()
            try:
                answer = ModelInferResponse.FromString(await infer(body, timeout=30))
            except grpc.aio.AioRpcError as error:
                self.failures.append(f"{error.code().name}: {error.details()}")
                continue
            self.seconds.append(time.perf_counter() - began)
            self.versions[answer.model_version] = self.versions.get(answer.model_version, 0) + 1
            said = self.answers.setdefault(number, {}).setdefault(answer.model_version, set())
            said.add(answer.raw_output_contents[PROBABILITIES])


def p99_ms(seconds: list[float]) -> float:
    """Return the 99th percentile in milliseconds."""
    return statistics.quantiles(seconds, n=100)[98] * 1e3


def states(http: str) -> dict[int, str]:
    """Ask for the versions' states."""
    with urllib.request.urlopen(f"{http}/models") as response:
        return {each["version"]: each["state"] for each in json.load(response)}


def rss(pid: int) -> int:
    """Return a process's memory in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def train(scratch: Path, seed: int) -> Path:
    """Train a model quickly; return its version's folder."""
    harness.timed(
        [sys.executable, "-m", "horngate_trainer.cli", "--output", scratch / str(seed), "--report", "none",
         "--epochs", "2", "--seed", str(seed), "--min-accuracy", "0.9"]
    )  # fmt: skip
    return scratch / str(seed) / "mnist/1"


async def measure(
    models: list[Path], swaps: int, per_second: float, alone_s: float, flags: list[str]
) -> dict[str, object]:
    """Swap so many times under load."""
    with np.load(DATA) as data:
        images = data["x_test"]
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch, "models")
        (root / "mnist").mkdir(parents=True)
        shutil.copytree(models[0], root / "mnist/1")
        with Server(root, *flags) as server:
            callers = Callers(server.grpc, per_second, images)
            running = asyncio.create_task(callers.run())
            await asyncio.sleep(0.3 * alone_s)
            callers.seconds.clear()
            await asyncio.sleep(alone_s)
            alone, callers.seconds = callers.seconds, []
            fifth = 0
            began = time.perf_counter()
            for number in range(2, swaps + 2):
                partial = root / "mnist" / f".copy-{number}"
                copy = await asyncio.create_subprocess_exec("cp", "-r", models[(number + 1) % 2], partial)
                await copy.wait()
                partial.rename(root / "mnist" / str(number))
                while (now := await asyncio.to_thread(states, server.http)).get(number - 1) != "ended":
                    assert now.get(number) != "failed", now
                    await asyncio.sleep(0.05)
                await (await asyncio.create_subprocess_exec("rm", "-r", root / "mnist" / str(number - 1))).wait()
                if number == 6:
                    fifth = rss(server.process.pid)
                if sys.stderr.isatty():
                    print(f"\r{number - 1}/{swaps} swaps", end="", file=sys.stderr)
            seconds = time.perf_counter() - began
            during = callers.seconds
            last = rss(server.process.pid)
            callers.stop()
            await running
    # Odd versions answer as the first model, even ones as the second.
    wrong = 0
    for said in callers.answers.values():
        if "1" in said and "2" in said and same(next(iter(said["1"])), next(iter(said["2"]))):
            raise SystemExit("the two models give the same answers: nothing could be told from them")
        for version, answers in said.items():
            wrong += spread(answers | said[str(2 - int(version) % 2)]) > SAME
    return {
        "swaps": swaps, "seconds": seconds, "requests": sum(callers.versions.values()),
        "requests_per_second": len(during) / seconds, "failures": callers.failures[:5],
        "failed": len(callers.failures), "versions_seen": len(callers.versions), "wrong": wrong,
        "p99_alone_ms": p99_ms(alone), "p99_during_ms": p99_ms(during), "p99_ratio": p99_ms(during) / p99_ms(alone),
        "rss_fifth": fifth, "rss_last": last, "rss_growth": last / fifth - 1 if fifth else None,
    }  # fmt: skip


def main() -> int:
    """Print and write what was measured; 1 if a request failed or got a wrong answer."""
    parser = harness.options(__doc__)
    parser.add_argument("models", nargs="*", type=Path, help="two versions that answer differently (default: trained)")
    parser.add_argument("--swaps", type=int, default=50)
    parser.add_argument("--per-second", type=float, default=2000, help="requests of 4 images a second")
    parser.add_argument("--alone-seconds", type=float, default=10, help="how long is measured before the first swap")
    parser.add_argument("--flag", action="append", default=[], help="of the server")
    asked = parser.parse_args()
    if len(asked.models) not in (0, 2):
        parser.error("expected two versions, or none")
    with tempfile.TemporaryDirectory() as scratch:
        models = asked.models or [train(Path(scratch), seed) for seed in (1, 2)]
        result = asyncio.run(measure(models, asked.swaps, asked.per_second, asked.alone_seconds, asked.flag))
    print(json.dumps(result, indent=2))
    if asked.save:
        print(harness.save("swaps", result))
    return 1 if result["failed"] or result["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
