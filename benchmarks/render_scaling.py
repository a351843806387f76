"""The plots and the section of RESULTS.md on replicas behind balancers, from results/scaling.json."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from render_growth import COLOURS, GREY, IDLE, say, when

Figures = dict[str, Any]


def draw(content: Figures, path: Path) -> None:
    """Draw the plots."""
    figure, axes = plt.subplots(2, 2, figsize=(13, 9.4), layout="constrained")
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    points, faults, fleets, limits = axes.flat
    _points(points, content)
    _faults(faults, content["faults"])
    for colour, name in zip(COLOURS, content["fleets"][0]["latencies"], strict=False):
        across = [each["replicas"] for each in content["fleets"]]
        p99 = [each["latencies"][name]["p99_ms"] for each in content["fleets"]]
        fleets.plot(across, p99, marker="o", markersize=3, color=colour, label=name)
    fleets.set_xscale("log")
    load = content["fleets"][0]["load"]
    say(fleets, f"Simulated: p99 at {load:.0%} of each replica's capacity", "replicas", "p99, ms")
    _limits(limits, content["limits"])
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def section(content: Figures) -> list[str]:
    """Return what was measured and simulated, in words and tables."""
    costs, plan, last = content["costs"], content["plan"], content["fleets"][-1]
    busy = ""
    if content["busy"] > IDLE:
        busy = f"Other processes kept {content['busy']:.0%} of the cores busy just before it began."
    medians, largest = zip(*(_median_and_largest(content, name) for name in ("p50_ms", "p99_ms")), strict=True)
    paragraphs = [
        f"""{when(content["machine"])} The real server on grpcio before a model that sleeps {content["batch_ms"]:g} ms a
        batch of at most {content["rows"]} rows, so that a replica answers
        {content["rows"] / content["batch_ms"] * 1000:,.0f} requests/s however busy the cores are; an open loop of
        {content["callers"]} callers; of {content["rounds"]} rounds of {content["seconds"]:g} s the one that was
        disturbed least. {busy}""",
        "![replicas, faults, a thousand replicas, limits](results/scaling.svg)",
        f"""**Simulated beside measured.** A batch took a replica {content["batch_s"] * 1e3:.1f} ms by its own count,
        and a request alone {content["beside_s"] * 1e3:.1f} ms more; with these two numbers and the same moments of
        arrival the simulation is off by {medians[0]:.0%} for p50 (median of all points below capacity; at most
        {largest[0]:.0%}) and by {medians[1]:.0%} for p99 (at most {largest[1]:.0%}). Beyond capacity, answers a second
        are off by at most {max(_errors(content, "per_second")):.0%}.""",
    ]
    lines = [
        "## Replicas behind balancers",
        "",
        *_wrapped(paragraphs),
        *_points_table(content),
        *_faults_table(content),
    ]
    paragraphs = [
        f"""**A thousand replicas, simulated and calculated.** Each gets {plan["per_replica"]:,.0f} requests/s,
        {last["load"]:.0%} of what its Python threads can take ({costs["request_s"] * 1e6:.0f} us a request, as measured
        by `make growth`). Measured beside: a request costs Envoy {costs["envoy_s"] * 1e6:.0f} us, a
        connection a replica {costs["connection_bytes"] / 1000:.0f} KB, a health check {costs["check_s"] * 1e6:.0f} us,
        a scrape {costs["scrape_s"] * 1e3:.1f} ms and {costs["scrape_bytes"] / 1000:.0f} KB
        ({costs["series"]:.0f} series, {costs["model_series"]:.0f} for each further model).""",
    ]
    return [*lines, *_wrapped(paragraphs), *_fleets_table(content), *_limits_table(content), *_queues_table(content)]


# --- private ------------------------------------------------------------------------------------------


def _errors(content: Figures, name: str) -> Sequence[float]:
    """Return how far the simulation is off, for a figure: latencies below capacity, answers a second beyond it."""
    return [
        abs(each["simulated"][name] / each["measured"][name] - 1)
        for each in content["points"]
        if (each["load"] > 1) == (name == "per_second")
    ]


def _median_and_largest(content: Figures, name: str) -> tuple[float, float]:
    errors = _errors(content, name)
    return float(np.median(errors)), max(errors)


def _points(axis: Axes, content: Figures) -> None:
    below = [each for each in content["points"] if each["load"] < 1]
    ways = list(dict.fromkeys(each["way"] for each in below))
    names = [f"{each['replicas']} at {each['load']:.0%}" for each in below if each["way"] == ways[0]]
    for number, (colour, way) in enumerate(zip(COLOURS, ways, strict=False)):
        mine = [each for each in below if each["way"] == way]
        places = np.arange(len(mine)) + (number - 1) * 0.25
        axis.bar(places, [each["measured"]["p99_ms"] for each in mine], 0.22, color=colour, alpha=0.35)
        axis.bar(places, [each["measured"]["p50_ms"] for each in mine], 0.22, color=colour, label=way)
        for name, label in (("p50_ms", "simulated" if number == 0 else None), ("p99_ms", None)):
            axis.scatter(places, [each["simulated"][name] for each in mine], marker="_", color="black", label=label)
    axis.set_xticks(range(len(names)), names)
    say(axis, "p50 (dark) and p99 (light), and what was simulated", "replicas, load", "ms")


def _faults(axis: Axes, faults: Sequence[Figures]) -> None:
    ways = list(dict.fromkeys(each["way"] for each in faults))
    for number, (colour, fault) in enumerate(
        zip(COLOURS, dict.fromkeys(each["fault"] for each in faults), strict=False)
    ):
        mine = {each["way"]: each for each in faults if each["fault"] == fault}
        shares = [100 * sum(mine[way]["failed"].values()) / mine[way]["requests"] for way in ways]
        bars = axis.barh(np.arange(len(ways)) + (number - 1) * 0.25, shares, 0.22, color=colour, label=fault)
        axis.bar_label(bars, [f"{each:.2g}" for each in shares], padding=3, fontsize=7)
    axis.set_yticks(range(len(ways)), ways, fontsize=8)
    axis.invert_yaxis()
    axis.set_title("One of four replicas at fault: requests that failed", fontsize=10)
    axis.set_xlabel("% of all", fontsize=9)
    axis.legend(fontsize=8, frameon=False)


def _limits(axis: Axes, limits: Sequence[Figures]) -> None:
    bars = axis.barh([each["name"] for each in limits], [each["replicas"] for each in limits], color=COLOURS[1])
    axis.bar_label(bars, [f"{each['replicas']:,}" for each in limits], padding=3, fontsize=8)
    axis.axvline(1000, color=GREY, linestyle=":")
    axis.set_xscale("log")
    axis.margins(x=0.15)
    axis.invert_yaxis()
    axis.tick_params(labelsize=8)
    axis.set_title("Calculated: the fewest replicas that are beyond a limit", fontsize=10)
    axis.set_xlabel("replicas, each with 10,000 requests/s", fontsize=9)


def _points_table(content: Figures) -> Iterator[str]:
    yield "| replicas | by | load | answers/s | simulated | p50 ms | simulated | p99 ms | simulated | failed |"
    yield "| ---: | --- | ---: |" + " ---: |" * 7
    for each in content["points"]:
        measured, simulated = each["measured"], each["simulated"]
        latencies = (
            f"{measured[name]:,.0f} | {simulated[name]:,.0f}" if each["load"] < 1 else f"{measured[name]:,.0f} |"
            for name in ("p50_ms", "p99_ms")
        )
        yield (
            f"| {each['replicas']} | {each['way']} | {each['load']:.0%} | {measured['per_second']:,.0f} | "
            f"{simulated['per_second']:,.0f} | {' | '.join(latencies)} | {each['failed']:.1%} |"
        )
    yield ""


def _faults_table(content: Figures) -> Iterator[str]:
    yield from _wrapped([
        f"""**One of four replicas at fault**, at {content["fault_load"]:.0%} of what four can do; a third into the time
        it is killed (its port refuses), or stopped (its connections stay, nothing comes); or it is ten times as slow
        from the start. Requests have {content["deadline_s"]:g} s. Failed until: seconds from the fault to the last
        request that failed.""",
    ])  # fmt: skip
    yield "| fault | by | requests | failed | failed until | p50 ms | p99 ms | Envoy tried again | ejected |"
    yield "| --- | --- |" + " ---: |" * 7
    for each in content["faults"]:
        failed = ", ".join(f"{count} {code}" for code, count in each["failed"].items()) or "0"
        until = "" if each["last_failed_s"] is None else f"{each['last_failed_s']:.1f}"
        counted = (f"{each[name]:,}" if name in each else "" for name in ("tried_again", "ejected"))
        yield (
            f"| {each['fault']} | {each['way']} | {each['requests']:,} | {failed} | {until} | {each['p50_ms']:,.0f} | "
            f"{each['p99_ms']:,.0f} | {' | '.join(counted)} |"
        )
    yield ""


def _fleets_table(content: Figures) -> Iterator[str]:
    kinds = list(content["fleets"][0]["latencies"])
    names = [
        "replicas", "Envoys", "their busy cores", "callers", "a replica's connections: direct", "by Envoys",
        *(f"p99 ms, {kind}" for kind in kinds), "series", "update, one by one",
    ]  # fmt: skip
    yield f"| {' | '.join(names)} |"
    yield "|" + " ---: |" * len(names)
    for each in content["fleets"]:
        cells = [
            f"{each['replicas']:,}", f"{each['envoys']:,}", f"{each['envoy_cores']:,.1f}", f"{each['callers']:,}",
            f"{each['direct']:,}", f"{each['proxied']:,}",
            *(f"{each['latencies'][kind]['p99_ms']:.2f}" for kind in kinds),
            f"{each['series']:,.0f}", _duration(each["rollout_s"]),
        ]  # fmt: skip
        yield f"| {' | '.join(cells)} |"
    yield ""


def _limits_table(content: Figures) -> Iterator[str]:
    yield "| what | is beyond its limit from | limit | then |"
    yield "| --- | ---: | --- | --- |"
    for each in content["limits"]:
        yield f"| {each['name']} | {each['replicas']:,} replicas | {each['limit']} | {each['instead']} |"
    yield ""


def _queues_table(content: Figures) -> Iterator[str]:
    yield from _wrapped([
        """**A few replicas of the reference model, simulated**, from what it takes on two cores of its own (20 us a
        request, 0.04 ms for a batch of one and 1.2 for 1,024); balanced by one balancer.""",
    ])  # fmt: skip
    yield "| replicas | load of each | balancing | arrivals | p50 ms | p99 ms | p99.9 ms |"
    yield "| ---: | ---: | --- | --- | ---: | ---: | ---: |"
    for each in content["queues"]:
        arrivals = "Poisson" if each["at_once"] == 1 else f"{each['at_once']} at once"
        yield (
            f"| {each['replicas']} | {each['load']:.0%} | {each['balancing']} | {arrivals} | {each['p50_ms']:.2f} | "
            f"{each['p99_ms']:.2f} | {each['p999_ms']:.2f} |"
        )
    yield ""


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def _wrapped(paragraphs: Sequence[str]) -> Iterator[str]:
    for each in paragraphs:
        yield from wrap(" ".join(each.split()), 120)
        yield ""
