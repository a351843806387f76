"""From the command's arguments to its exit code."""

import os
import sys
from collections.abc import Sequence

from horngate_client.cli import DONE, FAILED, WRONG_USE
from horngate_client.settings import apply_environment, quieten_grpc

quieten_grpc()  # before gRPC is imported

from horngate_client.cli import infer, load, pictures, replay, status  # noqa: E402
from horngate_client.cli.parser import root  # noqa: E402
from horngate_client.errors import (  # noqa: E402
    ConfigurationError,
    ConversionError,
    HorngateError,
    InvalidRequest,
    MissingExtra,
)


def run(argv: Sequence[str] | None) -> int:
    """Run the command; return its exit code.

    Args:
        argv: its arguments; None: the process's own.
    """
    parser, commands = root()
    for module in (pictures, infer, status, load, replay):
        module.add(commands)
    try:
        apply_environment(parser)
        args = parser.parse_args(argv)
    except SystemExit as exc:  # argparse exits: 0 after --help, 2 on wrong usage
        return int(exc.code or DONE)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except (ConversionError, ConfigurationError, MissingExtra, InvalidRequest) as exc:
        return _complain(exc, WRONG_USE)
    except HorngateError as exc:
        return _complain(exc, FAILED)
    except BrokenPipeError:  # whoever read us has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return code


# --- private ---------------------------------------------------------------------------------------------


def _complain(exc: Exception, code: int) -> int:
    print(f"horngate-client: {exc}", file=sys.stderr)
    return code
