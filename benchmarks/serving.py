"""Horngate beside its limits and its peers: requests and images a second, latency, memory, start.

python benchmarks/serving.py [--rounds 3] [--seconds 4] [--only NAME,...] [--skip NAME,...] [--models DIR]

Everybody serves the same SavedModel and is asked by h2load on the same machine; answers are checked before and after
each measurement. Rounds are interleaved; ratios are the medians of the rounds' own ratios. Peers that are not
installed (benchmarks/contestants.py install) are left out with a word.
"""

import statistics
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path

import contestants
import harness
import numpy as np
from contestants import Contestant, Images
from load import Load, measure, measure_both
from serving_process import trained

HERE = Path(__file__).parent
DATA = HERE.parent / "trainer/horngate_trainer/data/mnist.npz"
HORNGATE = {
    "horngate": ("--transport", "fast"),
    "horngate-litert": ("--transport", "fast", "--engine", "litert"),
    "horngate-grpcio": ("--transport", "grpcio"),
}
PEERS = (*contestants.PEERS, *contestants.CONTAINERS)
MIXED = ("horngate", "horngate-grpcio")
MARKED = "horngate-priority: bulk"
ONE_EACH = "p50 of 16 connections with one request each, ms"
MIXED_P99 = "mixed: p99 of single images"
BULK = 64
LARGE = 4096
Figures = dict[str, float]


def capi(models: Path) -> Figures:
    """Measure the C API alone, with one thread, in a process of its own."""
    _, text = harness.timed([sys.executable, HERE / "capi.py", max((models / "mnist").iterdir()), DATA])
    one, many = map(float, text.split())
    return {"C API p50, ms": one * 1000, "images/s": 256 / many}


def client(address: str) -> float:
    """Let the project's client classify all 70,000 images, from one process; return images a second."""
    _, text = harness.timed([sys.executable, HERE / "client_rate.py", address, DATA])
    return float(text)


def serve(
    start: Callable[[], AbstractContextManager[Contestant]], images: Images, classes: list[int], seconds: float
) -> Figures:
    """Start a contestant, check it, measure it, check it again."""
    with start() as running:
        figures: Figures = {}
        sizes = {}
        if running.name != "echo":
            _check(running, images, classes)
            sizes = {rows: running.ask(images[:rows])[1] for rows in _rows(running)}

        def load(rows: int, connections: int, in_flight: int) -> Load:
            return running.load(
                images[:rows], answer_bytes=sizes.get(rows), connections=connections, in_flight=in_flight
            )

        one = measure(load(1, 1, 1), seconds)
        figures["p50, ms"] = one.p50_ms
        figures[ONE_EACH] = measure(load(1, 16, 1), seconds).p50_ms
        figures["requests/s"] = measure(load(1, 4, 32), seconds).per_second
        figures["images/s"] = BULK * measure(load(BULK, 4, 8), seconds).per_second
        if running.name in MIXED:
            large = load(LARGE, 1, 2)
            alone = measure(load(1, 1, 4), seconds)
            bulk_alone = measure(large, seconds)
            figures[f"{MIXED_P99} alone, ms"] = alone.p99_ms
            for beside, bulk in (
                ("bulk", large),
                ("bulk marked so", replace(large, headers=(*large.headers, MARKED))),
            ):
                singles, kept = measure_both(load(1, 1, 4), bulk, seconds)
                figures[f"{MIXED_P99} beside {beside}, ms"] = singles.p99_ms
                figures[f"mixed: {beside} kept"] = kept.per_second / bulk_alone.per_second
            figures["client, images/s"] = client(running.address)
        if running.name != "echo":
            _check(running, images, classes)
            if running.memory_mb is not None:
                figures["memory, MB"] = running.memory_mb()
            figures["start, s"] = running.start_s
    return figures


