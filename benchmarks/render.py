"""Writes RESULTS.md and its plots from the files in results/.

python benchmarks/render.py
"""

import json
import statistics
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt
import render_growth
import render_scaling
from render_growth import when

HERE = Path(__file__).parent
RESULTS = HERE / "results"
NAMES = {
    "horngate": "Horngate",
    "horngate-litert": "Horngate, LiteRT engine",
    "horngate-grpcio": "Horngate, grpcio transport",
    "echo": "limit: the transport's echo",
    "C API": "limit: TensorFlow's C API alone",
    "grpcio_script": "plain grpcio script",
    "pytriton": "PyTriton",
    "mlserver": "MLServer",
    "ray_serve": "Ray Serve",
    "litserve": "LitServe",
    "bentoml": "BentoML",
    "tensorflow_serving": "TensorFlow Serving",
    "triton": "Triton",
}
CONFIGURED = {
    "grpcio_script": "grpc.server with a thread pool of 10, the signature called once per request",
    "pytriton": "dynamic batching, window 1 ms, up to 1,024 rows",
    "mlserver": "custom runtime, adaptive batching, window 1 ms, up to 1,024 requests, in one process",
    "ray_serve": "one replica, @serve.batch, window 1 ms, up to 64 requests, raw bytes over HTTP",
    "litserve": "batching, window 1 ms, up to 64 requests, base64 in JSON",
    "bentoml": "adaptive batching up to 1,024 rows, JSON arrays",
    "tensorflow_serving": "its image, batching, window 1 ms, up to 1,024 rows, as many threads as cores",
    "triton": "its image, the TensorFlow backend, dynamic batching, window 1 ms, up to 1,024 rows, one instance",
}
ONE_EACH = "p50 of 16 connections with one request each, ms"
NOT_HERE = """
TensorFlow Serving and Triton are C++ servers that come as containers of gigabytes, and no Python packages. On a machine
without docker or podman, or without a way to their registries, they are not measured. How they would be is in
`benchmarks/peers/tensorflow_serving` and `benchmarks/peers/triton`, after their documentation, and not yet tried; to
add them, where containers run:

    python benchmarks/contestants.py install --only tensorflow_serving,triton
    python benchmarks/serving.py --only horngate,grpcio_script,tensorflow_serving,triton
"""
AT_LEAST = {
    "1 image, 4 x 32: to the best peer": "at least 10",
    "1 image, 4 x 32: to the transport": "at least 0.75",
    "64 images, 4 x 8: to the best peer": "at least 4.5",
    "64 images, 4 x 8: to the C API": "at least 0.8",
    "1 image, 1 in flight": "at most 1.6",
    "1 image, 16 connections": "at most 1.5",
    "mixed: p99 beside bulk marked": "at most 2",
    "mixed: p99": "at most 3",
    "mixed: bulk marked": "",
    "mixed: bulk": "at least 0.6",
    "client": "at least 0.5",
    "grpcio transport": "at least 2.2",
}


def main() -> None:
    """Read, draw, write."""
    serving = json.loads((RESULTS / "serving.json").read_text())
    draw(serving["figures"], serving["machine"]["cores"])
    parts = ["# Measured", "", _head(serving["machine"]), "", *_serving(serving), *_others()]
    (HERE / "RESULTS.md").write_text("\n".join(parts).rstrip() + "\n")
    print(HERE / "RESULTS.md")


def draw(figures: dict[str, dict[str, list[float]]], cores: int) -> None:
    """Draw requests and images a second as bars, and say what was measured."""
    mpl.rcParams["svg.hashsalt"] = "horngate"
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    titles = {
        "requests/s": "Requests of one image answered a second\n(4 connections, on each 32 requests at a time)",
        "images/s": "Images classified a second, 64 in each request\n(4 connections, on each 8 requests at a time)",
    }
    figure.suptitle(
        "One small network for handwritten digits behind each server in turn; longer bars are better.\n"
        f"{cores} cores, shared by the server and those who ask it; medians",
        fontsize=11,
    )
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        values = {who: statistics.median(each) for who, each in figures[name].items() if who not in {"C API", "echo"}}
        order = sorted(values, key=values.__getitem__)
        colours = ["#d1601f" if who.startswith("horngate") else "#9aa5b1" for who in order]
        bars = axis.barh([NAMES[who] for who in order], [values[who] for who in order], color=colours)
        axis.bar_label(bars, [f"{values[who]:,.0f}" for who in order], padding=4, fontsize=9)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel(name.replace("/s", " a second"))
        axis.margins(x=0.2)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(RESULTS / "serving.svg", metadata={"Date": None})
    plt.close(figure)


# --- private ------------------------------------------------------------------------------------------


