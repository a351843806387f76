"""One training from data to a published version: fit, export, evaluate, report."""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from horngate_trainer import checkpoint, evaluation, publish, report
from horngate_trainer.architectures import INPUT, OUTPUT, build
from horngate_trainer.checkpoint import Checkpoint, Keeper
from horngate_trainer.curves import Curves
from horngate_trainer.data import Dataset
from horngate_trainer.distribution import Workers
from horngate_trainer.errors import AccuracyError, ResumeError, SettingsError
from horngate_trainer.evaluation import Evaluation
from horngate_trainer.explaining import SIGNATURE, TARGET
from horngate_trainer.exporter import export
from horngate_trainer.further_formats import describe as describe_format
from horngate_trainer.litert import CALIBRATION_ROWS
from horngate_trainer.progress import Bar
from horngate_trainer.recipes import RECIPES
from horngate_trainer.report import Trained
from horngate_trainer.settings import Settings
from horngate_trainer.training import SCALE, Epoch, Training
from horngate_trainer.written import Predict, reload


def run(settings: Settings, dataset: Dataset, stream: TextIO, workers: Workers) -> Path | None:
    """Train, export and report.

    Args:
        settings: what to do.
        dataset: checked data.
        stream: for progress.
        workers: who train together.

    Returns:
        The published version's folder; None from all processes but the chief, which publishes it.

    Raises:
        SettingsError: the chief has other settings, or data.
        WorkersError: another process of this training has failed.
        ResumeError: --resume, and the unfinished training had other settings.
        CheckpointError: --resume, and the unfinished training's checkpoints are damaged.
        AccuracyError: the model is worse than --min-accuracy; nothing was published.
        ExportError: it could not be written or verified; nothing was published.
        OSError: a checkpoint or the report could not be written.
    """
    folder = settings.folder / settings.name
    recipe = RECIPES[settings.architecture]
    identity: dict[str, Any] = {
        "architecture": settings.architecture,
        "data": dataset.digest,
        "epochs": settings.epochs,
        "seed": settings.seed,
        "batch_size": recipe.batch_size,
        "learning_rate": recipe.learning_rate,
    }
    if not workers.chief:
        _help(settings, dataset, stream, workers, identity)
        return None
    keeper, before = _unfinished(settings, folder, identity, stream)
    if settings.resume and (version := _published(folder, identity, before)) is not None:
        workers.told({"finished": True})
        workers.part()
        keeper.remove()
        publish.tidy(folder)
        _say(stream, "nothing to resume: this training is finished, and its version is published")
        return version
    if settings.resume and before is None:
        stream.write("nothing to resume: this is a new training\n")
    if identity["seed"] is None:
        identity["seed"] = before.identity["seed"] if before else secrets.randbelow(2**31)
    history = [] if before is None else before.history
    workers.told({"finished": False, "identity": identity, "history": history})
    training = _training(settings, dataset, identity, workers)
    if before is not None:
        stream.write(f"resuming after epoch {len(history)}\n")
        training.restore(before)
        training.share()
    with ExitStack() as stack:
        curves = None
        if settings.report is not None:
            folder = settings.report / "tensorboard" / f"{settings.name}-{keeper.run}"
            curves = stack.enter_context(Curves(folder, training.plain(), identity, done=len(history)))
        for number, epoch in _epochs(training, settings, stream):
            keeper.save(Checkpoint(identity, *training.state()))
            if curves is not None:
                curves.epoch(number, epoch)
        workers.part()
        path, result, card = _export(training, settings, dataset, {**identity, "run": keeper.run})
        keeper.remove()
        if settings.report is not None and curves is not None:
            page = _report(settings, Trained(path, training.history, result, dataset, card, None))
            curves.pictures(len(training.history), page.parent)
            stream.write(f"report    {page}\n")
        stream.writelines(f"{describe_format(each)}\n" for each in card["formats"].values())
    stream.write(f"exported  {path}: {result.correct} of {result.total} test images right ({result.accuracy:.2%})\n")
    stream.flush()
    return path


# --- private ---------------------------------------------------------------------------------------------------------


def _unfinished(
    settings: Settings, folder: Path, identity: Mapping[str, Any], stream: TextIO
) -> tuple[Keeper, Checkpoint | None]:
    """Return who keeps the checkpoints, and the one to go on from, if that was asked for and there is one."""
    if settings.resume:
        try:
            found = checkpoint.resume(folder, identity, lambda line: _say(stream, f"--resume: {line}"))
        except ResumeError:
            if _published(folder, identity, None) is None:
                raise
            found = None
        return found or (Keeper(folder), None)
    if checkpoint.exists(folder):
        _say(stream, "an unfinished training is replaced; --resume would have gone on with it")
    return Keeper(folder), None


def _published(folder: Path, identity: Mapping[str, Any], before: Checkpoint | None) -> Path | None:
    """Return the version that this training ended in; where nothing is left of it, one that such a training made.

    A trainer that is killed after it has published has a checkpoint still, so the manifest has the run's name.
    """

    def fits(manifest: Mapping[str, Any]) -> bool:
        training, data = manifest.get("training"), manifest.get("data")
        if not isinstance(training, dict) or not isinstance(data, dict):
            return False
        if before is not None:
            return bool(training.get("run") == before.run)
        made = {**training, "data": data.get("digest")}
        return all(made.get(key) == value for key, value in identity.items() if value is not None)

    return publish.find(folder, fits)


