"""``load``: the load generator as a command."""

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from horngate_client import load
from horngate_client.cli import DONE, FAILED, inputs
from horngate_client.cli.connection import Asking, connected, endpoint
from horngate_client.cli.infer import FILES
from horngate_client.cli.parser import command
from horngate_client.codec import Array
from horngate_client.errors import ConfigurationError
from horngate_client.settings import duration, positive
from horngate_client.signature import ModelMetadata


def add(commands: Any) -> None:
    """Tell the parser of it."""
    parser = command(
        commands,
        "load",
        "put load on the server, and measure it",
        "examples:\n  horngate-client load --concurrency 256 --rows 1 --duration 30s\n"
        "  horngate-client load --model wine --input rows.npz --rows 64 --json\n"
        "  horngate-client load --model foreign --random\n\n"
        "It sends what the model was trained for: the requests that its version recorded, which a Horngate server\n"
        "hands out, round and round; or --input's rows. Random values would look like drift to whoever watches, and\n"
        "are sent only where --random asks for them.\n\n"
        f"{FILES}\n\n"
        "Each caller sends its next request when its last is answered. Nothing is retried; any error makes the\n"
        "exit code 1.",
    )
    options = parser.add_argument
    options("--concurrency", type=positive, default=128, metavar="N", help="callers at a time (default 128)")
    options("--connections", type=positive, default=4, metavar="N", help="connections they share (default 4)")
    options("--rows", type=positive, default=1, metavar="N", help="rows in a request (default 1)")
    options("--duration", type=duration, default=10.0, metavar="TIME", help="how long to measure (default 10s)")
    options("--warmup", type=duration, default=1.0, metavar="TIME", help="before that, not counted (default 1s)")
    what = parser.add_mutually_exclusive_group()
    inputs.add_option(what, "rows to send, instead of the recorded ones")
    what.add_argument("--random", action="store_true", help="send random values of the signature's types and shapes")
    options("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_load)


# --- private ---------------------------------------------------------------------------------------------


def _load(args: argparse.Namespace) -> int:
    given = inputs.read(args.input or [])
    with connected(args) as asking:
        model = asking.client.model(timeout=asking.left())
        requests = _requests(args, asking, model, given)
    payloads = load.encoded(model, args.model_version, requests)
    plan = load.LoadPlan(args.concurrency, args.connections, args.rows, args.duration, args.warmup, args.timeout)
    live = sys.stderr.isatty()
    report = asyncio.run(load.run(endpoint(args), model, payloads, plan, show_progress if live else lambda _: None))
    if live:
        show_progress("")
    if args.json:
        shown = {"server": list(endpoint(args).addresses), "model": asking.model, **_plan(plan), **report.json()}
        print(json.dumps(shown))
    else:
        print("\n".join(_lines(plan, report)))
    return FAILED if report.errors or not report.requests else DONE


def _requests(
    args: argparse.Namespace, asking: Asking, model: ModelMetadata, given: Sequence[inputs.Given]
) -> Sequence[dict[str, Array]]:
    if args.random:
        return load.random_requests(model, args.rows)
    if given:
        return load.cut(model, [inputs.bind(given, model)], args.rows)
    recorded = asking.client.recorded(timeout=asking.left())
    if not recorded:
        raise ConfigurationError(
            f"the server has no recorded requests of {asking.model}: give rows with --input, "
            "or ask for random ones with --random"
        )
    return load.cut(model, recorded, args.rows)


def _plan(plan: load.LoadPlan) -> dict[str, Any]:
    return {"concurrency": plan.concurrency, "connections": plan.connections, "rows_per_request": plan.rows}


def _lines(plan: load.LoadPlan, report: load.LoadReport) -> Iterator[str]:
    yield (
        f"{plan.concurrency} callers on {plan.connections} connections, {plan.rows} rows a request, "
        f"{report.seconds:.1f} s"
    )
    yield f"throughput  {report.requests_per_second:>10,.0f} requests/s  {report.rows_per_second:>12,.0f} rows/s"
    for name, value in report.latency_ms.items():
        yield f"{name:<10}  {value:>10.2f} ms"
    yield f"errors      {sum(report.errors.values()):>10}"
    for code, count in report.errors.items():
        yield f"  {code}: {count}, such as: {report.error_messages[code]}"


def show_progress(line: str) -> None:
    """Show a line in place of the last one."""
    print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