def _head(machine: dict[str, Any]) -> str:
    versions = ", ".join(f"{key} {machine[key]}" for key in ("python", "tensorflow-cpu", "grpcio", "numpy"))
    return (
        f"{machine['date']}, commit {machine['commit']}; {machine['cores']} cores ({machine['processor']}), "
        f"{machine['system']}; {versions}. The load generator runs on the same cores.\n\n"
        "Again: `make bench`; the peers first, once: `python benchmarks/contestants.py install` "
        "(`--skip` and `--only` take names)."
    )


def _serving(content: dict[str, Any]) -> list[str]:
    lines = [
        "## Serving MNIST",
        "",
        "Everybody serves the same SavedModel (uint8 in). Load from h2load; each answer's size is checked, and answers",
        "before and after each measurement. Rounds are interleaved; medians, and in brackets minimum and maximum.",
        "",
        "![requests and images a second](results/serving.svg)",
        "",
    ]
    figures = content["figures"]
    shown = ["requests/s", "images/s", "p50, ms", ONE_EACH, "memory, MB", "start, s"]
    lines += ["| | " + " | ".join(shown) + " |", "| --- |" + " ---: |" * len(shown)]
    everybody = [who for who in NAMES if any(who in each for each in figures.values())]
    for who in everybody:
        cells = [_cell(figures.get(name, {}).get(who)) for name in shown]
        lines.append(f"| {NAMES[who]} | " + " | ".join(cells) + " |")
    lines += ["", "| ratio, median of the rounds' own | measured | wanted |", "| --- | ---: | --- |"]
    for name, value in content["ratios"].items():
        wanted = next((text for start, text in AT_LEAST.items() if name.startswith(start)), "")
        lines.append(f"| {name} | {value:.2f} | {wanted} |")
    lines += ["", "How the peers are configured, as their documentation recommends:", ""]
    lines += [f"- {content['peers'][who]}: {text}" for who, text in CONFIGURED.items() if who in content["peers"]]
    if "tensorflow_serving" not in content["peers"] and "triton" not in content["peers"]:
        lines += NOT_HERE.rstrip().splitlines()
    return [*lines, ""]


def _cell(values: list[float] | None) -> str:
    if not values:
        return ""
    return f"{_number(statistics.median(values))} ({_number(min(values))} to {_number(max(values))})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _others() -> list[str]:
    lines = []
    if (RESULTS / "start.json").exists():
        start = json.loads((RESULTS / "start.json").read_text())
        lines += [
            "## Start and memory",
            "",
            f"Process start to first answer, to `import tensorflow`: {start['ratio']:.2f}.",
            "",
        ]
        lines += [
            f"- {figure}, {who}: {_cell(values)}"
            for figure, each in start["figures"].items()
            for who, values in each.items()
        ]
        lines.append("")
    if (RESULTS / "trainer.json").exists():
        trainer = json.loads((RESULTS / "trainer.json").read_text())
        lines += ["## Trainer", "", "Beside the plain Keras script:", ""]
        lines += [f"- {name}: {value:.2f} of its time" for name, value in trainer["ratios"].items()]
        lines.append("")
    if (RESULTS / "soak.json").exists():
        soak = json.loads((RESULTS / "soak.json").read_text())
        total = sum(soak["seen"].values())
        growth = "too short to tell" if soak["growth"] is None else f"{soak['growth']:+.2%}"
        equal = "are equal" if not soak["different"] else f"differ: {'; '.join(soak['different'])}"
        lines += [
            "## Soak",
            "",
            f"{soak['minutes']:g} minutes of everything at once, {total:,} calls: single, 64 and 4,096 images,",
            f"malformed, cancelled, late. Memory growth after the first five minutes: {growth}.",
            f"The server's counts and the callers' {equal}.",
            "",
            "| calls | |", "| --- | ---: |",
            *(f"| {what} | {count:,} |" for what, count in soak["seen"].items()),
            "",
        ]  # fmt: skip
    if (RESULTS / "swaps.json").exists():
        swaps = json.loads((RESULTS / "swaps.json").read_text())
        lines += [
            "## Swaps under load",
            "",
            (
                f"{swaps['swaps']} versions took over one after the other within {swaps['seconds']:.0f} s, under "
                f"{swaps['requests_per_second']:,.0f} requests of 4 images a second: {swaps['requests']:,} calls, "
                f"{swaps['failed']} failed, {swaps['wrong']} answered by anyone but the version that they name."
            ),
            (
                f"p99 meanwhile: {swaps['p99_during_ms']:.2f} ms, {swaps['p99_ratio']:.1f} times that without swaps. "
                f"Memory after the last, to that after the fifth: {swaps['rss_growth']:+.1%}."
            ),
            "",
        ]
    if (RESULTS / "engines.json").exists():
        lines += _engines(json.loads((RESULTS / "engines.json").read_text()))
    if (RESULTS / "neighbours.json").exists():
        lines += _neighbours(json.loads((RESULTS / "neighbours.json").read_text()))
    if (RESULTS / "large_models.json").exists():
        lines += _large(json.loads((RESULTS / "large_models.json").read_text()))
    if (RESULTS / "growth.json").exists():
        growth = json.loads((RESULTS / "growth.json").read_text())
        render_growth.draw(growth, RESULTS / "growth.svg")
        lines += render_growth.section(growth)
    if (RESULTS / "scaling.json").exists():
        scaling = json.loads((RESULTS / "scaling.json").read_text())
        render_scaling.draw(scaling, RESULTS / "scaling.svg")
        lines += render_scaling.section(scaling)
    return lines


