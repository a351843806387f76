"""From a folder on disk to a warm executor: load, verify, run every batch size once."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from horngate_server import golden, repository, runtime
from horngate_server.batch import ladder
from horngate_server.costs import Costs
from horngate_server.errors import HorngateError, ModelError, ModelFailed
from horngate_server.executor import Clock, Executor, Finish
from horngate_server.model import Model
from horngate_server.queue import Line
from horngate_server.request import ModelInfo
from horngate_server.settings import Settings, cores
from horngate_server.signature import FREE

log = logging.getLogger(__name__)

WARM_RUNS = 2
"""The first run of a size compiles and allocates; the last one is its cost."""


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A version that is ready to serve.

    Attributes:
        info: name, version, signature.
        executor: started, idle.
        device: where it computes.
        digest: of its manifest or graph.
        verification: "verified", or why it is not.
        seconds: what loading took.
    """

    info: ModelInfo
    executor: Executor
    device: runtime.Device
    digest: str
    verification: str
    seconds: float


def load_latest(
    name: str,
    paths: Sequence[Path],
    settings: Settings,
    *,
    finish: Finish,
    clock: Clock,
    on_death: Callable[[BaseException], None],
) -> Loaded:
    """Load the newest version that can be served; older ones are tried when a newer one is broken.

    Raises:
        ModelError: none can be, with the newest one's reason.
    """
    first: HorngateError | None = None
    for path in paths:
        try:
            return _load(path, settings, finish=finish, clock=clock, on_death=on_death)
        except (ModelError, ModelFailed) as error:
            log.error("model %s version %s is refused: %s", name, path.name, error)
            first = first or error
    raise ModelError(f"model {name}: no version can be served: {first}") from first


# --- private ------------------------------------------------------------------------------------------


def _load(
    path: Path, settings: Settings, *, finish: Finish, clock: Clock, on_death: Callable[[BaseException], None]
) -> Loaded:
    began = clock()
    version = repository.read(path)
    model = runtime.load(path, device=settings.device, threads=settings.compute_threads or max(1, cores() - 1))
    try:
        costs = Costs(ladder(settings.max_batch_rows))
        _warm(model, costs, clock)
        verification = _verify(version, model, costs, settings.verify)
    except BaseException:
        model.close()
        raise
    info = ModelInfo(version.name, str(version.number), model.signature)
    line = Line(
        capacity_rows=settings.queue_rows,
        max_batch_rows=settings.max_batch_rows,
        delay_s=settings.max_queue_delay_s,
    )
    pad = model.device.kind != "CPU"  # on a CPU nothing is compiled or tuned for a shape: padding only costs
    executor = Executor(info, model, line, costs, finish, clock=clock, on_death=on_death, pad=pad)
    return Loaded(info, executor, model.device, version.digest, verification, clock() - began)


def _warm(model: Model, costs: Costs, clock: Clock) -> None:
    """Run every batch size; inputs with free axes cannot be guessed, and warm up under traffic."""
    if any(FREE in spec.shape[1:] for spec in model.signature.inputs):
        log.info("inputs with axes of any length are not warmed up: %s", model.signature)
        return
    for rung in costs.rungs:
        for _ in range(WARM_RUNS):
            feed = model.feed([(rung, *spec.shape[1:]) for spec in model.signature.inputs])
            for array in feed.arrays:
                array.reshape(-1).view(np.uint8)[:] = 0
            began = clock()
            model.run(feed)
            seconds = clock() - began
        costs.measured(rung, seconds)


def _verify(version: repository.Version, model: Model, costs: Costs, mode: str) -> str:
    """Let the model reproduce its recorded answers; return what the metadata says about that."""
    if mode == "off":
        return "unverified: --verify off"
    try:
        return golden.verify(version, model, costs.rungs)
    except ModelError as error:
        if mode == "strict":
            raise
        log.warning("model %s version %d serves though %s (--verify warn)", version.name, version.number, error)
        return f"failed: {error}"
