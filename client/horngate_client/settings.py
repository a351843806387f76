"""The environment: every option of the command has a variable, ``HORNGATE_`` and its name. Nothing else reads it."""

import argparse
import os
import re
from collections.abc import Mapping

_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def quieten_grpc() -> None:
    """Keep gRPC's own lines off the terminal, unless GRPC_VERBOSITY asks for them; to be called before its import."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def colours() -> bool:
    """Return whether the terminal's user has nothing against colours."""
    return not os.environ.get("NO_COLOR")


def apply_environment(parser: argparse.ArgumentParser, environ: Mapping[str, str] | None = None) -> None:
    """Make the variables the defaults of the parser's options, and name them in its help.

    A value that its option would refuse is refused in the same way: exit code 2, with the variable's name.
    """
    environ = os.environ if environ is None else environ
    for action in parser._actions:  # noqa: SLF001 - argparse has no public way to list options
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for command in action.choices.values():
                apply_environment(command, environ)
        elif action.option_strings and action.dest not in ("help", "version") and action.default != argparse.SUPPRESS:
            name = "HORNGATE_" + action.option_strings[-1].lstrip("-").replace("-", "_").upper()
            action.help = f"{action.help} [{name}]"
            if environ.get(name):
                action.default = _value(parser, action, name, environ[name])


class Several(argparse.Action):
    """An option that may be given several times; what is given replaces the default and does not join it."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002 - argparse's signature
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,  # noqa: ARG002
    ) -> None:
        """Add one value."""
        given = getattr(namespace, self.dest, self.default)
        setattr(namespace, self.dest, [values] if given is self.default else [*given, values])


def duration(text: str) -> float:
    """Read ``10s``, ``500ms``, ``2m`` or plain seconds; positive."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m)?", text.strip())
    seconds = float(match[1]) * {"ms": 0.001, "s": 1, "m": 60, None: 1}[match[2]] if match else 0.0
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write 10s, 500ms or 2m")
    return seconds


def positive(text: str) -> int:
    """Read a whole number of at least 1."""
    if not text.strip().isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


# --- private ---------------------------------------------------------------------------------------------


def _value(parser: argparse.ArgumentParser, action: argparse.Action, name: str, text: str) -> object:
    if action.nargs == 0:
        if text.lower() not in _WORDS:
            parser.error(f"{name}: {text!r} is neither yes nor no")
        return _WORDS[text.lower()]
    try:
        value = action.type(text) if callable(action.type) else text
    except (argparse.ArgumentTypeError, ValueError) as exc:
        parser.error(f"{name}: {exc}")
    return [value] if isinstance(action, Several) else value
