"""What the reference pages say, read off the code: commands, settings, models.toml, metrics, messages.

A page names what it wants by a line of its own: ``<!-- generated: settings -->``. conf.py puts it there.
"""

import argparse
import ast
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

from prometheus_client import CollectorRegistry

import horngate_client
from horngate_server.core import settings
from horngate_server.lifecycle import model_config
from horngate_server.telemetry import merged_metrics
from horngate_server.telemetry.metrics import Metrics

ROOT = Path(__file__).parent.parent
COLUMNS = "100"


def filled(text: str) -> str:
    """Return a page with what it asks for in place.

    Raises:
        KeyError: it asks for what there is not.
    """
    return re.sub(r"(?m)^<!-- generated: ([\w-]+) -->$", lambda found: "\n".join(_MADE[found[1]]()), text)


# --- private ------------------------------------------------------------------------------------------


def _help(command: str, *arguments: str) -> str:
    """Return what a command says of itself."""
    done = subprocess.run(
        [Path(sys.executable).with_name(command), *arguments, "--help"],
        env={**os.environ, "COLUMNS": COLUMNS}, capture_output=True, text=True, check=True, timeout=100,
    )  # fmt: skip
    return done.stdout


def _commands(command: str) -> Iterator[str]:
    """Yield a command's help, and that of the commands that it names."""
    whole = _help(command)
    yield from ("```text", whole, "```")
    named = re.findall(rf"(?m)^  {command} (\w+) ", whole.partition("examples:")[0]) or _subcommands(whole)
    for name in dict.fromkeys(named):
        yield from ("", f"## {command} {name}", "", "```text", _help(command, name), "```")


def _subcommands(text: str) -> list[str]:
    """Return what argparse lists in braces."""
    found = re.search(r"\{([\w,]+)\}", text)
    return found[1].split(",") if found else []


def _settings() -> Iterator[str]:
    yield from ("| flag and variable | default | |", "| --- | --- | --- |")
    for each in fields(settings.Settings):
        flag, variable = settings.names(each.name)
        text = each.metadata["help"]
        if text == argparse.SUPPRESS:
            continue
        known = each.default is not False and isinstance(each.default, (int, float, str, Path))
        shown = settings._shown(each.name, each.default) if known else ""  # noqa: SLF001 - as --help has it
        value = each.metadata["metavar"]
        typed = value if each.metadata["positional"] else f"{flag} {value}".strip()
        yield f"| {_code(typed)}<br>{_code(variable)} | {_code(shown)} | {_cell(text)} |"


def _models_toml() -> Iterator[str]:
    """Yield the example in the module that reads the file."""
    documentation = inspect.getdoc(model_config) or ""
    example = re.search(r"(?ms)^    \[models.*?(?=^\S)", documentation)
    assert example
    yield from ("```toml", inspect.cleandoc(example[0]), "```")


class _Tokens:
    valid = True
    age_s = 1.0


def _metrics() -> Iterator[str]:
    """Yield a row for every family, as a server without models shows them, and of a supervisor."""
    metrics = Metrics(CollectorRegistry())
    metrics.watch(tuple, tokens=_Tokens())
    yield from ("| metric | type | labels | |", "| --- | --- | --- | --- |")
    for family in metrics.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        name += "_info" if family.type == "info" else ""
        labels = ", ".join(getattr(family, "_labelnames", ()))
        yield f"| `{name}` | {family.type} | {labels} | {_cell(family.documentation)} |"
    for call in ast.walk(ast.parse(inspect.getsource(merged_metrics))):
        match call:
            case ast.Call(
                func=ast.Name(id=made), args=[ast.Constant(value=str(name)), ast.Constant(value=str(text)), *_]
            ):
                kind, end = ("counter", "_total") if made == "counter" else ("gauge", "")
                yield f"| `{name}{end}` | {kind} | worker{', reason' if end else ''} | {_cell(text)} |"


def _python(module: str, names: dict[str, str]) -> Iterator[str]:
    """Yield the public names of a module: docstrings are reStructuredText's dialect of Google."""
    yield "```{eval-rst}"
    for name, kind in names.items():
        yield from (f".. {kind}:: {module}.{name}", "   :members:" if kind == "autoclass" else "", "")
    yield "```"


def _client() -> dict[str, str]:
    """Return the client's public names, each with what documents it."""
    made = {name: getattr(horngate_client, name) for name in horngate_client.__all__ if not name.startswith("_")}
    return {name: "autoexception" if issubclass(each, Exception) else "autoclass" for name, each in made.items()}


def _protos() -> Iterator[str]:
    for file in sorted((ROOT / "protos/horngate_protos").glob("*.proto")):
        yield from ("", f"## {file.name}", "", "```protobuf", file.read_text().strip(), "```")


def _code(text: object) -> str:
    return f"`{text!s}`".replace("|", r"\|") if str(text) else ""


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", r"\|").replace("<", "&lt;")


_TRAINER = {"export": "autofunction", "upload": "autofunction", "Tolerance": "autoclass"}
_MADE: dict[str, Callable[[], Iterator[str]]] = {
    "server": lambda: _commands("horngate-server"),
    "client": lambda: _commands("horngate-client"),
    "trainer": lambda: _commands("horngate-trainer"),
    "settings": _settings,
    "models-toml": _models_toml,
    "metrics": _metrics,
    "python-client": lambda: _python("horngate_client", _client()),
    "python-trainer": lambda: _python("horngate_trainer", _TRAINER),
    "protos": _protos,
}
