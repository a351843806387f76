"""What the benchmarks share: whole processes timed in turn, medians and ratios, the machine they ran on."""

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Figures:
    """One figure of several contestants, over all rounds.

    Attributes:
        name: what was measured, with its unit.
        values: per contestant, one value a round.
        unit: printed behind the values.
    """

    name: str
    values: dict[str, list[float]]
    unit: str = "s"

    def median(self, contestant: str) -> float:
        """Return the middle of a contestant's values."""
        return statistics.median(self.values[contestant])

    def ratio(self, one: str, other: str) -> float:
        """Return the median of the rounds' own ratios: a drifting machine cancels out."""
        return statistics.median(a / b for a, b in zip(self.values[one], self.values[other], strict=True))


def options(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with what every benchmark takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-save", action="store_false", dest="save", help="print alone: leave results/ as it is")
    return parser


def rounds(count: int, contestants: dict[str, Callable[[], dict[str, float]]]) -> dict[str, dict[str, list[float]]]:
    """Run contestants in turn, A B A B, and collect {figure: {contestant: values}}."""
    collected: dict[str, dict[str, list[float]]] = {}
    for number in range(count):
        for name, run in contestants.items():
            figures = run()
            shown = ", ".join(f"{figure} {value:.4g}" for figure, value in figures.items())
            print(f"round {number + 1}/{count}  {name:24} {shown}", flush=True)
            for figure, value in figures.items():
                collected.setdefault(figure, {}).setdefault(name, []).append(value)
    return collected


def busy(seconds: float = 1.0) -> float:
    """Return the share of the machine's processors that is in use, watched for so long."""
    before = _ticks()
    time.sleep(seconds)
    idle, every = (after - at for after, at in zip(_ticks(), before, strict=True))
    return 1 - idle / every


def free_port() -> int:
    """Return a port of this machine that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def timed(command: Sequence[object], **options: Any) -> tuple[float, str]:
    """Run a command; return its wall-clock seconds and its stdout; where it fails, end with what it says."""
    began = time.perf_counter()
    done = subprocess.run([str(word) for word in command], check=False, capture_output=True, text=True, **options)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stderr[-3000:]}")
    return time.perf_counter() - began, done.stdout


def table(figures: Sequence[Figures]) -> str:
    """Return the figures as Markdown: median and spread."""
    lines = ["| figure | contestant | median | min to max |", "| --- | --- | --- | --- |"]
    for each in figures:
        for contestant, values in each.values.items():
            spread = f"{min(values):.4g} to {max(values):.4g}"
            lines.append(f"| {each.name} | {contestant} | {each.median(contestant):.4g} {each.unit} | {spread} |")
    return "\n".join(lines)


def save(name: str, content: dict[str, Any]) -> Path:
    """Write a benchmark's results with the machine, the versions, the commit and the date."""
    RESULTS.mkdir(exist_ok=True)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    machine = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        **{package: version(package) for package in ("tensorflow-cpu", "keras", "grpcio", "numpy")},
        "commit": commit.stdout.strip(),
        "date": datetime.now(UTC).date().isoformat(),
    }
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine, **content}, indent=2) + "\n")
    return path


# --- private ------------------------------------------------------------------------------------------


def _ticks() -> tuple[int, int]:
    """Return the processors' ticks so far: those in which they waited, and all."""
    with Path("/proc/stat").open() as stat:
        ticks = [int(each) for each in stat.readline().split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
