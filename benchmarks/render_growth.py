"""The plots and the section of RESULTS.md on what grows how, from results/growth.json."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

COLOURS = ("#d1601f", "#2f6f9f", "#5f8f3f", "#7f5fa0")
GREY = "#9aa5b1"
IDLE = 0.1
"""A machine that is not busier than this is its own."""
MODERATE = 0.7
"""A share of the capacity that one would run with."""
Points = Sequence[dict[str, float]]


def draw(content: dict[str, Any], path: Path) -> None:
    """Draw the plots."""
    figure, axes = plt.subplots(2, 3, figsize=(13, 7.4), layout="constrained")
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    answered, waited, many, models, memory, sizes = axes.flat
    for colour, (workers, points) in zip(COLOURS, content["load"].items(), strict=False):
        name = f"{workers} worker{'s' * (workers != '1')}"
        _line(answered, points, "offered", "per_second", name, colour)
        _line(waited, points, "offered", "p99_ms", name, colour)
    most = max(point["offered"] for points in content["load"].values() for point in points)
    answered.plot([0, most], [0, most], color=GREY, linestyle=":", label="all that is offered")
    say(answered, "Answered in time, by offered load", "offered, requests/s", "answered, requests/s")
    say(waited, "p99 from the planned moment, by offered load", "offered, requests/s", "p99, ms", logarithmic="y")
    simulated = content["simulated"]
    for colour, (name, points) in zip(COLOURS, simulated["points"].items(), strict=False):
        _line(many, points, "offered", "p99_ms", name, colour)
    say(many, f"Simulated: 64 cores, {simulated['workers']} workers", "offered, requests/s", "p99, ms", logarithmic="y")
    _line(models, content["models"], "models", "p99_ms", "p99", COLOURS[0])
    _line(models, content["models"], "models", "p50_ms", "p50", COLOURS[1])
    say(models, f"By models, at {content['models'][0]['offered']:,.0f} requests/s", "models", "ms", logarithmic="y")
    _line(memory, content["models"], "models", "memory_mb", "memory, MB", COLOURS[0])
    beside = memory.twinx()
    beside.spines["top"].set_visible(False)
    beside.plot(*_columns(content["models"], "models", "ready_s"), marker="o", markersize=3, color=COLOURS[1])
    beside.set_ylim(bottom=0)
    beside.set_ylabel("ready after, s (blue)", fontsize=9)
    say(memory, "Memory and start, by models", "models", "memory, MB (orange)", legend=False)
    _line(sizes, content["sizes"], "megabytes", "megabytes_per_second", "MB/s", COLOURS[0])
    _line(sizes, content["sizes"], "megabytes", "p99_ms", "p99, ms", COLOURS[1])
    say(sizes, "By a request's size, 2 x 2 in flight", "a request, MB", "MB/s, ms", logarithmic="both")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def section(content: dict[str, Any]) -> list[str]:
    """Return what grows how, in words with their figures."""
    one = content["load"]["1"]
    capacity = one[0]["offered"] / one[0]["share"]
    below = max((each for each in one if each["share"] <= MODERATE), key=lambda each: each["share"])
    beyond = one[-1]
    best = {workers: max(each["per_second"] for each in points) for workers, points in content["load"].items()}
    simulated = content["simulated"]
    cost = simulated["cost"]
    evenly, pinned = (
        max((each for each in points if each["share"] <= MODERATE), key=lambda each: each["share"])
        for points in simulated["points"].values()
    )
    few, many = content["models"][0], content["models"][-1]
    each_mb = (many["memory_mb"] - few["memory_mb"]) / (many["models"] - few["models"])
    each_s = (many["ready_s"] - few["ready_s"]) / (many["models"] - few["models"])
    fastest = max(content["sizes"], key=lambda each: each["megabytes_per_second"])
    least, largest = content["sizes"][0], content["sizes"][-1]
    busy = ""
    if content["busy"] > IDLE:
        busy = f"""Other processes kept {content["busy"]:.0%} of the cores busy just before it began, so throughput is
        lower and tails are longer than they are on a machine of its own."""
    paragraphs = [
        f"""{when(content["machine"])} Single images of MNIST, the fast transport, the load on the same cores;
        {content["seconds"]:g} s a point, once. {busy}""",
        "![load, workers, models, sizes](results/growth.svg)",
        f"""**Load.** An open loop: requests leave at planned random moments, whether or not earlier ones were answered,
        and latency counts from the planned moment. In a closed loop, one worker answers {capacity:,.0f} requests/s. At
        {below["share"]:.0%} of that, p99 is {below["p99_ms"]:,.1f} ms (p50 {below["p50_ms"]:,.2f}). Offered
        {beyond["share"]:.0%}, it answers {beyond["per_second"]:,.0f} a second in time, {beyond["refused"]:.1%} of all
        were refused, and p99 is {beyond["p99_ms"]:,.0f} ms: beyond capacity a line grows for as long as that lasts,
        in front of the server too, where the connections' streams are all under way.""",
        f"""**Workers.** Most answered in time: {", ".join(f"{each}: {rate:,.0f}/s" for each, rate in best.items())}.
        A worker is a process of its own with about {cost["all_s"] / cost["python_s"]:.1f} busy threads under full
        load; more of them than {content["machine"]["cores"]} cores can feed only take turns.""",
        f"""**64 cores, simulated.** A request costs a worker {cost["python_s"] * 1e6:.0f} us of its Python threads,
        which bound it, and {cost["all_s"] * 1e6:.0f} us in all: 64 cores feed {simulated["workers"]} workers,
        {simulated["capacity"]:,.0f} requests/s, without the callers, the network, and what shared caches and memory
        take. At {evenly["share"]:.0%} of it, p99 is {evenly["p99_ms"]:.1f} ms where requests are spread evenly, and
        {pinned["p99_ms"]:,.0f} ms where 256 connections fall on workers at random: a worker that got more than its
        share is beyond its own capacity. Spread by requests, by a balancer or in the caller, it grows further.""",
        f"""**Models.** {few["models"]:.0f} to {many["models"]:.0f} copies in one server, asked in turn at
        {few["offered"]:,.0f} requests/s: p50 {few["p50_ms"]:.2f} to {many["p50_ms"]:.2f} ms, p99 {few["p99_ms"]:.1f}
        to {many["p99_ms"]:.1f}. Each takes {each_mb:.1f} MB and {each_s:.2f} s of the start. Requests of different
        models share no batch, so the more models, the more runs for the same load.""",
        f"""**Size.** From {least["megabytes"] * 1000:.1f} KB to {largest["megabytes"]:.1f} MB a request:
        {least["megabytes_per_second"]:,.0f} MB/s for the smallest, {fastest["megabytes_per_second"]:,.0f} at
        {fastest["megabytes"]:.2g} MB, {largest["megabytes_per_second"]:,.0f} for the largest (p99
        {largest["p99_ms"]:,.0f} ms). Small requests cost what a request costs, large ones what their bytes and rows do;
        one that is larger than a batch is computed in turns. The server held {least["memory_mb"]:,.0f} MB, and
        {largest["memory_mb"]:,.0f} MB in the end.""",
    ]
    wrapped = (line for each in paragraphs for line in (*wrap(" ".join(each.split()), 120), ""))
    return ["## What grows how", "", *wrapped]


def when(machine: dict[str, Any]) -> str:
    """Say when and where something was measured."""
    return f"{machine['date']}, commit {machine['commit']}, {machine['cores']} cores ({machine['processor']})."


def say(axis: Axes, title: str, across: str, up: str, *, logarithmic: str = "", legend: bool = True) -> None:
    """Title and label a plot."""
    axis.set_title(title, fontsize=10)
    axis.set_xlabel(across, fontsize=9)
    axis.set_ylabel(up, fontsize=9)
    axis.tick_params(labelsize=8)
    if logarithmic:
        axis.set_yscale("log")
    else:
        axis.set_ylim(bottom=0)
    if logarithmic == "both":
        axis.set_xscale("log")
    if legend:
        axis.legend(fontsize=8, frameon=False)


# --- private ------------------------------------------------------------------------------------------


def _columns(points: Points, across: str, up: str) -> tuple[list[float], list[float]]:
    return [each[across] for each in points], [each[up] for each in points]


def _line(axis: Axes, points: Points, across: str, up: str, name: str, colour: str) -> None:  # noqa: PLR0917
    axis.plot(*_columns(points, across, up), marker="o", markersize=3, color=colour, label=name)
