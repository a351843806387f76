"""Flags and HORNGATE_ variables of a frozen dataclass of settings, for each of the trainer's commands.

A flag wins over its variable; an empty variable counts as unset. A field's metadata are its ``help``, what is ``shown``
as its default where that is not the value itself, ``many`` where the flag may be given again and again, and ``bare``
where it is an argument without a flag, and without a variable.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from horngate_trainer.errors import SettingsError
from horngate_trainer.publish import NAME

FORMATS = ("savedmodel", "litert", "tfjs")

T = TypeVar("T")


class Parser(argparse.ArgumentParser):
    """argparse's, whose mistakes are `SettingsError`; the epilog stays as it is written."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Refuse a command line.

        Raises:
            SettingsError: always.
        """
        raise SettingsError(f"{message} (see {self.prog} --help)")


def add(parser: Parser, settings: type[Any], metavars: Mapping[str, str]) -> None:
    """Let a parser know the flags of settings; ``metavars`` say what stands for their values in --help."""
    for setting in fields(settings):
        text = setting.metadata["help"]
        metavar = metavars.get(setting.name, setting.name.upper())
        if setting.metadata.get("bare"):
            parser.add_argument(setting.name, metavar=metavar, help=text)
        elif setting.default is False:
            parser.add_argument(_flag(setting.name), action="store_const", const="true", help=text)
        else:
            shown = setting.metadata.get("shown", setting.default)
            action = "append" if setting.metadata.get("many") else "store"
            parser.add_argument(
                _flag(setting.name), dest=setting.name, action=action, metavar=metavar, help=f"{text} ({shown})"
            )


def read(
    settings: type[T],
    given: argparse.Namespace,
    environ: Mapping[str, str],
    convert: Mapping[str, Callable[[str], Any]],
) -> T:
    """Make settings of what was parsed, and of variables.

    Raises:
        SettingsError: a value cannot be used; the text names the flag (or the variable) and what came.
    """
    values: dict[str, Any] = {}
    for setting in fields(settings):  # type: ignore[arg-type] # a dataclass
        bare = setting.metadata.get("bare")
        flag = setting.name.upper() if bare else _flag(setting.name)
        text = getattr(given, setting.name)
        if text is None and not bare:
            text = environ.get(_variable(setting.name)) or None
            flag = f"{flag} (from {_variable(setting.name)})"
        if text is None:
            continue
        try:
            values[setting.name] = convert[setting.name](",".join(text) if isinstance(text, list) else text)
        except ValueError as exc:
            raise SettingsError(f"{flag}: {exc}") from exc
    return settings(**values)


def name(text: str) -> str:
    """Return a model's name."""
    if not NAME.fullmatch(text):
        raise ValueError(f"a plain folder name of letters, digits, '.', '_' and '-' is needed, not {text!r}")
    return text


def path(text: str) -> Path:
    """Return a path."""
    if not text or "\0" in text:
        raise ValueError(f"a path is needed, not {text!r}")
    return Path(text)


def formats(text: str) -> tuple[str, ...]:
    """Return the names of formats."""
    names = listed(text)
    if not names or not set(names) <= set(FORMATS):
        raise ValueError(f"any of {', '.join(FORMATS)} are needed, not {text!r}")
    return names


def listed(text: str) -> tuple[str, ...]:
    """Return what is between commas, each once."""
    return tuple(dict.fromkeys(each.strip() for each in text.split(",") if each.strip()))


def switch(text: str) -> bool:
    """Return yes or no."""
    switches = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(("0", "false", "no", "off"), False)
    if text.lower() not in switches:
        raise ValueError(f"true or false is needed, not {text!r}")
    return switches[text.lower()]


# --- private ---------------------------------------------------------------------------------------------------------


def _flag(setting: str) -> str:
    return "--" + setting.replace("_", "-")


def _variable(setting: str) -> str:
    return "HORNGATE_" + setting.upper()
