"""The settings of ``horngate-trainer import``."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from horngate_protos.stores import StoreUrl
from horngate_trainer import flags, remote
from horngate_trainer.errors import SettingsError
from horngate_trainer.flags import FORMATS
from horngate_trainer.publish import NAME
from horngate_trainer.settings import BASELINES, OUTPUT


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportSettings:
    """What one import does. Each field's help text is what --help prints.

    Attributes:
        model: the file or folder.
        name: the model's name, a plain folder name inside ``output``.
        output: folder of models, as the server's --models takes it; or one of an object store.
        examples: an .npz file of real rows; None for seeded noise.
        formats: what the version holds; None for what training writes, and for what there is of a .tflite file.
        explain: write the signature ``explain``.
        classes_of: the output with a number for each class, which gets ``classes`` beside it; None for no such output,
            or, with ``explain``, for the only one.
        custom: where a Keras model's own classes and functions are: ``module:name`` or ``module``.
        unsafe: run Python code that a Keras file carries.
    """

    model: Path = field(
        metadata={"help": "a .keras or .h5 file, a SavedModel's folder, or a .tflite file", "bare": True}
    )
    name: str = field(
        default="", metadata={"help": "the model's name, a folder in --output", "shown": "the file's own"}
    )
    output: Path | StoreUrl = field(default=remote.FOLDER, metadata=OUTPUT)
    examples: Path | None = field(
        default=None,
        metadata={
            "help": "real rows: an array for each input, by its name; requests of 1, 7 and 32 rows are cut out of them "
            "and recorded with their answers, which servers then verify",
            "shown": "seeded noise that the model accepts",
        },
    )
    formats: tuple[str, ...] | None = field(
        default=None,
        metadata={
            "help": "what a version holds: savedmodel (TensorFlow), litert (model.tflite, which needs no TensorFlow), "
            "tfjs (for browsers); one that is named and cannot hold the model is an error",
            "shown": "savedmodel,litert",
        },
    )
    explain: bool = field(
        default=False,
        metadata={
            "help": "the model explains its answers too (signature explain), beginning at zeros; Keras files only"
        },
    )
    classes_of: str | None = field(
        default=None,
        metadata={
            "help": "the output that has a number for each class: adds an output classes, the place of the largest; "
            "Keras files only",
            "shown": "none; with --explain the only such output",
        },
    )
    custom: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "where a class or function of the model's own is, module:name, or module alone for all that it "
            "registers with Keras; may be given again and again",
            "shown": "Keras's own alone",
            "many": True,
        },
    )
    unsafe: bool = field(
        default=False,
        metadata={"help": "run Python code that the Keras file carries (Lambda layers): only if you trust its makers"},
    )

    @property
    def folder(self) -> Path:
        """The local folder of models."""
        return remote.made_in(self.output)


def parse(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> ImportSettings:
    """Read flags and variables; ``arguments`` are those after ``import``.

    Raises:
        SettingsError: a value cannot be used; the text names the flag (or the variable) and what came.
        SystemExit: --help was asked for and printed.
    """
    parser = flags.Parser(
        prog="horngate-trainer import",
        description="Export a trained model as the next version of a model: verified, with recorded answers, as a "
        "training's own.",
        epilog=_EXAMPLES,
    )
    metavars = {"output": "DIR|URL", "examples": "FILE.npz", "formats": ",".join(FORMATS), "custom": "MODULE:NAME"}
    flags.add(parser, ImportSettings, metavars | {"classes_of": "OUTPUT"})
    chosen = flags.read(ImportSettings, parser.parse_args(arguments), environ, _CONVERT)
    return chosen if chosen.name else replace(chosen, name=_named_after(chosen.model))


# --- private ---------------------------------------------------------------------------------------------------------

_EXAMPLES = """\
examples:
  horngate-trainer import wine.keras                              models/wine/1, asked seeded noise
  horngate-trainer import wine.keras --examples rows.npz          asked real rows, which proves more
  horngate-trainer import exported_folder --name wine             a SavedModel, as it stands
  horngate-trainer import detector.tflite --name detector         for LiteRT alone
  horngate-trainer import net.keras --custom my_layers:Attention  with a layer of its own, from my_layers.py here
  horngate-server --models models                                 serve what was imported

The last line on stdout is the path of the imported version; all else goes to stderr.
Every flag has a variable: --classes-of is HORNGATE_CLASSES_OF. A flag wins over its variable.
Exit codes: 0 done, 1 failed, 2 wrong usage or input, 130 Ctrl-C.
"""
_NUMBER = re.compile(r"\d+")


def _named_after(model: Path) -> str:
    """Return the name of a file without its suffix, or of a model's folder.

    Raises:
        SettingsError: it cannot be a model's.
    """
    place = model.resolve()
    name = place.parent.name if _NUMBER.fullmatch(place.name) else place.stem
    if not NAME.fullmatch(name):
        raise SettingsError(
            f"{name!r} cannot be the model's name: say one with --name (letters, digits, '.', '_', '-')"
        )
    return name


def _custom(text: str) -> tuple[str, ...]:
    places = flags.listed(text)
    for each in places:
        if not re.fullmatch(r"\w+(\.\w+)*(:\w+)?", each):
            raise ValueError(f"module:name, or a module's name, is needed, not {each!r}")
    return places


_CONVERT: dict[str, Callable[[str], Any]] = {
    "model": flags.path,
    "name": flags.name,
    "output": remote.output,
    "examples": flags.path,
    "formats": flags.formats,
    # A training's variable may say from which image it explains.
    "explain": lambda text: text in BASELINES or (text != "none" and flags.switch(text)),
    "classes_of": str,
    "custom": _custom,
    "unsafe": flags.switch,
}
