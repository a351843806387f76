"""The command ``horngate-server``."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from horngate_server.core.errors import HorngateError, SettingsError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0 done, 1 failed, 2 wrong usage."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    _import_nothing_from_here()
    if arguments[:1] == ["health"]:
        return exit_code(lambda: _health(arguments[1:]))
    if arguments[:1] == ["inspect"]:
        return exit_code(lambda: _inspect(arguments[1:]))
    if arguments[:1] == ["token"]:
        return exit_code(lambda: _token(arguments[1:]))
    return exit_code(lambda: _serve(arguments))


def exit_code(run: Callable[[], int]) -> int:
    """Run it; say what went wrong in one line."""
    try:
        return run()
    except ModuleNotFoundError as error:
        if (error.name or "horngate_").startswith("horngate_"):
            raise
        print(
            f"horngate-server: {error.name} is not installed, which the server needs: pip install 'horngate[server]', "
            "or 'horngate[lite]' without TensorFlow",
            file=sys.stderr,
        )
        return 1
    except SettingsError as error:
        print(f"horngate-server: {error}", file=sys.stderr)
        return 2
    except HorngateError as error:
        print(f"horngate-server: {error}", file=sys.stderr)
        return 1


def _import_nothing_from_here() -> None:
    """Take the working folder from where modules are looked for: whoever can write there could run code here.

    ``python -m`` puts it there, and so does an empty entry of PYTHONPATH. Where we come from ourselves stays.
    """
    ours = str(Path(__file__).parents[1])
    try:
        here = {"", str(Path.cwd())} - {ours}
    except FileNotFoundError:  # it was deleted, and nobody can write there
        return
    sys.path[:] = [path for path in sys.path if path not in here]


def _serve(arguments: Sequence[str]) -> int:
    from horngate_server.core import settings  # noqa: PLC0415 - --help and wrong flags answer at once
    from horngate_server.process import launch  # noqa: PLC0415 - --help and wrong flags answer at once
    from horngate_server.telemetry import log_format  # noqa: PLC0415 - --help and wrong flags answer at once

    chosen = settings.read(arguments)
    try:
        return launch.serve(chosen)
    finally:
        log_format.leave()


def _health(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="horngate-server health",
        description="Ask a running server whether it serves: exit 0 if so, 1 if not.",
    )
    parser.add_argument(
        "--server", metavar="HOST:PORT",
        help="its gRPC port (default: the one of the HORNGATE_ variables; where these ask for TLS, /readyz is asked)",
    )  # fmt: skip
    parser.add_argument("--model", default="", metavar="NAME", help="one model instead of the whole server")
    parser.add_argument("--timeout", default=3.0, type=float, metavar="SECONDS")
    asked = parser.parse_args(arguments)
    from horngate_server.core import settings  # noqa: PLC0415 - see above
    from horngate_server.process import health_probe  # noqa: PLC0415 - see above

    if asked.server is not None:
        reason = health_probe.ask(asked.server, asked.model, asked.timeout)
    else:
        ours = settings.read([])
        if ours.tls is not None and not asked.model:
            reason = health_probe.ask_ready(f"http://{ours.local_host}:{ours.http_port}/readyz", asked.timeout)
        else:
            reason = health_probe.ask(f"{ours.local_host}:{ours.grpc_port}", asked.model, asked.timeout)
    print("NOT_SERVING" if reason else "SERVING")
    if reason:
        print(f"horngate-server health: {reason}", file=sys.stderr)
    return 1 if reason else 0


def _token(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="horngate-server token",
        description=(
            "Make a token for a client, print it, and add its SHA-256 to the file that --tokens reads. The token\n"
            "itself is kept nowhere. To replace one: add another for the same name, let the client change over, and\n"
            "delete the old line. A running server reads the file again when it changes."
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help="the client's, for logs and limits")
    parser.add_argument("--file", required=True, metavar="FILE", help="made if it is not there")
    parser.add_argument("--admin", action="store_true", help="it may change what is served (with --admin)")
    asked = parser.parse_args(arguments)
    from horngate_server.transports.access import tokens  # noqa: PLC0415 - see above

    print(tokens.add(Path(asked.file), asked.name, admin=asked.admin))
    return 0


INSPECTED = (
    "device", "engine", "compute_threads", "verify", "config", "max_batch_rows", "target_batch_time_s",
    "model_memory_bytes", "op_library",
)  # fmt: skip
"""The settings that say what becomes of a version while it is loaded."""


def _inspect(arguments: Sequence[str]) -> int:
    import json  # noqa: PLC0415 - see above
    from dataclasses import replace  # noqa: PLC0415

    from horngate_server.core import settings  # noqa: PLC0415
    from horngate_server.lifecycle import model_config  # noqa: PLC0415

    parser = argparse.ArgumentParser(
        prog="horngate-server inspect",
        description=(
            "Load a version as the server would, let it prove itself, and say what is known of it; serve nothing.\n"
            "Exit 0 if the server would serve it, 1 with the reason if not."
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="The flags are the server's own, with the same HORNGATE_ variables. The last four win over --config.",
    )
    parser.add_argument("folder", metavar="DIR", help="a version, models/mnist/3; or a model, for its newest version")
    parser.add_argument("--json", action="store_true", help="print JSON")
    settings.add_flags(parser, *INSPECTED)
    parser.add_argument("--batching", choices=settings.BATCHING, help="whether requests share runs: as in --config")
    parser.add_argument("--lengths", choices=settings.LENGTHS, help="requests of different lengths: as in --config")
    parser.add_argument("--tags", metavar="TAG,TAG", help="of the MetaGraph to load: as in --config (default: serve)")
    parser.add_argument("--signature", metavar="NAME", help="the one for callers who name none: as in --config")
    asked = parser.parse_args(arguments)
    from horngate_server.lifecycle.loader import inspect  # noqa: PLC0415

    chosen = settings.chosen(vars(asked))
    wanted = model_config.read(chosen.config, chosen)
    said = {
        "batching": asked.batching,
        "lengths": asked.lengths,
        "tags": asked.tags and tuple(asked.tags.split(",")),
        "signature": asked.signature,
    }
    given = {name: value for name, value in said.items() if value}
    settings.prepare_libraries(chosen)
    report = inspect(Path(asked.folder), chosen, lambda name: replace(wanted.of(name).limits, **given))
    print(json.dumps(report.json(), indent=2) if asked.json else "\n".join(report.lines()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