def main() -> None:
    """Measure, print, save."""
    parser = harness.options(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--only", default="")
    parser.add_argument("--skip", default="")
    parser.add_argument("--models", type=Path, help="a model root with mnist; one is trained where none is given")
    asked = parser.parse_args()
    with np.load(DATA) as data:
        images: Images = data["x_test"][:LARGE]
    with trained(asked.models) as models:
        names = ["C API", "echo", *HORNGATE, *PEERS]
        names = [name for name in names if name in (asked.only.split(",") if asked.only else names)]
        names = [name for name in names if name not in asked.skip.split(",")]
        for name in [name for name in names if name in PEERS and not contestants.installed(name)]:
            print(f"{name} is not installed, and left out: python benchmarks/contestants.py install")
            names.remove(name)
        classes, sizes = _reference(models, images)
        runs: dict[str, Callable[[], Figures]] = {}
        for name in names:
            start: Callable[[], AbstractContextManager[Contestant]]
            if name == "C API":
                runs[name] = partial(capi, models)
                continue
            if name == "echo":
                start = partial(contestants.echo, sizes)
            elif name in HORNGATE:
                start = partial(contestants.horngate, name, models, *HORNGATE[name])
            else:
                start = partial(contestants.peer, name, models, images[:1])
            runs[name] = partial(serve, start, images, classes, asked.seconds)
        figures = harness.rounds(asked.rounds, runs)
    versions = {name: contestants.version(name) for name in names if name in PEERS}
    ratios = {name: value for name, value in _ratios(figures).items() if value is not None}
    for name, value in ratios.items():
        print(f"{name:90}{value:8.2f}")
    if asked.save:
        print(harness.save("serving", {"peers": versions, "ratios": ratios, "figures": figures}))


# --- private ------------------------------------------------------------------------------------------


def _reference(models: Path, images: Images) -> tuple[list[int], dict[int, int]]:
    """Return the right classes, and for the echo the sizes of requests and answers, frames included."""
    with contestants.horngate("horngate", models, "--transport", "grpcio") as running:
        asked = {rows: running.ask(images[:rows]) for rows in _rows(running)}
        sizes = {
            len(running.load(images[:rows], answer_bytes=None, connections=1, in_flight=1).body): size
            for rows, (_, size) in asked.items()
        }
        return asked[LARGE][0], sizes


def _rows(running: Contestant) -> tuple[int, ...]:
    """Return the sizes of request that this one is asked for; some peers take no large ones."""
    return (1, BULK, LARGE) if running.name in HORNGATE else (1, BULK)


def _check(running: Contestant, images: Images, classes: list[int]) -> None:
    for rows in (1, 7, BULK):
        answered, _ = running.ask(images[:rows])
        if answered != classes[:rows]:
            raise SystemExit(f"{running.name} gives wrong answers for {rows} images: {answered}")


def _ratios(figures: dict[str, dict[str, list[float]]]) -> dict[str, float | None]:
    """Compare, round by round; None where one side was left out."""

    def ratio(figure: str, one: str, other: str, *, of: str = "") -> float | None:
        ours, theirs = figures.get(figure, {}).get(one), figures.get(of or figure, {}).get(other)
        if not ours or not theirs:
            return None
        return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))

    def best(figure: str) -> str:
        return max(
            (name for name in figures.get(figure, {}) if name in PEERS),
            key=lambda name: statistics.median(figures[figure][name]),
            default="",
        )

    p50 = figures.get("p50, ms", {})
    limit = [
        a + b for a, b in zip(p50.get("echo", []), figures.get("C API p50, ms", {}).get("C API", []), strict=False)
    ]
    mixed = {}
    for beside in ("bulk", "bulk marked so"):
        for name, kept in figures.get(f"mixed: {beside} kept", {}).items():
            pairs = zip(
                figures[f"{MIXED_P99} beside {beside}, ms"][name], figures[f"{MIXED_P99} alone, ms"][name], strict=True
            )
            mixed[f"mixed: p99 beside {beside} to p99 alone, {name}"] = statistics.median(a / b for a, b in pairs)
            mixed[f"mixed: {beside} kept, {name}"] = statistics.median(kept)
    requests, rows = best("requests/s"), best("images/s")
    return {
        f"1 image, 4 x 32: to the best peer, {requests}": ratio("requests/s", "horngate", requests),
        "1 image, 4 x 32: to the transport's own echo": ratio("requests/s", "horngate", "echo"),
        f"64 images, 4 x 8: to the best peer, {rows}": ratio("images/s", "horngate", rows),
        "64 images, 4 x 8: to the C API alone at batch 256 with one thread": ratio("images/s", "horngate", "C API"),
        "1 image, 1 in flight: p50 to echo's p50 + C API at batch 1": (
            statistics.median(a / b for a, b in zip(p50["horngate"], limit, strict=True)) if limit else None
        ),
        "1 image, 16 connections, 1 in flight on each: p50 to the echo's": ratio(ONE_EACH, "horngate", "echo"),
        **mixed,
        "client, 70,000 images: to the server's images/s as h2load sees it": ratio(
            "client, images/s", "horngate", "horngate", of="images/s"
        ),
        "grpcio transport, 1 image, 4 x 32: to the plain grpcio script": ratio(
            "requests/s", "horngate-grpcio", "grpcio_script"
        ),
    }


if __name__ == "__main__":
    main()
