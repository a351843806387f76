"""A Keras model from its file: a .keras archive, or HDF5 (.h5) as Keras 2 wrote it."""

import importlib
import json
import logging
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import keras

from horngate_trainer import quiet
from horngate_trainer.errors import SourceError, first_line
from horngate_trainer.model_files import SUFFIXES


def load(path: Path, kind: str, custom: Sequence[str], *, unsafe: bool) -> Any:
    """Load a model without what only training needs.

    Args:
        path: of the file.
        kind: `model_files.KERAS` or ``H5``; Keras itself goes by the file's name.
        custom: where its own classes and functions are: ``module:name``, or ``module`` for all that it registers.
        unsafe: run Python code that the file carries.

    Raises:
        SourceError: it cannot be loaded so; the text says what to do.
    """
    if path.suffix not in SUFFIXES[kind]:
        raise SourceError(
            f"{path} has the content of a {SUFFIXES[kind][0]} file, and Keras goes by the name: rename it"
        )
    objects = _objects(custom)
    try:
        with _silenced():
            return keras.models.load_model(path, custom_objects=objects, compile=False, safe_mode=not unsafe)
    except (KeyboardInterrupt, MemoryError):
        raise
    except Exception as exc:
        raise SourceError(_advice(path, exc)) from exc


# --- private ---------------------------------------------------------------------------------------------------------

_UNKNOWN = re.compile(
    r"Could not locate (?:class|function) '([^']+)'|Unknown (?:layer|object|[a-z ]*function|initializer): '?([\w>.]+)"
)
_INSTEAD = (
    "where it was made, write a SavedModel, which needs none of its Python: model.export('folder') (Keras 2: "
    "model.save('folder')), then `horngate-trainer import folder`"
)


@contextmanager
def _silenced() -> Iterator[None]:
    level = logging.getLogger("absl").level
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    try:
        with quiet.everything():
            yield
    finally:
        logging.getLogger("absl").setLevel(level)


def _objects(custom: Sequence[str]) -> Mapping[str, Any]:
    """Import a model's own classes and functions; the working directory's modules are found.

    Raises:
        SourceError: there is no such module or name.
    """
    found: dict[str, Any] = {}
    if custom and "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    for each in custom:
        module, _, name = each.partition(":")
        try:
            imported = importlib.import_module(module)
        except Exception as exc:
            raise SourceError(f"--custom {each}: the module {module} cannot be imported: {exc!r}") from exc
        if not name:
            continue  # it registers what it has with keras.saving.register_keras_serializable
        if not hasattr(imported, name):
            raise SourceError(f"--custom {each}: the module {module} ({imported.__file__}) has no {name}")
        value = getattr(imported, name)
        found |= {name: value, keras.saving.get_registered_name(value): value}
    return found


def _advice(path: Path, exc: Exception) -> str:
    """Say why Keras could not load a file, and what to do."""
    words = str(exc)
    if "safe_mode" in words or "unsafe deserialization" in words or "enable_unsafe_deserialization" in words:
        return (
            f"{path} carries Python code (a Lambda layer), which could do anything here: for a file whose makers you "
            f"trust add --unsafe; or, {_INSTEAD}"
        )
    if match := _UNKNOWN.search(words):
        name = (match[1] or match[2]).rsplit(">", 1)[-1]
        return (
            f"{path} has {name!r}, which is none of Keras's own: say where it is with --custom module:{name} (a module "
            f"that can be imported from here); or, {_INSTEAD}"
        )
    if "No model config found" in words or path.name.endswith(".weights.h5"):
        return f"{path} holds weights alone: write the whole model with model.save('model.keras')"
    return f"Keras {keras.__version__} cannot load {path}{_written_by(path)}: {first_line(exc)}; {_INSTEAD}"


def _written_by(path: Path) -> str:
    with suppress(OSError, KeyError, ValueError, zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        return f", which Keras {json.loads(archive.read('metadata.json'))['keras_version']} wrote"
    return ""
