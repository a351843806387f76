"""An hour of everything at once: memory must not grow, and every request must be counted exactly once.

python benchmarks/soak.py [--minutes 60] [--transport auto] [--workers 1] [--models DIR]

Single images, requests of 64, bulk ones of 4,096 and malformed ones go to the model ``mnist``: what its metrics say
must equal what the callers saw, to the request and to the row. Cancelled calls and deadlines that nobody can meet go
to a copy, ``abused``: whether such a call reached the server is nobody's to know, so there only the sums are bounded.
"""

import asyncio
import multiprocessing
import shutil
import statistics
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

import grpc
import harness
import numpy as np
from comparing import same
from prometheus_client.parser import text_string_to_metric_families
from serving_process import Server, trained

from horngate_protos.open_inference_pb2 import ModelInferRequest, ModelInferResponse

INFER = "/inference.GRPCInferenceService/ModelInfer"
DATA = Path(__file__).parents[1] / "trainer/horngate_trainer/data/mnist.npz"
SAMPLE_S = 5.0
SETTLED_S = 300.0
GROWTH = 0.02
"""Memory may be larger by this share at the end than it was after the first five minutes."""
CALLERS = {"single": 24, "many": 4, "bulk": 2, "malformed": 2, "cancelled": 4, "late": 2}
"""How many of each kind are in flight at any time."""
ROWS = {"single": 1, "many": 64, "bulk": 4096, "malformed": 3, "cancelled": 16, "late": 256}


OURS = ("horngate_requests_total", "mnist")


def message(images: np.ndarray, *, model: str, malformed: bool = False) -> bytes:
    """Write a request."""
    made = ModelInferRequest(model_name=model, raw_input_contents=[images.tobytes()])
    made.inputs.add(name="images", datatype="UINT8", shape=[len(images) + malformed, 28, 28])
    return made.SerializeToString()


async def call(target: str, ends: float) -> Counter[str]:
    """Keep all callers busy until then; count what they saw as {kind code: calls}."""
    with np.load(DATA) as data:
        images = data["x_test"][:4096]
    seen: Counter[str] = Counter()
    async with grpc.aio.insecure_channel(target, options=[("grpc.max_receive_message_length", -1)]) as channel:
        infer: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(INFER)
        expected = _probabilities(await infer(message(images, model="mnist")))
        row = len(expected) // len(images)
        seen["bulk OK"] += 1

        async def caller(kind: str, number: int) -> None:
            rows = ROWS[kind]
            first = 0 if rows == 4096 else number * 97 % (4096 - rows)
            abused = kind in {"cancelled", "late"}
            body = message(
                images[first : first + rows], model="abused" if abused else "mnist", malformed=kind == "malformed"
            )
            while time.monotonic() < ends:
                running = infer(body, timeout=0.0005 if kind == "late" else 60.0)
                if kind == "cancelled":
                    await asyncio.sleep(0.002)
                    running.cancel()
                try:
                    answer = await running
                except (grpc.aio.AioRpcError, asyncio.CancelledError):
                    seen[f"{kind} {(await running.code()).name}"] += 1
                    if abused:
                        await asyncio.sleep(0.01)
                    continue
                seen[f"{kind} OK"] += 1
                if not abused and not same(_probabilities(answer), expected[row * first : row * (first + rows)]):
                    seen[f"{kind} WRONG"] += 1

        await asyncio.gather(*(caller(kind, n) for kind, count in CALLERS.items() for n in range(count)))
    return seen


def caller_process(target: str, ends: float, results: Connection) -> None:
    """Run `call` in a process of its own."""
    results.send(asyncio.run(call(target, ends)))


def metrics(http: str) -> Counter[tuple[str, str, str]]:
    """Read the counters: {(name, model, code): value}, over all workers."""
    with urllib.request.urlopen(f"{http}/metrics", timeout=10) as response:
        text = response.read().decode()
    read: Counter[tuple[str, str, str]] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, sample.labels.get("model", ""), sample.labels.get("code", ""))
            read[key] += int(sample.value) if sample.name.startswith("horngate_r") else 0
    return read


