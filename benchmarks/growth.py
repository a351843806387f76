"""What grows how: with the offered load, to beyond capacity; with workers, models, and the size of a request.

python benchmarks/growth.py [--quick] [--seconds 2] [--most-models 200] [--models DIR] [--no-save]

- Load: an open loop (`open_loop`) of single images, from a tenth to one and a half of what a closed loop gets, with 1
  to 4 workers. Latency counts from the planned moment.
- 64 cores: a simulation (`simulate`) of as many workers as they can feed, from what a request was measured to cost one.
- Models: 1 to 200 copies in one server (12 MB each), asked in turn at half of one model's capacity.
- Size: requests of 1 KB to 16 MB, two at a time on each of two connections.

Everything runs on the same machine, the load too. ``--quick``: two points of each, for `smoke`.
"""

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import harness
import numpy as np
from callers import infer_body
from contestants import Contestant, Images
from load import measure, start
from open_loop import Offered, offer
from serving import DATA
from serving_process import Server, trained
from simulate import Fleet, batches, pinned, poisson, round_robin, simulate

from horngate_server.transports.pyvoy import grpc_framing

SHARES = (0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5)
WORKERS = (1, 2, 3, 4)
MODELS = (1, 10, 50, 200)
ROWS = (1, 16, 128, 1024, 4096, 21_000)
FLAGS = ("--transport", "fast")
LARGEST = ("--queue-rows", "131072")
ANSWERS = 12
"""Requests of a size last so many times as long as one alone took, at least."""
START_S = 600.0
CORES = 64
CONNECTIONS = 256
"""Of the callers of the simulated machine; the kernel gives each to a worker."""
TICKS = os.sysconf("SC_CLK_TCK")
Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a request costs one worker that has as many as it can answer.

    Attributes:
        python_s: seconds of the threads that share Python's lock: they bound the worker.
        all_s: seconds of all its threads.
        alone_s: from a caller's request to its answer, one at a time.
    """

    python_s: float
    all_s: float
    alone_s: float


def load(models: Path, images: Images, shares: Sequence[float], workers: int, seconds: float) -> list[Figures]:
    """Offer shares of its capacity to a server with so many workers."""
    with Server(models, *FLAGS, "--workers", str(workers)) as server:
        asked = _asked(server)
        size = asked.ask(images[:1])[1]
        closed = asked.load(images[:1], answer_bytes=size, connections=4 * workers, in_flight=32)
        capacity = measure(closed, seconds).per_second
        print(f"{workers} workers: {capacity:,.0f} requests/s in a closed loop", flush=True)
        figures = []
        for share in shares:
            offered = Offered(server.grpc, [closed.body], [size], share * capacity, seconds, 4 * workers)
            figures.append(_shown({"share": share, **asdict(offer(offered))}))
    return figures


def cost(models: Path, images: Images, seconds: float) -> Cost:
    """Measure what a request costs one worker, by its threads' own times."""
    with Server(models, *FLAGS) as server:
        asked = _asked(server)
        size = asked.ask(images[:1])[1]
        full = partial(asked.load, images[:1], answer_bytes=size)
        alone = measure(full(connections=1, in_flight=1), seconds)
        before = _thread_seconds(server.process.pid)
        answered = measure(full(connections=4, in_flight=32), seconds)
        spent = {thread: took - before.get(thread, 0.0) for thread, took in _thread_seconds(server.process.pid).items()}
        requests = answered.per_second * (seconds + min(1.0, seconds))  # the warm-up's too
    envoy = sum(took for (_, name), took in spent.items() if name.startswith("wrk:"))
    return Cost((sum(spent.values()) - envoy) / requests, sum(spent.values()) / requests, alone.p50_ms / 1000)


def simulated(measured: Cost, shares: Sequence[float], requests: int) -> dict[str, object]:
    """Simulate as many workers as 64 cores can feed.

    A worker is its Python threads: a request takes their time there, in a batch with whatever waits. The rest runs
    beside them on the cores that are left, and is in the latency that a request has alone.
    """
    workers = max(1, int(CORES * measured.python_s / measured.all_s))
    capacity = workers / measured.python_s
    fleet = Fleet(workers, batches(measured.python_s))
    points: dict[str, list[Figures]] = {}
    for name, pick in (("evenly", round_robin), (f"{CONNECTIONS} connections at random", pinned(CONNECTIONS))):
        points[name] = []
        for share in shares:
            p50, p99 = simulate(fleet, poisson(share * capacity, requests), pick).ms(50, 99)
            alone_ms = 1000 * measured.alone_s
            figures = {"share": share, "offered": share * capacity, "p50_ms": p50 + alone_ms, "p99_ms": p99 + alone_ms}
            points[name].append(_shown(figures))
    return {"workers": workers, "capacity": capacity, "cost": asdict(measured), "points": points}


