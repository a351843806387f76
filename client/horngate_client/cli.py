"""The command ``horngate-client``."""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from horngate_client import arrays, chart, images, load, tensors
from horngate_client.channels import Endpoint, TlsConfig
from horngate_client.errors import (
    CallError,
    ConfigurationError,
    ConversionError,
    HorngateError,
    InvalidRequest,
    MissingExtra,
)
from horngate_client.explanation import LARGE_GAP, Explanation
from horngate_client.prediction import Prediction
from horngate_client.settings import Several, apply_environment, duration, positive
from horngate_client.signature import ModelVersion
from horngate_client.sync import Client
from horngate_protos import __version__

DONE, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130

_EXAMPLES = """\
examples:
  horngate-client predict seven.png
  horngate-client predict --invert --resize photo-on-paper.jpg
  horngate-client predict --json test-images.npy > answers.json
  horngate-client explain seven.png --target 1 --output heat.png
  horngate-client --model sentiment infer reviews.npz
  horngate-client --server a:8001 --server b:8001 status
  horngate-client load --concurrency 64 --duration 30s
  HORNGATE_TOKEN=secret horngate-client --tls --server models.example.com:443 status

exit codes: 0 done, 1 failed, 2 wrong usage or input, 130 interrupted
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = build_parser()
    try:
        apply_environment(parser)
        args = parser.parse_args(argv)
    except SystemExit as exc:  # argparse exits: 0 after --help, 2 on wrong usage
        return int(exc.code or 0)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except (ConversionError, ConfigurationError, MissingExtra, InvalidRequest) as exc:
        return _complain(exc, WRONG_USE)
    except HorngateError as exc:
        return _complain(exc, FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever read us has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return code


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; its options still lack what the environment says."""
    parser = argparse.ArgumentParser(
        prog="horngate-client",
        description="Ask a model server that speaks the Open Inference Protocol over gRPC.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"horngate-client {__version__}")
    add = parser.add_argument
    add("--server", action=Several, metavar="HOST:PORT",
        help="the server's gRPC address; several: again, or with commas (default localhost:8001)")  # fmt: skip
    add("--model", default="mnist", metavar="NAME", help="the model (default mnist)")
    add("--model-version", default="", metavar="N", help="a version to insist on (default: the server's choice)")
    add("--timeout", type=duration, default=10.0, metavar="TIME",
        help="for a whole call, retries included (default 10s)")  # fmt: skip
    add("--tls", action="store_true", help="speak TLS")
    add("--tls-ca", metavar="FILE", help="trust these authorities (PEM); implies --tls")
    add("--tls-cert", metavar="FILE", help="our certificate (PEM), where the server wants one; implies --tls")
    add("--tls-key", metavar="FILE", help="the key of that certificate (PEM)")
    add("--tls-server-name", metavar="NAME", help="the name in the server's certificate, if not the address")
    add("--token", help="a bearer token; better in the variable, where no process list shows it")
    add("--allow-plaintext-token", action="store_true", help="send the token without TLS all the same")
    add("--bulk", action="store_true", help="stand back behind interactive callers of a Horngate server")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_predict(commands)
    _add_explain(commands)
    infer = _command(
        commands,
        "infer",
        "run any model: arrays in, arrays out",
        "examples:\n  horngate-client --model sentiment infer reviews.npz\n"
        "  horngate-client --model sentiment infer --json - < reviews.npz\n\n"
        "The file is what numpy.savez(FILE, INPUT=array, ...) writes; strings are arrays of the type U or S.\n"
        'Strings come back as text, or as {"b64": ...} where they are no UTF-8.',
    )
    infer.add_argument("file", nargs="?", default=arrays.STDIN, metavar="FILE.npz",
        help="an array for each input, by its name; - is standard input, and the default")  # fmt: skip
    infer.add_argument("--json", action="store_true", help="print JSON")
    infer.set_defaults(run=_infer)
    status = _command(commands, "status", "show the server and the model: ready or not, versions, signature")
    status.add_argument("--json", action="store_true", help="print JSON")
    status.set_defaults(run=_status)
    models = _command(commands, "models", "show every version that the server knows, with its state")
    models.add_argument("--json", action="store_true", help="print JSON")
    models.set_defaults(run=_models)
    promote = _command(
        commands,
        "promote",
        "give a version a label: stable answers those who name no version",
        "examples:\n  horngate-client promote 5\n  horngate-client --model mnist promote 6 --label canary\n\n"
        "The server runs with --admin. It loads the version first, where that is needed; one that does not prove\n"
        "itself gets no label. Each server is told.",
    )
    promote.add_argument("number", metavar="VERSION", help="its number")
    promote.add_argument("--label", default="stable", metavar="NAME", help="(default stable)")
    promote.set_defaults(run=_promote)
    _add_load(commands)
    return parser


# --- private: the options --------------------------------------------------------------------------------


def _command(commands: Any, name: str, summary: str, examples: str = "") -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def _add_predict(commands: Any) -> None:
    predict = _command(
        commands,
        "predict",
        "classify pictures (PNG, JPEG) or arrays (.npy)",
        "examples:\n  horngate-client predict seven.png four.jpg\n  horngate-client predict --json images.npy\n\n"
        "MNIST digits are light on dark, 28x28: --invert swaps dark ink on light paper, --resize scales.",
    )
    add = predict.add_argument
    add("files", nargs="+", metavar="FILE", help="a picture of one image, or an .npy of one or many")
    add("--resize", action="store_true", help="scale pictures to the model's size")
    add("--invert", action="store_true", help="swap black and white")
    add("--show", action="store_true", help="draw each image as the model sees it")
    add("--json", action="store_true", help="print JSON")
    predict.set_defaults(run=_predict)


def _add_explain(commands: Any) -> None:
    explain = _command(
        commands,
        "explain",
        "show which parts of pictures speak for a class, and which against it",
        "examples:\n  horngate-client explain seven.png\n"
        "  horngate-client explain seven.png --target 1 --output heat.png\n\n"
        "Red, or # and +, speaks for the class; blue, or = and -, against it. The model needs the signature explain,\n"
        "which horngate-trainer writes, and horngate_trainer.export(..., explain=True).",
    )
    add = explain.add_argument
    add("files", nargs="+", metavar="FILE", help="a picture of one image, or an .npy of one or many")
    add("--target", type=int, metavar="CLASS", help="the class to explain (default: the one that is predicted)")
    add("--output", metavar="FILE.png", help="draw it into this file, rather than here")
    add("--resize", action="store_true", help="scale pictures to the model's size")
    add("--invert", action="store_true", help="swap black and white")
    add("--json", action="store_true", help="print JSON")
    explain.set_defaults(run=_explain)


def _add_load(commands: Any) -> None:
    parser = _command(
        commands,
        "load",
        "put load on the server, and measure it",
        "examples:\n  horngate-client load --concurrency 256 --rows 1 --duration 30s\n"
        "  horngate-client load --data images.npy --rows 64 --json\n\n"
        "Each caller sends its next request when its last is answered. Nothing is retried; any error makes the\n"
        "exit code 1.",
    )
    add = parser.add_argument
    add("--concurrency", type=positive, default=128, metavar="N", help="callers at a time (default 128)")
    add("--connections", type=positive, default=4, metavar="N", help="connections they share (default 4)")
    add("--rows", type=positive, default=1, metavar="N", help="rows in a request (default 1)")
    add("--duration", type=duration, default=10.0, metavar="TIME", help="how long to measure (default 10s)")
    add("--warmup", type=duration, default=1.0, metavar="TIME", help="before that, not counted (default 1s)")
    add("--data", metavar="FILE.npy", help="rows to send (default: random ones by the model's signature)")
    add("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_load)


# --- private: the commands -------------------------------------------------------------------------------


def _predict(args: argparse.Namespace) -> int:
    with _client(args) as client:
        batch, origins = _read_images(args, client)
        prediction = client.predict(batch)
    if args.json:
        print(json.dumps(_prediction_json(args.model, origins, prediction), indent=2))
        return DONE
    unicode = _speaks_unicode()
    detailed = args.show or len(batch) <= 10
    for index, (name, row, rows) in enumerate(origins):
        shares = prediction.probabilities[index]
        label = int(prediction.classes[index])
        certainty = f"{float(shares[label]):.1%}" if 0 <= label < len(shares) else ""
        print(f"{name}{f'[{row}]' if rows > 1 else ''}: {label}  {certainty}".rstrip())
        if args.show and batch.dtype == np.uint8:
            print("\n".join(chart.picture(np.squeeze(batch[index]), unicode=unicode)))
        if detailed:
            print("\n".join(f"  {line}".rstrip() for line in chart.bars(shares.tolist(), unicode=unicode)))
    return DONE


def _read_images(args: argparse.Namespace, client: Client) -> tuple[images.Array, list[tuple[str, int, int]]]:
    """Return what the files hold, and for each image its file, its row there, and how many there are."""
    wanted = images.ImageInput.of(client.model())
    batches = [images.convert(name, wanted, resize=args.resize, invert=args.invert) for name in args.files]
    sizes = {batch.shape[1:] for batch in batches}
    if len(sizes) > 1:
        raise ConversionError(f"the files differ in size, and one batch has one: {sorted(sizes)}")
    origins = [
        (name, row, len(rows)) for name, rows in zip(args.files, batches, strict=True) for row in range(len(rows))
    ]
    return np.concatenate(batches), origins


def _explain(args: argparse.Namespace) -> int:
    with _client(args) as client:
        batch, origins = _read_images(args, client)
        found = client.explain(batch, args.target)
    if args.output is not None:
        try:
            found.to_image().save(args.output)
        except (OSError, ValueError) as exc:
            raise ConfigurationError(f"--output {args.output} cannot be written: {exc}") from exc
    if args.json:
        print(json.dumps(_explanation_json(args.model, origins, found), indent=2))
        return DONE
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for index, (name, row, rows) in enumerate(origins):
        score, before, gap = (float(each[index]) for each in (found.scores, found.baseline_scores, found.gaps))
        print(
            f"{name}{f'[{row}]' if rows > 1 else ''}: {found.target[index]}  {score:.1%}, "
            f"{before:.1%} where there is nothing"
        )
        if args.output is None:
            print("\n".join(chart.heat(found.strengths[index], colour=colour)))
        if not gap <= LARGE_GAP:
            print(f"  not to be trusted: it misses {gap:.2f} of the difference")
    return DONE


def _explanation_json(model: str, origins: list[tuple[str, int, int]], found: Explanation) -> dict[str, Any]:
    numbers = zip(
        found.target.tolist(), found.scores.tolist(), found.baseline_scores.tolist(), found.gaps.tolist(), strict=True
    )
    return {
        "model": model,
        "version": found.version,
        "explanations": [
            {
                "file": name, "row": row, "target": target, "score": score, "baseline_score": before, "gap": gap,
                "attributions": attributions.tolist(),
            }
            for (name, row, _), (target, score, before, gap), attributions in zip(
                origins, numbers, found.attributions, strict=True
            )
        ],
    }  # fmt: skip


def _prediction_json(model: str, origins: list[tuple[str, int, int]], prediction: Prediction) -> dict[str, Any]:
    timing = prediction.timing
    rows = zip(origins, prediction.classes.tolist(), prediction.probabilities.tolist(), strict=True)
    return {
        "model": model,
        "version": prediction.version,
        "timing": {"total_s": timing.total, "queue_s": timing.queue, "compute_s": timing.compute},
        "predictions": [
            {"file": name, "row": row, "class": label, "probabilities": shares}
            for (name, row, _), label, shares in rows
        ],
    }


def _infer(args: argparse.Namespace) -> int:
    inputs = arrays.read(args.file)
    with _client(args) as client:
        outputs = client.infer(inputs)
    if args.json:
        found = {name: arrays.as_json(array) for name, array in outputs.items()}
        print(json.dumps({"model": args.model, "outputs": found}, indent=2))
    else:
        print("\n".join(arrays.lines(outputs)))
    return DONE


def _status(args: argparse.Namespace) -> int:
    reports = [_status_of(args, address) for address in _endpoint(args).addresses]
    if args.json:
        print(json.dumps(reports, indent=2))
    else:
        print("\n".join(line for report in reports for line in _status_lines(report)))
    return DONE if all(report["model_ready"] for report in reports) else FAILED


def _status_of(args: argparse.Namespace, address: str) -> dict[str, Any]:
    report: dict[str, Any] = {"address": address, "live": False, "ready": False, "model": args.model}
    report["model_ready"] = False
    with _client(args, address) as client:
        try:
            server = client.server()
            report |= {"live": True, "ready": server.ready, "server": f"{server.name} {server.version}".strip()}
            model = client.model()
            report |= {
                "versions": list(model.versions),
                "platform": model.platform,
                "inputs": [str(spec) for spec in model.inputs],
                "outputs": [str(spec) for spec in model.outputs],
            }
            report["model_ready"] = client.ready()
        except CallError as exc:
            report["error"] = str(exc)
    return report


def _status_lines(report: dict[str, Any]) -> Iterator[str]:
    yield f"{report['address']}  {report.get('server', 'no answer')}"
    if report["live"]:
        yield f"  server    {'ready' if report['ready'] else 'not ready'}"
        yield f"  model     {report['model']}, {'ready' if report['model_ready'] else 'not ready'}"
    if "versions" in report:
        yield f"  versions  {', '.join(report['versions']) or '-'}  ({report['platform']})"
        for name in ("inputs", "outputs"):
            for number, spec in enumerate(report[name]):
                yield f"  {name if number == 0 else '':<8}  {spec}"
    if "error" in report:
        yield f"  error     {report['error']}"


def _models(args: argparse.Namespace) -> int:
    found = []
    for address in _endpoint(args).addresses:
        with _client(args, address) as client:
            found += [(address, each) for each in client.models()]
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
    for address in _endpoint(args).addresses:
        with _client(args, address) as client:
            client.promote(args.number, label=args.label)
        print(f"{address}: {args.model} version {args.number} is {args.label}")
    return DONE


def _load(args: argparse.Namespace) -> int:
    endpoint = _endpoint(args)
    with _client(args) as client:
        model = client.model()
    plan = load.LoadPlan(args.concurrency, args.connections, args.rows, args.duration, args.warmup, args.timeout)
    data = None if args.data is None else _load_data(args.data, model.inputs[0] if len(model.inputs) == 1 else None)
    payloads = load.requests(model, args.model_version, args.rows, data)
    live = sys.stderr.isatty()
    report = asyncio.run(load.run(endpoint, model, payloads, plan, _progress if live else lambda _: None))
    if live:
        _progress("")
    if args.json:
        print(json.dumps({"server": list(endpoint.addresses), "model": args.model, **_plan(plan), **report.json()}))
    else:
        print("\n".join(_load_lines(plan, report)))
    return FAILED if report.errors or not report.requests else DONE


def _load_data(name: str, spec: Any) -> Any:
    if spec is None:
        raise ConversionError("--data is for a model with one input")
    try:
        array = np.load(name, allow_pickle=False)
    except (OSError, ValueError, EOFError) as exc:
        raise ConversionError(f"{name} cannot be read as .npy: {exc}") from exc
    return tensors.convert(array, spec)


def _plan(plan: load.LoadPlan) -> dict[str, Any]:
    return {"concurrency": plan.concurrency, "connections": plan.connections, "rows_per_request": plan.rows}


def _load_lines(plan: load.LoadPlan, report: load.LoadReport) -> Iterator[str]:
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


# --- private: what the commands share --------------------------------------------------------------------


def _tls(args: argparse.Namespace) -> bool | TlsConfig:
    if args.tls_ca or args.tls_cert or args.tls_key or args.tls_server_name:
        return TlsConfig(args.tls_ca, args.tls_cert, args.tls_key, args.tls_server_name)
    return bool(args.tls)


def _endpoint(args: argparse.Namespace) -> Endpoint:
    return Endpoint.of(
        args.server or "localhost:8001",
        tls=_tls(args),
        token=args.token,
        allow_plaintext_token=args.allow_plaintext_token,
        bulk=args.bulk,
    )


def _client(args: argparse.Namespace, server: str | None = None) -> Client:
    return Client(
        server or args.server or "localhost:8001",
        model=args.model,
        version=args.model_version,
        timeout=args.timeout,
        tls=_tls(args),
        token=args.token,
        allow_plaintext_token=args.allow_plaintext_token,
        bulk=args.bulk,
    )


def _progress(line: str) -> None:
    print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)


def _speaks_unicode() -> bool:
    return "utf" in (sys.stdout.encoding or "").lower()


def _complain(exc: Exception, code: int) -> int:
    print(f"horngate-client: {exc}", file=sys.stderr)
    return code