def _say(stream: TextIO, line: str) -> None:
    stream.write(f"{line}\n")
    stream.flush()


def _help(settings: Settings, dataset: Dataset, stream: TextIO, workers: Workers, identity: Mapping[str, Any]) -> None:
    """Train with the chief, which keeps what comes of it.

    Raises:
        SettingsError: the chief has other settings, or data.
        WorkersError: another process has failed.
    """
    told = workers.told(None)
    if told["finished"]:
        workers.part()
        _say(stream, "the chief has nothing to train")
        return
    if others := checkpoint.differing(told["identity"], identity):
        raise SettingsError(f"this worker has other settings or data than the chief: {others}")
    training = _training(settings, dataset, told["identity"], workers)
    if told["history"]:
        training.restore(Checkpoint(told["identity"], told["history"], training.state()[1]))
        training.share()
    for _ in _epochs(training, settings, stream):
        pass
    workers.part()
    _say(stream, "trained; the chief exports")


def _training(settings: Settings, dataset: Dataset, identity: Mapping[str, Any], workers: Workers) -> Training:
    with workers.together():  # they make its variables together
        return Training(
            lambda: build(settings.architecture, dataset.image_shape, dataset.classes),
            dataset,
            RECIPES[settings.architecture],
            epochs=settings.epochs,
            seed=identity["seed"],
            workers=workers,
        )


def _epochs(training: Training, settings: Settings, stream: TextIO) -> Iterator[tuple[int, Epoch]]:
    """Go through the epochs that are left; each is told when whoever iterates is done with it."""
    bar = Bar(stream, settings.epochs, done=len(training.history))
    for epoch in training.run(bar.show):
        number = len(training.history)
        yield number, epoch
        bar.finish(number, epoch)


def _report(settings: Settings, trained: Trained) -> Path:
    """Write the report, with explanations by the written files where they have them."""
    assert settings.report is not None
    if settings.explain is None:
        return report.write(settings.report, trained)
    with reload(trained.version) as answer:

        def explain(images: Any, classes: Any) -> Any:
            return answer({INPUT: images, TARGET: classes}, SIGNATURE)["attributions"]

        return report.write(settings.report, replace(trained, explain=explain))


def _export(
    training: Training, settings: Settings, dataset: Dataset, identity: Mapping[str, Any]
) -> tuple[Path, Evaluation, dict[str, Any]]:
    """Export the model; its evaluation runs through the written files, before they are published."""
    results: list[tuple[Evaluation, dict[str, Any]]] = []

    def describe(predict: Predict) -> dict[str, Any]:
        result = evaluation.evaluate(predict, dataset, INPUT)
        if result.accuracy < settings.min_accuracy:
            raise AccuracyError(
                f"the model gets {result.accuracy:.2%} of the test images right, less than --min-accuracy "
                f"{settings.min_accuracy:.2%}: nothing is exported"
            )
        card = {
            "data": {
                "source": dataset.source,
                "digest": dataset.digest,
                "train": len(dataset.y_train),
                "test": len(dataset.y_test),
                "classes": dataset.classes,
                **({"names": list(dataset.names)} if dataset.names is not None else {}),
                "image_shape": list(dataset.image_shape),
            },
            "evaluation": result.card(),
            "training": {
                **{key: value for key, value in identity.items() if key != "data"},
                "optimizer": "adam",
                "loss": "sparse_categorical_crossentropy",
                "seconds": sum(epoch.seconds for epoch in training.history),
            },
            "baseline": evaluation.baseline(result, dataset),
        }
        results.append((result, card))
        return card

    def judge(name: str, predict: Predict) -> dict[str, Any]:
        ((result, _),) = results
        found = evaluation.evaluate(predict, dataset, INPUT)
        lost = (result.accuracy - found.accuracy) * 100
        if lost > settings.max_accuracy_loss:
            raise AccuracyError(
                f"the format {name} gets {found.accuracy:.2%} of the test images right, the model "
                f"{result.accuracy:.2%}: more than --max-accuracy-loss {settings.max_accuracy_loss:g} points are lost, "
                "and nothing is exported"
            )
        return {"test": evaluation.compare(found, result)}

    path = export(
        training.plain(),
        settings.folder,
        name=settings.name,
        examples={INPUT: evaluation.spread(dataset)},
        dtypes={INPUT: "uint8"},
        divisors={INPUT: SCALE},
        classes_of=OUTPUT,
        explain=settings.explain is not None,
        baseline=settings.explain or "black",
        describe=describe,
        formats=settings.formats,
        quantize=settings.quantize,
        calibration={INPUT: dataset.x_train[:CALIBRATION_ROWS]} if settings.quantize == "int8" else None,
        describe_format=judge,
        labels=dataset.names,
    )
    ((result, card),) = results
    return path, result, {**card, "formats": publish.manifest(path)["formats"]}
