"""``status``, ``models`` and ``promote``: what servers have, and which version answers."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from horngate_client.cli import DONE, FAILED
from horngate_client.cli.connection import SeveralModels, client, connected, endpoint
from horngate_client.cli.parser import command
from horngate_client.errors import CallError
from horngate_client.retry import RetryPolicy
from horngate_client.signature import ModelVersion, ServerInfo

_BRIEFLY = RetryPolicy(attempts=3, initial_seconds=0.2, multiplier=1)
"""They tell how it is now. Not one try: of localhost's two addresses gRPC tells what either of them said."""


def add(commands: Any) -> None:
    """Tell the parser of them."""
    status = command(
        commands,
        "status",
        "show the server and the model: ready or not, versions, signature",
        "examples:\n  horngate-client status\n  horngate-client status --model wine --json\n"
        "  horngate-client --server a:8001,b:8001 status\n\n"
        "It does not wait: a server that does not answer now is told of, with the cause. The exit code is 0 where\n"
        "the model is ready on every server.",
    )
    models = command(
        commands,
        "models",
        "show every version that the server knows, with its state",
        "examples:\n  horngate-client models\n  horngate-client models --json",
    )
    for parser, run in ((status, _status), (models, _models)):
        parser.add_argument("--json", action="store_true", help="print JSON")
        parser.set_defaults(run=run)
    promote = command(
        commands,
        "promote",
        "give a version a label: stable answers those who name no version",
        "examples:\n  horngate-client promote 5\n  horngate-client promote 6 --model mnist --label canary\n\n"
        "The server runs with --admin. It loads the version first, where that is needed; one that does not prove\n"
        "itself gets no label. Each server is told.",
    )
    promote.add_argument("number", metavar="VERSION", help="its number")
    promote.add_argument("--label", default="stable", metavar="NAME", help="(default stable)")
    promote.set_defaults(run=_promote)


# --- private ---------------------------------------------------------------------------------------------


def _status(args: argparse.Namespace) -> int:
    reports = [_status_of(args, address) for address in endpoint(args).addresses]
    if args.json:
        print(json.dumps(reports, indent=2))
    else:
        print("\n".join(line for report in reports for line in _status_lines(report)))
    return DONE if all(report["model_ready"] for report in reports) else FAILED


def _status_of(args: argparse.Namespace, address: str) -> dict[str, Any]:
    report: dict[str, Any] = {"address": address, "live": False, "ready": False, "model": args.model}
    report["model_ready"] = False
    try:
        try:
            with connected(args, address, retry=_BRIEFLY) as asking:
                report["model"] = asking.model
                report |= _server(asking.client.server(timeout=asking.left()))
                model = asking.client.model(timeout=asking.left())
                report |= {
                    "versions": list(model.versions),
                    "platform": model.platform,
                    "inputs": [str(spec) for spec in model.inputs],
                    "outputs": [str(spec) for spec in model.outputs],
                }
                report["model_ready"] = asking.client.ready(timeout=asking.left())
        except SeveralModels as exc:
            with client(args, address, retry=_BRIEFLY) as asked:
                report |= _server(asked.server())
            report |= {"models": exc.names, "model_ready": report["ready"], "hint": str(exc)}
    except CallError as exc:
        report["error"] = str(exc)
    return report


def _server(server: ServerInfo) -> dict[str, Any]:
    return {"live": True, "ready": server.ready, "server": f"{server.name} {server.version}".strip()}


def _status_lines(report: dict[str, Any]) -> Iterator[str]:
    yield f"{report['address']}  {report.get('server', 'no answer')}"
    if report["live"]:
        yield f"  server    {'ready' if report['ready'] else 'not ready'}"
        if report["model"] is not None:
            yield f"  model     {report['model']}, {'ready' if report['model_ready'] else 'not ready'}"
    if "versions" in report:
        yield f"  versions  {', '.join(report['versions']) or '-'}  ({report['platform']})"
        for name in ("inputs", "outputs"):
            for number, spec in enumerate(report[name]):
                yield f"  {name if number == 0 else '':<8}  {spec}"
    for word in ("hint", "error"):
        if word in report:
            yield f"  {word:<8}  {report[word]}"


def _models(args: argparse.Namespace) -> int:
    found = []
    for address in endpoint(args).addresses:
        with client(args, address, retry=_BRIEFLY) as asking:
            found += [(address, each) for each in asking.models()]
    if args.json:
        print(json.dumps([{"server": address, **asdict(each)} for address, each in found], indent=2))
        return DONE
    several = len({address for address, _ in found}) > 1
    heads = ("model", "version", "state", "labels", "age", "rows", "engine", "device", "verification, reason")
    rows = [(f"{address} {each.name}" if several else each.name, *_version_cells(each)) for address, each in found]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in (heads, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return DONE


def _version_cells(each: ModelVersion) -> tuple[str, ...]:
    words = [each.verification, each.reason]
    if each.shadow_rows:
        words.append(f"shadow: {each.shadow_agreed / each.shadow_rows:.2%} of {each.shadow_rows} rows agree")
    labels = ", ".join(label or "default" for label in each.labels)
    return (
        each.version, each.state, labels or "-", _age(each.age_seconds), f"{each.rows:,}",
        each.engine or "-", each.device or "-",        "; ".join(filter(None, words)),
    )  # fmt: skip


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"


def _promote(args: argparse.Namespace) -> int:
    for address in endpoint(args).addresses:
        with connected(args, address) as asking:
            asking.client.promote(args.number, label=args.label, timeout=asking.left())
        print(f"{address}: {asking.model} version {args.number} is {args.label}")
    return DONE
