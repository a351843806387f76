"""A model that was trained elsewhere, as the next version of a model: verified and recorded as a training's own."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import tensorflow as tf

from horngate_trainer import explaining, further_formats, keras_file, model_files, saved_model_folder, tflite_file
from horngate_trainer.errors import ExportError, SettingsError
from horngate_trainer.examples import given
from horngate_trainer.exporter import Plan, write_version
from horngate_trainer.formats import SAVED_MODEL
from horngate_trainer.import_settings import ImportSettings
from horngate_trainer.model_files import FOLDER, H5, KERAS, TFLITE, Examples
from horngate_trainer.savedmodel import Input, Servable, servable
from horngate_trainer.sources import Source
from horngate_trainer.written import SIGNATURE


def run(settings: ImportSettings, kind: str, examples: Examples | None, say: Callable[[str], None]) -> Path:
    """Import a model.

    Args:
        settings: what to do.
        kind: of the model.
        examples: what ``settings.examples`` has.
        say: is told what happens, a line at a time.

    Returns:
        The published version's folder.

    Raises:
        SourceError: it cannot be loaded as things are.
        ExamplesError: the examples do not fit the model.
        ExportError: it cannot be served, or be written. Nothing was published.
    """
    source, plan = _LOADERS[kind](settings, examples)
    rows = given(source.inputs, _named(source, examples)) if examples is not None else None
    if rows is None:
        say(
            "examples  none were given: it is asked seeded noise made from its signature. Real rows would prove more, "
            f"and servers would warm up with them: --examples FILE.npz with {', '.join(map(_shown, source.inputs))}"
        )
    explainer = (
        explaining.explainer(source, "black", rows) if isinstance(source, Servable) and settings.explain else None
    )
    imported = {
        "from": settings.model.name,
        "format": kind,
        "sha256": model_files.digest(settings.model),
        "examples": settings.examples.name if settings.examples is not None else None,
    }
    return write_version(
        source,
        settings.folder / settings.name,
        Plan(
            **plan,
            rows=rows,
            explainer=explainer,
            describe=lambda _: {"imported": imported},
            progress=lambda step: say(f"          {step}"),
        ),
    )


# --- private ---------------------------------------------------------------------------------------------------------

_Loaded = tuple[Source, dict[str, Any]]
"""A model, and what of its version's plan depends on its kind."""


def _from_keras(kind: str, settings: ImportSettings, _: Examples | None) -> _Loaded:
    model = keras_file.load(settings.model, kind, settings.custom, unsafe=settings.unsafe)
    served = servable(model, dtypes={}, divisors={}, classes_of=None)
    classes_of = settings.classes_of or (_scores(served) if settings.explain else None)
    if classes_of is not None:
        served = servable(model, dtypes={}, divisors={}, classes_of=classes_of)
    return served, _formats(served, settings)


def _from_folder(settings: ImportSettings, examples: Examples | None) -> _Loaded:
    _refuse_keras_only(settings, "a SavedModel is taken as it stands")
    if settings.folder.resolve().is_relative_to(settings.model.resolve()):
        raise SettingsError(f"--output {settings.folder} lies in the model's own folder, {settings.model}: say another")
    source = saved_model_folder.load(settings.model, examples)
    return source, _formats(source, settings)


def _from_tflite(settings: ImportSettings, _: Examples | None) -> _Loaded:
    _refuse_keras_only(settings, "a .tflite file is taken as it stands")
    if settings.formats is not None and set(settings.formats) != {"litert"}:
        raise SettingsError(
            f"--formats {','.join(settings.formats)}: a .tflite file gives litert alone, no SavedModel and no TF.js: "
            "import the Keras file or SavedModel that it was made from, or leave --formats out"
        )
    source = tflite_file.load(settings.model)
    return source, {"formats": [tflite_file.Kept(source)], "by_name": True}


_LOADERS: dict[str, Callable[[ImportSettings, Examples | None], _Loaded]] = {
    KERAS: partial(_from_keras, KERAS),
    H5: partial(_from_keras, H5),
    FOLDER: _from_folder,
    TFLITE: _from_tflite,
}


def _formats(source: Source, settings: ImportSettings) -> dict[str, Any]:
    names = settings.formats
    if names is not None and SAVED_MODEL not in names:
        raise SettingsError(f"--formats {','.join(names)}: the others are written from the {SAVED_MODEL}, name it too")
    if source.signature != SIGNATURE:
        if names is not None and len(names) > 1:
            raise SettingsError(
                f"--formats {','.join(names)}: other formats are written from the signature {SIGNATURE}, and the model "
                f"has {source.signature} in its place"
            )
        names = (SAVED_MODEL,)
    return {
        "formats": further_formats.wanted(names, "none", source.inputs, None),
        "by_name": names is not None,
    }


def _refuse_keras_only(settings: ImportSettings, why: str) -> None:
    """Refuse flags that need the Keras model itself.

    Raises:
        SettingsError: one of them was given.
    """
    flags = {"--explain": settings.explain, "--classes-of": settings.classes_of, "--custom": settings.custom}
    for flag, value in {**flags, "--unsafe": settings.unsafe}.items():
        if value:
            raise SettingsError(f"{flag} is for .keras and .h5 files: {why}")


def _scores(served: Servable) -> str:
    """Return the only output with a number for each of several classes.

    Raises:
        ExportError: there is none, or several.
    """
    found = [
        name
        for name, tensor in zip(served.outputs, served.model.outputs, strict=True)
        if len(tensor.shape) == 2 and tensor.shape[-1] != 1 and tf.as_dtype(tensor.dtype).is_floating
    ]
    if len(found) == 1:
        return found[0]
    which = f"{', '.join(found)} have: say which with --classes-of OUTPUT" if found else "none of its outputs has"
    raise ExportError(f"--explain explains the entries of an output with a number for each class, and {which}")


def _named(source: Source, examples: Examples) -> Any:
    """Return examples by input; what np.savez was given without names is in the inputs' order."""
    unnamed = [f"arr_{number}" for number in range(len(source.inputs))]
    if set(examples) == set(unnamed) and set(unnamed).isdisjoint(each.name for each in source.inputs):
        return dict(zip((each.name for each in source.inputs), map(examples.__getitem__, unnamed), strict=True))
    return examples


def _shown(each: Input) -> str:
    axes = ", ".join("N" if axis is None else str(axis) for axis in each.shape)
    return f"{each.name} {each.dtype} [{axes}]"