def differences(counted: Counter[tuple[str, str, str]], seen: Counter[str]) -> list[str]:
    """Compare the server's counts with the callers'; say what is not equal."""
    told: Counter[str] = Counter()
    rows = 0
    for what, count in seen.items():
        kind, code = what.split()
        if kind not in {"cancelled", "late"} and code != "WRONG":
            told[code] += count
            rows += ROWS[kind] * count if code == "OK" else 0
    wrong = [f"{what}: {count}" for what, count in seen.items() if what.endswith("WRONG")]
    ours = {
        code: count
        for (name, model, code), count in counted.items()
        if (name, model) == ("horngate_requests_total", "mnist")
    }
    wrong += [
        f"{code}: the callers saw {told[code]}, the server counted {ours.get(code, 0)}"
        for code in sorted({*told, *ours})
        if told[code] != ours.get(code, 0)
    ]
    if counted["horngate_rows_total", "mnist", ""] != rows:
        wrong.append(f"rows: the callers got {rows}, the server counted {counted['horngate_rows_total', 'mnist', '']}")
    if counted["horngate_requests_in_flight", "", ""] != 0:
        wrong.append(f"in flight at the end: {counted['horngate_requests_in_flight', '', '']}")
    return wrong


def growth(memory: list[tuple[float, float]]) -> float | None:
    """Return by which share memory grew from just after the first five minutes to the end; None if it was too short."""
    settled = [value for at, value in memory if at >= SETTLED_S]
    if len(settled) < 20:
        return None
    tenth = max(10, len(settled) // 10)
    return statistics.median(settled[-tenth:]) / statistics.median(settled[:tenth]) - 1


def main() -> int:
    """Run, print a line a minute, judge, save."""
    parser = harness.options(__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--transport", default="auto")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--models", type=Path, help="a model root with mnist; one is trained where none is given")
    asked = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch, "models")
        with trained(asked.models) as models:
            shutil.copytree(models / "mnist", root / "mnist")
        shutil.copytree(root / "mnist", root / "abused")
        flags = ["--transport", asked.transport, "--workers", str(asked.workers), "--verify", "warn"]
        with Server(root, *flags) as server:
            began = time.monotonic()
            ends = began + 60 * asked.minutes
            ours, theirs = context.Pipe()
            process = context.Process(target=caller_process, args=(server.grpc, ends, theirs))
            process.start()
            memory: list[tuple[float, float]] = []
            told = 0
            while not ours.poll(SAMPLE_S):
                if not process.is_alive():
                    raise SystemExit("the callers died")
                memory.append((time.monotonic() - began, server.memory_mb()))
                if len(memory) % 12 == 0:
                    total = sum(
                        v for (name, *_), v in metrics(server.http).items() if name == "horngate_requests_total"
                    )
                    rate, told = (total - told) / (12 * SAMPLE_S), total
                    print(f"{memory[-1][0] / 60:5.1f} min  {rate:8.0f} requests/s  {memory[-1][1]:7.1f} MB", flush=True)
            seen: Counter[str] = ours.recv()
            process.join()
            deadline = time.monotonic() + 10
            while (counted := metrics(server.http))["horngate_requests_in_flight", "", ""]:
                if time.monotonic() > deadline:
                    break
                time.sleep(0.05)
            code = server.stop()
    wrong = differences(counted, seen) + ([f"the server's exit code: {code}"] if code else [])
    grown = growth(memory)
    print("\n".join(f"{what:28}{count:>12}" for what, count in sorted(seen.items())))
    print("memory growth after the first five minutes: " + ("too short to tell" if grown is None else f"{grown:+.2%}"))
    for each in wrong:
        print(f"DIFFERENT  {each}", file=sys.stderr)
    result = {
        "minutes": asked.minutes, "flags": flags, "growth": grown, "different": wrong,
        "seen": dict(sorted(seen.items())), "memory_mb": [[round(at, 1), round(mb, 1)] for at, mb in memory],
    }  # fmt: skip
    if asked.save:
        harness.save("soak", result)
    return 1 if wrong or (grown is not None and grown >= GROWTH) else 0


# --- private ------------------------------------------------------------------------------------------


def _probabilities(answer: bytes) -> bytes:
    return ModelInferResponse.FromString(answer).raw_output_contents[1]


if __name__ == "__main__":
    sys.exit(main())