def _engines(content: dict[str, Any]) -> list[str]:
    lines = [
        "## TensorFlow and LiteRT",
        "",
        when(content["machine"]),
        "",
        f"The same version behind the same server ({content['transport']} transport), computed by either engine;",
        f"load from h2load for {content['seconds']:g} s each.",
        "",
        "| | TensorFlow | LiteRT | LiteRT to TensorFlow |",
        "| --- | ---: | ---: | ---: |",
    ]
    for model, about in content["models"].items():
        for figure, values in about["figures"].items():
            cells = " | ".join(_cell(values[engine]) for engine in ("tensorflow", "litert"))
            lines.append(f"| {model}: {figure} | {cells} | {about['ratios'][figure]:.2f} |")
    return [*lines, ""]


def _neighbours(content: dict[str, Any]) -> list[str]:
    lines = [
        "## Good callers beside a bad one",
        "",
        when(content["machine"]),
        "",
        f"Eight callers of a table of ten rows for {content['seconds']:g} s, alone and beside one whose id is out of",
        "range; and a caller with small requests beside one whose shape is huge and has no elements. Wanted: no good",
        "call fails, at least half of the rate is kept, the bad caller gets INVALID_ARGUMENT (within 10 ms where the",
        "shape is at fault), and at most a line a second in the log.",
        "",
    ]
    for name, part in content["parts"].items():
        transports = list(part["told"])
        lines += [f"| {name} | {' | '.join(transports)} |", "| --- |" + " ---: |" * len(transports)]
        for figure, values in part["figures"].items():
            lines.append(f"| {figure} | {' | '.join(_cell(values[each]) for each in transports)} |")
        told = (", ".join(f"{code} {count:,}" for code, count in part["told"][each].items()) for each in transports)
        ratios = (f"{part['ratios'][each][1]:.2f}" for each in transports)
        lines += [
            f"| the bad caller was told | {' | '.join(told)} |",
            f"| **{part['ratios'][transports[0]][0]}** | {' | '.join(ratios)} |",
            "",
        ]
    return lines


def _large(content: dict[str, Any]) -> list[str]:
    lines = [
        "## Large models",
        "",
        when(content["machine"]),
        "",
        "Each alone in a fresh server at default settings; 32 requests of one row in flight (texts of all lengths,",
        "where a model takes these), beside TensorFlow's own Python signature with every core: called one after the",
        "other with one row and with 32, and from 8 threads at once with one row; and PyTriton in front of the same",
        "signature, under the same load. Wanted: ready within a minute, the peak below the limit, at least 1.0 of",
        "TensorFlow's rows a second from 8 threads, and 1.5 times PyTriton's.",
        "",
        "| | ready, s | peak, MB | limit, MB | kept, MB | rows/s | of TF, 1 row | 32 rows | 8 threads | of PyTriton |",
        "| --- |" + " ---: |" * 9,
    ]
    for name, about in content["models"].items():
        for transport, ratios in about["ratios"].items():
            ready, peak, kept, rows = (
                _cell(about["figures"][figure][transport])
                for figure in ("ready, s", "peak, MB", "kept after the load, MB", "rows/s, 32 in flight")
            )
            all_ratios = [*ratios.values(), about.get("to the peer", {}).get(transport)]
            of = " | ".join("" if ratio is None else f"{ratio:.2f}" for ratio in all_ratios)
            lines.append(f"| {name}, {transport} | {ready} | {peak} | {about['limit_mb']:,} | {kept} | {rows} | {of} |")
    lines += ["", "How they are batched:", ""]
    for name, about in content["models"].items():
        figures = about["figures"]
        own = ", ".join(f"{_cell(figures[of]['TensorFlow'])} {of}" for of in next(iter(about["ratios"].values())))
        memory = "limited by a cgroup" if about["limited"] else "only measured"
        lines.append(f"- {name}: {about['batching']}. Memory was {memory}. TensorFlow's own: {own}")
    return [*lines, ""]


if __name__ == "__main__":
    main()