def many_models(version: Path, images: Images, count: int, rate: float, seconds: float) -> Figures:
    """Serve so many copies of a model, and ask them in turn."""
    with tempfile.TemporaryDirectory() as scratch:
        names = ["mnist", *(f"copy{number}" for number in range(1, count))]
        for name in names:
            Path(scratch, name).symlink_to(version.parent.resolve())
        with Server(Path(scratch), *FLAGS, start_s=START_S) as server:
            asked = _asked(server)
            answer = asked.ask(images[:1])[1] - len("mnist")
            one = images[:1]
            bodies = [
                grpc_framing.frame(infer_body(each, "images", "UINT8", one.shape, one.tobytes())) for each in names
            ]
            answers = [answer + len(name) for name in names]
            answered = offer(Offered(server.grpc, bodies, answers, rate, seconds))
            memory = server.memory_mb()
        return _shown({"models": count, "ready_s": server.ready_s, "memory_mb": memory, **asdict(answered)})


def sizes(models: Path, images: Images, rows: Sequence[int], seconds: float) -> list[Figures]:
    """Ask with requests of so many images."""
    figures = []
    with Server(models, *FLAGS, *LARGEST) as server:
        asked = _asked(server)
        for count in rows:
            several = np.resize(images, (count, *images.shape[1:]))
            began = time.perf_counter()
            size = asked.ask(several)[1]
            long_enough = max(seconds, ANSWERS * (time.perf_counter() - began))
            with tempfile.TemporaryDirectory() as scratch:
                given = asked.load(several, answer_bytes=size, connections=2, in_flight=2)
                seen = start(given, long_enough, Path(scratch)).result()
            megabytes = several.nbytes / 1e6
            figures.append(
                _shown(
                    {
                        "rows": count, "megabytes": megabytes, "per_second": seen.per_second,
                        "megabytes_per_second": seen.per_second * megabytes, "p50_ms": seen.p50_ms,
                        "p99_ms": seen.p99_ms, "memory_mb": server.memory_mb(),
                    }
                )
            )  # fmt: skip
    return figures


def main() -> None:
    """Measure, show and save."""
    parser = harness.options(__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--most-models", type=int, default=MODELS[-1])
    parser.add_argument("--models", type=Path, help="a model root with mnist; one is trained where none is given")
    asked = parser.parse_args()
    seconds = 0.3 if asked.quick else asked.seconds

    shares, rows = ((SHARES[2], SHARES[-1]), ROWS[:3:2]) if asked.quick else (SHARES, ROWS)
    counts = sorted({min(count, asked.most_models) for count in (MODELS[:2] if asked.quick else MODELS)})
    with np.load(DATA) as data:
        images: Images = data["x_test"][:4096]
    with trained(asked.models) as models:
        busy = harness.busy()
        by_workers = {
            str(workers): load(models, images, shares, workers, seconds)
            for workers in (WORKERS[:2] if asked.quick else WORKERS)
        }
        one = by_workers["1"][0]
        half = 0.5 * one["offered"] / one["share"]
        version = max((models / "mnist").iterdir())
        content = {
            "seconds": seconds,
            "busy": busy,
            "load": by_workers,
            "simulated": simulated(cost(models, images, seconds), shares, 20_000 if asked.quick else 200_000),
            "models": [many_models(version, images, count, half, seconds) for count in counts],
            "sizes": sizes(models, images, rows, seconds),
        }
    if asked.save:
        print(harness.save("growth", content))


# --- private ------------------------------------------------------------------------------------------


def _asked(server: Server) -> Contestant:
    return Contestant("horngate", server.grpc, server.memory_mb)


def _shown(figures: Figures) -> Figures:
    print("  " + ", ".join(f"{name} {value:.4g}" for name, value in figures.items()), flush=True)
    return figures


def _thread_seconds(pid: int) -> dict[tuple[int, str], float]:
    """Return the processor seconds of each thread of a process, by its number and name."""
    spent = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        name, _, rest = (task / "stat").read_text().partition("(")[2].rpartition(")")
        fields = rest.split()
        spent[int(task.name), name] = (int(fields[11]) + int(fields[12])) / TICKS
    return spent


if __name__ == "__main__":
    main()
