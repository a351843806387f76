"""The parser: what all commands share. Their options may stand before or after a command's name."""

import argparse
from typing import Any

from horngate_client.settings import Several, duration
from horngate_protos import __version__

EXIT_CODES = "exit codes: 0 done, 1 failed, 2 wrong usage or input, 130 interrupted"
_EXAMPLES = f"""\
examples:
  horngate-client predict seven.png
  horngate-client predict --invert --resize photo-on-paper.jpg
  horngate-client predict --json test-images.npy > answers.json
  horngate-client explain seven.png --target 1 --output heat.png
  echo '{{"age": 42, "city": "Ghent"}}' | horngate-client infer --model wine
  horngate-client infer --model sentiment --input text=reviews.txt --json
  horngate-client --server a:8001 --server b:8001 status
  horngate-client load --concurrency 64 --duration 30s
  horngate-client replay recorded/ --model-version 2
  HORNGATE_TOKEN=secret horngate-client --tls --server models.example.com:443 status

Each command has its own --help. What stands above may stand behind the command as well.

{EXIT_CODES}
"""


def root() -> tuple[argparse.ArgumentParser, Any]:
    """Return the parser, and what `command` adds to; its options still lack what the environment says."""
    parser = argparse.ArgumentParser(
        prog="horngate-client",
        description="Ask a model server that speaks the Open Inference Protocol over gRPC.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"horngate-client {__version__}")
    _add_shared(parser, hidden=False)
    return parser, parser.add_subparsers(title="commands", required=True, metavar="COMMAND")


def command(commands: Any, name: str, summary: str, text: str = "") -> argparse.ArgumentParser:
    """Add a command, and return its parser.

    Args:
        commands: as `root` returned it.
        name: the command's.
        summary: what it does, beginning with a small letter.
        text: examples, and whatever else there is to know.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"{text}\n\n{EXIT_CODES}\n--server, --timeout, --tls and others: horngate-client --help".lstrip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_shared(parser, hidden=True)
    return parser


# --- private ---------------------------------------------------------------------------------------------


def _add_shared(parser: argparse.ArgumentParser, *, hidden: bool) -> None:
    """Add the options that may stand before or behind a command.

    Args:
        parser: the whole command's, or one of a command.
        hidden: it is one of a command: what is not given there leaves what was given before; and its help is short.
    """

    def add(group: Any, name: str, text: str, *, default: Any = None, shown: bool = False, **more: Any) -> None:
        if hidden:
            more |= {"default": argparse.SUPPRESS, "help": text if shown else argparse.SUPPRESS}
        else:
            more |= {"default": default, "help": text}
        group.add_argument(name, **more)

    which = parser if hidden else parser.add_argument_group("model")
    add(which, "--model", "the model (default: the server's only one, else mnist)", metavar="NAME", shown=True)
    add(which, "--model-version", "a version or label to insist on (default: the server's choice)", default="",
        metavar="V", shown=True)  # fmt: skip
    where = parser if hidden else parser.add_argument_group("server")
    add(where, "--server", "the server's gRPC address; several: again, or with commas (default localhost:8001)",
        action=Several, metavar="HOST:PORT")  # fmt: skip
    add(where, "--timeout", "for a whole command, retries included; for load and replay, for a request (default 10s)",
        type=duration, default=10.0, metavar="TIME")  # fmt: skip
    add(where, "--bulk", "stand back behind interactive callers of a Horngate server", default=False,
        action="store_true")  # fmt: skip
    how = parser if hidden else parser.add_argument_group("TLS and token")
    add(how, "--tls", "speak TLS", default=False, action="store_true")
    add(how, "--tls-ca", "trust these authorities (PEM); implies --tls", metavar="FILE")
    add(how, "--tls-cert", "our certificate (PEM), where the server wants one; implies --tls", metavar="FILE")
    add(how, "--tls-key", "the key of that certificate (PEM)", metavar="FILE")
    add(how, "--tls-server-name", "the name in the server's certificate, if not the address", metavar="NAME")
    add(how, "--token", "a bearer token; better in the variable, where no process list shows it")
    add(how, "--allow-plaintext-token", "send the token without TLS all the same", default=False, action="store_true")
