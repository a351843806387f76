"""What ``horngate-trainer`` does: train, import, or record answers anew; each ends in a published version."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from horngate_protos.stores import StoreUrl
from horngate_trainer import (
    data,
    golden_settings,
    import_settings,
    memory,
    model_files,
    publish,
    quiet,
    remote,
    settings,
)
from horngate_trainer.clusters import Cluster
from horngate_trainer.recipes import RECIPES
from horngate_trainer.tfrecords import Features

if TYPE_CHECKING:
    from horngate_trainer.distribution import Workers


def train(arguments: Sequence[str]) -> Path | str | None:
    """Settings, data, fit, export, report, in this order; return the version's folder, or its address in a store.

    Of several processes that train together only the chief exports; the others return None.

    Raises:
        TrainerError: in words for the user; an InputError where what was given cannot be used.
        OSError: a file cannot be read or written.
        KeyboardInterrupt: with a text that says how to go on.
    """
    chosen = settings.parse(arguments)
    cluster = settings.cluster(chosen)
    # Processes first find each other: what goes wrong in one of them afterwards ends all.
    workers = _joined(chosen, cluster) if cluster.several else None
    # a store is asked in any case: what is wrong with it is better known before the training than after it
    there = _newest(chosen) if cluster.chief and (chosen.once or isinstance(chosen.output, StoreUrl)) else None
    if chosen.once and there is not None:
        _say("horngate-trainer: --once, and there is a version already")
        if workers is not None:
            workers.told({"finished": True})
            workers.part()
        return there
    if chosen.report is not None and cluster.chief:
        quiet.require("a report", "matplotlib", "tensorboard", otherwise="--report none")
    dataset = _load(chosen)  # before TensorFlow: bad data are refused at once
    workers = workers or _joined(chosen, cluster)
    with quiet.imports():
        from horngate_trainer import pipeline  # noqa: PLC0415 - TensorFlow takes seconds to import

    try:
        version = pipeline.run(chosen, dataset, sys.stderr, workers)
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt("interrupted: --resume goes on after the last finished epoch") from interrupt
    return None if version is None else _published(version, chosen.output)


def import_(arguments: Sequence[str]) -> Path | str:
    """Import a model; return the version's folder, or its address in a store.

    Raises:
        TrainerError: in words for the user; an InputError where what was given cannot be used.
    """
    chosen = import_settings.parse(arguments)
    kind = model_files.kind_of(chosen.model)  # before TensorFlow: what is no model is refused at once
    examples = model_files.examples(chosen.examples) if chosen.examples is not None else None
    _say(f"reading   {chosen.model}: {model_files.TITLES[kind]}, {model_files.size_bytes(chosen.model) / 1000:,.0f} kB")
    if isinstance(chosen.output, StoreUrl):
        remote.newest(chosen.output, chosen.name)  # what is wrong with a store is better known now, too
    with quiet.imports():
        from horngate_trainer import importing  # noqa: PLC0415 - TensorFlow takes seconds to import

    version = _published(importing.run(chosen, kind, examples, _say), chosen.output)
    _say(f"imported  {version}; serve it with: horngate-server --models {chosen.output}")
    return version


def golden(arguments: Sequence[str]) -> Path:
    """Make recorded requests a version's recorded answers; return the version's folder.

    Raises:
        TrainerError: in words for the user; an InputError where what was given cannot be used.
        OSError: a file cannot be read.
    """
    chosen = golden_settings.parse(arguments)
    with quiet.imports():
        from horngate_trainer import recorded, resealing  # noqa: PLC0415 - TensorFlow takes seconds to import

    resealing.run(recorded.choose(chosen.file, chosen.rows), chosen.version, _say)
    return chosen.version


# --- private ---------------------------------------------------------------------------------------------------------


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _joined(chosen: settings.Settings, cluster: Cluster) -> "Workers":
    with quiet.imports():
        from horngate_trainer import distribution  # noqa: PLC0415 - TensorFlow takes seconds to import

    return distribution.join(chosen.strategy, cluster, _say)


def _load(chosen: settings.Settings) -> data.Dataset:
    """Load the data; before they are read, say what a training with them needs.

    Raises:
        DataError: they are bad, or need more memory than there is; in that case no image was read.
        DownloadError: they could not be downloaded.
    """
    said = ""

    def check(size: memory.Size) -> None:
        nonlocal said
        batch = RECIPES[chosen.architecture].batch_size
        line = memory.check(size, chosen.architecture, batch, report=chosen.report is not None)
        if line != said:
            said = line
            _say(line)

    features = Features(chosen.image_feature, chosen.label_feature)
    return data.load(
        chosen.data,
        check,
        chosen.image_size,
        stream=chosen.stream,
        features=None if features == Features() else features,
    )


def _published(version: Path, output: Path | StoreUrl) -> Path | str:
    """Copy a version to a store, if that is where it goes; return where it is."""
    return remote.upload(version, output) if isinstance(output, StoreUrl) else version


def _newest(chosen: settings.Settings) -> Path | str | None:
    """Return the newest version's folder, or its address in a store; None where there is none."""
    if isinstance(chosen.output, StoreUrl):
        return remote.newest(chosen.output, chosen.name)
    model = chosen.output / chosen.name
    numbers = publish.versions(model) if model.is_dir() else []
    return model / str(max(numbers)) if numbers else None
