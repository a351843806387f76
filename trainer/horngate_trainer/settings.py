"""The trainer's settings: flags and HORNGATE_ variables, parsed once into one frozen object.

A flag wins over its variable; an empty variable counts as unset. Nothing else reads the environment.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import horngate_protos
from horngate_protos.stores import StoreUrl
from horngate_trainer import clusters, flags, remote
from horngate_trainer.clusters import ALONE, Cluster
from horngate_trainer.errors import SettingsError
from horngate_trainer.flags import FORMATS
from horngate_trainer.recipes import RECIPES

ARCHITECTURES = tuple(RECIPES)
BASELINES = ("black", "white", "mean")
"""Images that show nothing, where explanations begin."""

STRATEGIES = ("none", "mirrored", "multi-worker")
QUANTIZATIONS = ("none", "dynamic", "float16", "int8")
OUTPUT = {
    "help": "folder of models; or one of an object store, s3://bucket/prefix or gs://bucket/prefix, which gets a copy "
    "of what is made in models (pip install 'horngate[remote]')"
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one run of the trainer does. Each field's help text is what --help prints.

    Attributes:
        output: folder of models, as the server's --models takes it; or one of an object store.
        name: the model's name, a plain folder name inside ``output``.
        architecture: ``mlp`` or ``cnn``.
        data: ``builtin``, ``keras``, the path of an .npz file, or of a folder of images or TFRecords.
        image_size: height and width that a folder's images are brought to; None: they are taken as they are.
        stream: leave a folder's images where they are, and read them as they are needed.
        image_feature: of TFRecords; None: one of the usual names.
        label_feature: as image_feature.
        strategy: ``none``, ``mirrored`` (all devices of this machine) or ``multi-worker`` (the processes of TF_CONFIG).
        epochs: passes over the training set, at least 1.
        seed: of weights, shuffling and dropout; None draws one.
        min_accuracy: share of the test set, 0 to 1, below which nothing is exported.
        once: do nothing where the model has a version already.
        resume: go on from the last finished epoch.
        report: folder of the report, or None for no report.
        explain: the baseline of the signature ``explain``: black, white or mean; None for no such signature.
        formats: what the version holds; None for a SavedModel, and LiteRT's file if that can hold the model.
        quantize: of LiteRT's file: none, dynamic, float16 or int8.
        max_accuracy_loss: by how many points, 1 in 100, a format's test accuracy may be below the model's.
    """

    output: Path | StoreUrl = field(
        default=remote.FOLDER,
        metadata=OUTPUT,
    )
    name: str = field(default="mnist", metadata={"help": "the model's name, a folder in --output"})
    architecture: str = field(
        default="mlp",
        metadata={"help": "mlp: the Keras quickstart's network, seconds; cnn: more accurate, minutes"},
    )
    data: str = field(
        default="builtin",
        metadata={
            "help": "builtin: the MNIST that ships with the trainer; keras: Keras's own download; an .npz file with "
            "x_train, y_train, x_test, y_test; a folder of images with a folder for each class, or with such folders "
            "in train and test; or a folder of TFRecords"
        },
    )
    image_size: tuple[int, int] | None = field(
        default=None,
        metadata={"help": "bring the images of a folder to this size, such as 64x48", "shown": "as they are"},
    )
    stream: bool = field(
        default=False,
        metadata={
            "help": "read a folder's images as they are needed, as TFRecords always are, and folders that do not fit "
            "into memory"
        },
    )
    image_feature: str | None = field(
        default=None,
        metadata={"help": "the feature of TFRecords that has the image", "shown": "image/encoded, image_raw or image"},
    )
    label_feature: str | None = field(
        default=None,
        metadata={"help": "the feature of TFRecords that has the label", "shown": "image/class/label or label"},
    )
    strategy: str = field(
        default="none",
        metadata={
            "help": "who trains: none: one device; mirrored: all GPUs of this machine; multi-worker: the processes "
            "that TF_CONFIG names, of which each is started with the same flags. Batches are as large as on one device"
        },
    )
    epochs: int = field(default=10, metadata={"help": "passes over the training set"})
    seed: int | None = field(
        default=None, metadata={"help": "makes runs on one machine bit-identical", "shown": "drawn"}
    )
    min_accuracy: float = field(
        default=0.97, metadata={"help": "refuse to export a model below this test accuracy, 0 to 1"}
    )
    once: bool = field(
        default=False, metadata={"help": "do nothing, successfully, where the model has a version already"}
    )
    resume: bool = field(default=False, metadata={"help": "go on after the last finished epoch"})
    report: Path | None = field(
        default=Path("report"),
        metadata={"help": "folder for curves, confusion matrix, mistakes, TensorBoard logs; none: no report"},
    )
    explain: str | None = field(
        default="black",
        metadata={
            "help": "the model explains its answers too (signature explain), beginning at an image that shows nothing: "
            "black, white, or the mean of the test images; none: it does not"
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
    quantize: str = field(
        default="none",
        metadata={
            "help": "numbers of model.tflite: none: float32; dynamic: weights of 8 bits, a quarter of the size; "
            "float16: half the size; int8: weights and activations of 8 bits. The manifest says what it costs"
        },
    )
    max_accuracy_loss: float = field(
        default=0.5, metadata={"help": "refuse an export whose formats lose more points of test accuracy than this"}
    )

    @property
    def folder(self) -> Path:
        """The local folder of models."""
        return remote.made_in(self.output)


def parse(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> Settings:
    """Read flags and variables.

    Raises:
        SettingsError: a value cannot be used; the text names the flag (or the variable) and what came.
        SystemExit: --help or --version was asked for and printed.
    """
    if arguments and not arguments[0].startswith("-"):
        raise SettingsError(
            f"no flag begins with {arguments[0]!r}: `horngate-trainer import {arguments[0]}` takes over a trained model"
        )
    return flags.read(Settings, _parser().parse_args(arguments), environ, _CONVERT)


def cluster(chosen: Settings, environ: Mapping[str, str] = os.environ) -> Cluster:
    """Return who trains together.

    Raises:
        SettingsError: --strategy multi-worker, and TF_CONFIG does not say who takes part.
    """
    return clusters.parse(environ.get("TF_CONFIG", "")) if chosen.strategy == "multi-worker" else ALONE


# --- private ---------------------------------------------------------------------------------------------------------

_EXAMPLES = """\
examples:
  horngate-trainer                                     train the digits model, export models/mnist/1
  horngate-trainer --architecture cnn --seed 7         the accurate one, reproducibly
  horngate-trainer --data fashion.npz --name fashion --min-accuracy 0.85
  horngate-trainer --data photos --image-size 64 --name photos    a folder per class, as photos/cat, photos/dog
  horngate-trainer --resume                            go on after Ctrl-C or a crash
  horngate-trainer --strategy multi-worker             one of several processes; TF_CONFIG says which
  horngate-trainer --output s3://bucket/models         publish to an object store
  horngate-trainer import wine.keras --name wine       a model that is trained already: .keras, .h5, SavedModel, .tflite
  horngate-server --models models                      serve what was exported

The last line on stdout is the path of the exported version; all else goes to stderr.
Every flag has a variable: --min-accuracy is HORNGATE_MIN_ACCURACY. A flag wins over its variable.
Exit codes: 0 done, 1 failed, 2 wrong usage or input, 130 Ctrl-C.
"""


def _parser() -> flags.Parser:
    parser = flags.Parser(
        prog="horngate-trainer",
        usage="horngate-trainer [OPTIONS]\n"
        "       horngate-trainer import MODEL [OPTIONS]   a model that is trained already; see import --help\n"
        "       horngate-trainer golden FILE --version DIR   recorded requests as a version's recorded answers",
        description="Train a Keras image classifier, verify it, and export it as the next version of a model.",
        epilog=_EXAMPLES,
    )
    parser.add_argument("--version", action="version", version=f"horngate-trainer {horngate_protos.__version__}")
    metavars = {"architecture": "|".join(ARCHITECTURES), "data": "builtin|keras|FILE.npz|DIR", "image_size": "HxW"}
    metavars |= {"explain": "|".join([*BASELINES, "none"])}
    metavars |= {"formats": ",".join(FORMATS), "quantize": "|".join(QUANTIZATIONS), "max_accuracy_loss": "POINTS"}
    metavars |= {"strategy": "|".join(STRATEGIES), "image_feature": "NAME", "label_feature": "NAME"}
    metavars |= {"output": "DIR|URL", "report": "DIR", "epochs": "N", "seed": "N", "min_accuracy": "SHARE"}
    flags.add(parser, Settings, metavars)
    return parser


def _architecture(text: str) -> str:
    if text not in ARCHITECTURES:
        raise ValueError(f"{' or '.join(ARCHITECTURES)} is needed, not {text!r}")
    return text


def _strategy(text: str) -> str:
    if text not in STRATEGIES:
        raise ValueError(f"{', '.join(STRATEGIES)} is needed, not {text!r}")
    return text


def _explain(text: str) -> str | None:
    if text not in {*BASELINES, "none"}:
        raise ValueError(f"{', '.join(BASELINES)} or none is needed, not {text!r}")
    return None if text == "none" else text


def _formats(text: str) -> tuple[str, ...]:
    names = flags.formats(text)
    if "savedmodel" not in names:
        raise ValueError(f"savedmodel and any of {', '.join(FORMATS[1:])} are needed, not {text!r}")
    return names


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d{0,4})(?:[xX]([1-9]\d{0,4}))?", text)
    if not match:
        raise ValueError(
            f"a height and a width in pixels, such as 64x48, or one number for both is needed, not {text!r}"
        )
    return int(match[1]), int(match[2] or match[1])


def _quantize(text: str) -> str:
    if text not in QUANTIZATIONS:
        raise ValueError(f"{', '.join(QUANTIZATIONS)} is needed, not {text!r}")
    return text


def _points(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 100:
        raise ValueError(f"a number of points from 0 to 100 is needed, not {text!r}")
    return number


def _whole(least: int, most: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            raise ValueError(f"a whole number from {least} to {most} is needed, not {text!r}")
        return number

    return convert


def _share(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise ValueError(f"a number from 0 to 1 is needed, not {text!r}")
    return number


def _source(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError(f"builtin, keras, an .npz file or a folder is needed, not {text!r}")
    return text


_CONVERT: dict[str, Callable[[str], Any]] = {
    "output": remote.output,
    "name": flags.name,
    "architecture": _architecture,
    "data": _source,
    "image_size": _size,
    "stream": flags.switch,
    "image_feature": str,
    "label_feature": str,
    "strategy": _strategy,
    "epochs": _whole(1, 1_000_000),
    "seed": _whole(0, 2**31 - 1),
    "min_accuracy": _share,
    "once": flags.switch,
    "resume": flags.switch,
    "report": lambda text: None if text in {"", "none"} else flags.path(text),
    "explain": _explain,
    "formats": _formats,
    "quantize": _quantize,
    "max_accuracy_loss": _points,
}
