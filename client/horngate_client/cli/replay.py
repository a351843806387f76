"""``replay``: yesterday's requests against today's server, and what it answers beside what was answered then."""

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator
from math import inf, isfinite
from typing import Any

from horngate_client import records, replay
from horngate_client.cli import DONE, FAILED
from horngate_client.cli.connection import endpoint
from horngate_client.cli.load import show_progress
from horngate_client.cli.parser import command
from horngate_client.comparison import TOLERANCE
from horngate_client.settings import positive

MAX = "max"


def add(commands: Any) -> None:
    """Tell the parser of it."""
    parser = command(
        commands,
        "replay",
        "send recorded requests again, and compare the answers",
        "examples:\n"
        "  horngate-client replay recorded/mnist/1 --model-version 2 --speed 24\n"
        "  horngate-client --server canary:8001 replay recorded/ --speed max --json\n"
        "  horngate-client replay models/mnist/3/assets.extra/tf_serving_warmup_requests\n\n"
        "A server records with --record DIR. Requests go to the model that they were recorded of, or to --model; the\n"
        "server chooses the version, or --model-version does. They are sent when they came, however long the answers\n"
        "take, or --speed times as fast; without recorded times, or with --speed max, --concurrency at a time.\n\n"
        "Whole numbers and text must be the same; of fractions, |answer - recorded| may be up to\n"
        "TOLERANCE * (1 + |recorded|). Nothing is retried. Any difference and any error makes the exit code 1.\n"
        "What is sent counts for the server like any other request: in its metrics, its watch for drift, its records.",
    )
    options = parser.add_argument
    options("file", nargs="+", metavar="FILE", help=f"recorded requests; of a folder, every *{records.SUFFIX} below it")
    options("--speed", type=_speed, default=1.0, metavar="N", help="times as fast as they came, or max (default 1)")
    options("--tolerance", type=_tolerance, default=TOLERANCE, metavar="X", help=f"of fractions (default {TOLERANCE})")
    options("--concurrency", type=positive, default=64, metavar="N", help="at a time, without a schedule (default 64)")
    options("--connections", type=positive, default=4, metavar="N", help="connections they share (default 4)")
    options("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_replay)


# --- private ---------------------------------------------------------------------------------------------


def _replay(args: argparse.Namespace) -> int:
    plan = replay.ReplayPlan(
        args.speed, args.model or "", args.model_version, args.tolerance, args.concurrency, args.connections,
        args.timeout,
    )  # fmt: skip
    requests = records.read(records.files(args.file), lambda text: print(f"horngate-client: {text}", file=sys.stderr))
    live = sys.stderr.isatty()
    report = asyncio.run(replay.run(endpoint(args), requests, plan, show_progress if live else lambda _: None))
    if live:
        show_progress("")
    if args.json:
        print(json.dumps(_plain({"server": list(endpoint(args).addresses), "speed": plan.speed, **report.json()})))
    else:
        print("\n".join(_lines(plan, report)))
    return DONE if report.same else FAILED


def _lines(plan: replay.ReplayPlan, report: replay.ReplayReport) -> Iterator[str]:
    speed = "as fast as they went" if plan.speed == inf else f"speed {plan.speed:g}"
    yield f"sent        {report.requests:>10,} requests in {report.seconds:.1f} s, {speed}"
    for name, count in report.recorded_by.items():
        yield f"recorded    {count:>10,} of {name}" + (
            f", in {report.recorded_seconds:.1f} s" * bool(report.recorded_seconds)
        )
    for name, count in report.answered_by.items():
        yield f"answered    {count:>10,} by version {name or '?'}"
    yield from _latencies(report)
    if report.behind_ms.get("p99", 0.0) >= 1:
        yield f"behind      {report.behind_ms['p99']:>10.2f} ms  p99: this client sent later than it should"
    comparison = report.comparison
    yield f"different   {comparison.different:>10,} of {comparison.compared:,} answers (tolerance {plan.tolerance:g})"
    if comparison.outputs:
        width = max(len("output"), *map(len, comparison.outputs))
        yield f"{'output'.ljust(width)}  {'rows':>10}  {'different':>10}  {'class changed':>13}  largest difference"
        for name, each in comparison.outputs.items():
            classes = "" if each.classes_changed is None else f"{each.classes_changed:,}"
            largest = "" if each.largest is None else f"{each.largest:.3g}"
            yield f"{name.ljust(width)}  {each.rows:>10,}  {each.different:>10,}  {classes:>13}  {largest:>18}".rstrip()
        yield from (f"such as     {each.example}" for each in comparison.outputs.values() if each.example)
    yield f"errors      {sum(report.errors.values()):>10,}"
    for code, count in report.errors.items():
        yield f"  {code}: {count}, such as: {report.error_messages[code]}"


def _latencies(report: replay.ReplayReport) -> Iterator[str]:
    then, now = report.recorded_latency_ms, report.latency_ms
    if now:
        yield f"latency     {'now':>10}     {'recorded, in the server' if then else ''}".rstrip()
    for name in ("p50", "p99"):
        if name in now:
            yield f"{name:<10}  {now[name]:>10.2f} ms" + (f"  {then[name]:>10.2f} ms" if then else "")


def _speed(text: str) -> float:
    """Read how many times as fast; infinite for `MAX`."""
    if text == MAX:
        return inf
    return _positive(text, f"2, 0.5 or {MAX}")


def _tolerance(text: str) -> float:
    """Read a tolerance; 0 for none."""
    return 0.0 if text == "0" else _positive(text, "1e-3, or 0")


def _positive(text: str, such_as: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not (number > 0 and isfinite(number)):
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number: write {such_as}")
    return number


def _plain(value: Any) -> Any:
    """Return what JSON has: an infinite number is no number of it."""
    match value:
        case dict():
            return {name: _plain(each) for name, each in value.items()}
        case float() if not isfinite(value):
            return str(value)
        case _:
            return value
