"""The settings of ``horngate-trainer golden``."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from horngate_trainer import flags
from horngate_trainer.errors import SettingsError

MOST_ROWS = 1000
"""As many records a server reads of a version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenSettings:
    """What is recorded anew. Each field's help text is what --help prints.

    Attributes:
        file: a file of recorded requests, or a folder with such files below it.
        version: the version's folder.
        rows: how many rows are chosen at most.
    """

    file: Path = field(
        metadata={
            "help": "requests that `horngate-server --record` wrote; of a folder, every *.tfrecord below it",
            "bare": True,
        }
    )
    version: Path = field(
        default=Path(),
        metadata={"help": "the version's folder, such as models/wine/3", "shown": "has to be named"},
    )
    rows: int = field(
        default=64, metadata={"help": "rows of the requests that are chosen, at most; each request is another one"}
    )


def parse(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> GoldenSettings:
    """Read flags and variables; ``arguments`` are those after ``golden``.

    Raises:
        SettingsError: a value cannot be used; the text names the flag (or the variable) and what came.
        SystemExit: --help was asked for and printed.
    """
    parser = flags.Parser(
        prog="horngate-trainer golden",
        description="Make recorded requests a version's recorded answers, which servers verify it by. The version has "
        "to answer as was recorded, within its own tolerance; its manifest is sealed anew.",
        epilog=_EXAMPLES,
    )
    flags.add(parser, GoldenSettings, {"file": "FILE|DIR", "version": "DIR", "rows": "N"})
    chosen = flags.read(GoldenSettings, parser.parse_args(arguments), environ, _CONVERT)
    if chosen.version == Path():
        raise SettingsError("--version DIR is needed: the version whose recorded answers these are to be")
    return chosen


# --- private ---------------------------------------------------------------------------------------------------------

_EXAMPLES = """\
examples:
  horngate-trainer golden recorded/wine/3 --version models/wine/3
  horngate-trainer golden recorded/wine --version models/wine/4 --rows 200    what 3 answered, 4 must answer too
  horngate-server inspect models/wine/4                                       verified (200 rows)

The requests replace the recorded ones of the same signatures. Do so before the version is served, or give it time: a
server that is about to load it while two files are replaced finds it damaged for that moment.
Every flag has a variable: --rows is HORNGATE_ROWS. A flag wins over its variable.
Exit codes: 0 done, 1 failed, 2 wrong usage or input, 130 Ctrl-C.
"""


def _rows(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_ROWS:
        raise ValueError(f"a whole number from 1 to {MOST_ROWS} is needed, not {text!r}")
    return int(text)


_CONVERT: dict[str, Callable[[str], Any]] = {"file": flags.path, "version": flags.path, "rows": _rows}
