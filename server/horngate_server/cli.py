"""The command ``horngate-server``."""

import argparse
import sys
from collections.abc import Callable, Sequence

from horngate_server.errors import HorngateError, SettingsError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0 done, 1 failed, 2 wrong usage."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
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
    except SettingsError as error:
        print(f"horngate-server: {error}", file=sys.stderr)
        return 2
    except HorngateError as error:
        print(f"horngate-server: {error}", file=sys.stderr)
        return 1


def _serve(arguments: Sequence[str]) -> int:
    from horngate_server import launch, logs, settings  # noqa: PLC0415 - --help and wrong flags answer at once

    chosen = settings.read(arguments)
    try:
        return launch.serve(chosen)
    finally:
        logs.leave()


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
    from horngate_server import health, settings  # noqa: PLC0415 - see above

    if asked.server is not None:
        serving = health.ask(asked.server, asked.model, asked.timeout)
    else:
        ours = settings.read([])
        if ours.tls is not None and not asked.model:
            serving = health.ask_ready(f"http://{ours.local_host}:{ours.http_port}/readyz", asked.timeout)
        else:
            serving = health.ask(f"{ours.local_host}:{ours.grpc_port}", asked.model, asked.timeout)
    print("SERVING" if serving else "NOT_SERVING")
    return 0 if serving else 1


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
    from pathlib import Path  # noqa: PLC0415 - see above

    from horngate_server import tokens  # noqa: PLC0415

    print(tokens.add(Path(asked.file), asked.name, admin=asked.admin))
    return 0


def _inspect(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="horngate-server inspect",
        description=(
            "Load a version as the server would, let it prove itself, and say what is known of it; serve nothing.\n"
            "Exit 0 if the server would serve it, 1 with the reason if not."
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="HORNGATE_ variables apply: HORNGATE_DEVICE=gpu, HORNGATE_MAX_BATCH_ROWS=256, HORNGATE_VERIFY=warn.",
    )
    parser.add_argument("folder", metavar="DIR", help="a version, models/mnist/3; or a model, for its newest version")
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args(arguments)
    import json  # noqa: PLC0415 - see above
    from pathlib import Path  # noqa: PLC0415

    from horngate_server.loading import inspect  # noqa: PLC0415
    from horngate_server.settings import prepare_libraries, read  # noqa: PLC0415

    settings = read([])
    prepare_libraries(settings)
    report = inspect(Path(asked.folder), settings)
    print(json.dumps(report.json(), indent=2) if asked.json else "\n".join(report.lines()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
