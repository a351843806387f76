"""From a folder on disk to a warm executor: load, prove, verify, and say what came of it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Any

from horngate_server.core.clock import Clock
from horngate_server.core.device import Device
from horngate_server.core.errors import ModelError
from horngate_server.core.inference import ModelInfo
from horngate_server.core.model import Array, LoadedModel, Model
from horngate_server.core.settings import TENSORFLOW, Limits, Settings
from horngate_server.core.signature import APART, PADDED, Batching
from horngate_server.engine.batch_queue import BatchQueue
from horngate_server.engine.batching import ladder
from horngate_server.engine.cost_model import CostModel
from horngate_server.engine.executor import Executor, Finish
from horngate_server.engine.routing import Servable
from horngate_server.lifecycle import engines, folder_hints, recorded_requests, repository
from horngate_server.lifecycle.batching_proof import Proof
from horngate_server.lifecycle.compute_threads import Threads
from horngate_server.lifecycle.engines import Choice
from horngate_server.lifecycle.folder_hints import GRAPH, KERAS, LITE
from horngate_server.lifecycle.model_places import Kind, recognised
from horngate_server.lifecycle.preparation import prepare
from horngate_server.lifecycle.repository import Version
from horngate_server.runtimes import process_memory, tensorflow
from horngate_server.runtimes.thread_priority import stand_back

DEAR = 10
"""A signature whose rows cost so many times the default one's is computed aside."""
ASIDE_SHARE = 4
"""What waits to be computed aside may have one part in so many of the bytes that may wait."""
LABELS = "assets.extra/labels.txt"
"""The classes' names by index, one a line, as Triton has them."""


@dataclass(frozen=True, slots=True)
class Rung:
    """What a batch size costs, warm: rows, milliseconds, rows a second."""

    rows: int
    ms: float
    rows_per_second: float


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What is known of a version once it is loaded.

    Attributes:
        name: the model's.
        version: its number.
        path: its folder.
        digest: SHA-256 of its manifest, or of its graph where there is none.
        signature: what it takes and returns.
        signatures: the others that it answers to, by name.
        device: "CPU" or "GPU".
        why: why there.
        verification: "verified (N rows)", or why it is not.
        seconds: what loading took, verification and warm-up included.
        memory_bytes: by how much the process's own memory grew meanwhile: its weights, graph and buffers, about;
            without the engines' libraries, which all versions share, and without a GPU's memory.
        max_batch_rows: rows that are computed together at most.
        rungs: what each batch size costs, at the size of free axes that was tried; empty where no input was found.
        batching: by signature, whether its requests share runs, and why.
        proved: the model was seen to answer before it takes traffic.
        engine: what computes the default signature: "tensorflow" or "litert".
        why_engine: why that one.
        engines: by signature, what computes it.
        threads: how many compute, and how many batches at once.
    """

    name: str
    version: int
    path: str
    digest: str
    signature: str
    signatures: Mapping[str, str]
    device: str
    why: str
    verification: str
    seconds: float
    memory_bytes: int
    max_batch_rows: int
    rungs: Sequence[Rung]
    batching: Mapping[str, Batching] = field(default_factory=dict)
    proved: bool = True
    engine: str = TENSORFLOW
    why_engine: str = ""
    engines: Mapping[str, str] = field(default_factory=dict)
    threads: Threads = field(default_factory=Threads)

    def json(self) -> dict[str, Any]:
        """Return it as what JSON can hold."""
        facts = asdict(self)
        facts["batching"] = {
            name: {"mode": each.mode, "why": each.why, "aside": each.aside, **_lengths(each)}
            for name, each in self.batching.items()
        }
        return facts

    def lines(self) -> list[str]:
        """Return it as lines to print."""
        return [
            f"model        {self.name} version {self.version}",
            f"path         {self.path}",
            f"digest       {self.digest}",
            f"signature    {self.signature}",
            *(f"             {name} {signature}" for name, signature in self.signatures.items()),
            f"engine       {self.engine} ({self.why_engine})",
            *(f"             {name}: {each}" for name, each in self.engines.items() if each != self.engine),
            f"device       {self.device} ({self.why})",
            f"threads      {self.threads}",
            f"verification {self.verification}",
            f"loaded in    {self.seconds:.2f} s",
            f"memory       {self.memory_bytes / 1e6:.0f} MB",
            *(f"batching     {name}: {each}" for name, each in self.batching.items()),
            f"batches      up to {self.max_batch_rows} rows",
            *(["             rows         ms       rows/s"] if self.rungs else []),
            *(f"             {each.rows:>4} {each.ms:>10.3f} {each.rows_per_second:>12,.0f}" for each in self.rungs),
        ]


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A version that is ready to serve.

    Attributes:
        version: as it is on disk.
        infos: per signature, name, version, signature and labels.
        model: what computes; the executor's own once that is started.
        executor: idle, not started.
        device: where it computes.
        limits: what it may take.
        report: what is known of it.
        along: the other engine's model of it, which is to compute along; None for none.
        recorded: requests that it recorded, for callers who ask.
    """

    version: Version
    infos: Mapping[str, ModelInfo]
    model: LoadedModel
    executor: Executor
    device: Device
    limits: Limits
    report: LoadReport
    along: LoadedModel | None = None
    recorded: Sequence[Mapping[str, Array]] = ()

    @property
    def info(self) -> ModelInfo:
        """The default signature's."""
        return self.executor.info

    def served(self) -> Servable:
        """Return it as the request path sees it."""
        return Servable(self.info, self.executor, self.infos, self.device.kind, self.report.engine, self.recorded)

    def close(self) -> None:
        """Give everything back; its executor has stopped, or was never started."""
        self.executor.close()
        if self.along is not None:
            self.along.close()


def load(
    path: Path,
    settings: Settings,
    limits: Limits,
    *,
    called: tuple[str, int] | None = None,
    finish: Finish,
    clock: Clock,
    on_death: Callable[[BaseException], None],
    beside: bool = False,
    alive: Callable[[], None] = lambda: None,
) -> Loaded:
    """Load one version, and let it prove itself.

    Args:
        path: its folder, or a lone ``.tflite`` file.
        settings: device, threads, how to verify.
        limits: what it may take.
        called: the model's name and the version's number, where the folders' names do not say them.
        finish: takes its executor's outcomes.
        clock: monotonic seconds.
        on_death: called should its executor's loop fail.
        beside: stand back behind those who serve meanwhile.
        alive: called at every step; what it raises ends the loading.

    Raises:
        ModelError: it is not whole, cannot be served, or does not reproduce its own recorded answers.
    """
    began = clock()
    with ThreadPoolExecutor(1, "loading", initializer=stand_back if beside else None) as thread:
        version = thread.submit(repository.read, path, alive, called=called).result()
        labels = _labels(path)
        thread.submit(engines.load_libraries, path, settings, limits).result()
        memory = process_memory.anonymous()
        prepared = prepare(version, settings, limits, thread, beside=beside, alive=alive)
    choice = prepared.choice
    model = choice.model
    proofs, second = _aside(choice)
    infos = {
        name: ModelInfo(
            version.name, str(version.number), model.signatures[name], labels, proof.batching, choice.engines[name]
        )
        for name, proof in proofs.items()
    }
    info = infos[model.signature.name]
    pad = model.device.kind != "CPU"  # on a CPU nothing is compiled or tuned for a shape: padding only costs

    def executor_of(
        computes: Model, mine: Iterable[Proof], capacity_bytes: int, aside: Executor | None = None, **options: Any
    ) -> Executor:
        costs = _costs(mine, limits, clock)
        queue = _queue(limits, capacity_bytes, costs)
        return Executor(
            info, computes, queue, costs, finish, clock=clock, on_death=on_death, pad=pad, aside=aside, **options
        )

    aside, share = None, limits.queue_bytes // ASIDE_SHARE
    if second is not None:
        dear = [proof for proof in proofs.values() if proof.batching.aside]
        aside = executor_of(second, dear, share, quick_s=0.0, begin=stand_back)
    more = [engines.second(model, info.signature.name) for _ in range(choice.threads.at_once - 1)]
    others = [each for each in more if each is not None]
    executor = executor_of(model, proofs.values(), limits.queue_bytes - (share if aside else 0), aside, others=others)
    report = LoadReport(
        name=version.name,
        version=version.number,
        path=str(path),
        digest=version.digest,
        signature=str(model.signature),
        signatures={name: str(each.signature) for name, each in infos.items() if each is not info},
        device=model.device.kind,
        why=model.device.why,
        engine=choice.engines[info.signature.name],
        why_engine=choice.why,
        engines=choice.engines,
        threads=choice.threads,
        verification=choice.verification,
        seconds=clock() - began,
        memory_bytes=max(0, process_memory.anonymous() - memory),
        max_batch_rows=1 if info.batching.whole else min(info.batching.max_rows, limits.max_batch_rows),
        rungs=[
            Rung(rows, seconds * 1e3, rows / seconds)
            for rows, seconds in proofs[info.signature.name].seconds.items()
            if seconds
        ],
        batching={name: proof.batching for name, proof in proofs.items()},
        proved=proofs[info.signature.name].proved,
    )
    recorded = recorded_requests.sample(prepared.recorded, model.signature, rows=not info.batching.whole)
    return Loaded(version, infos, model, executor, model.device, limits, report, prepared.along, recorded)


def inspect(path: Path, settings: Settings, limits: Callable[[str], Limits] | None = None) -> LoadReport:
    """Load a version, or a model's newest one, and close it again.

    Args:
        path: the version's folder, or the model's; or a SavedModel or a ``.tflite`` file, wherever it lies.
        settings: device, threads, how to verify.
        limits: what a model of this name may take; as the settings say where it is left out.

    Raises:
        ModelError: it would not be served; the message says why.
    """
    for library in settings.op_library:
        tensorflow.load_op_library(library)
    path, called = _inspected(path.absolute())
    mine = settings.limits if limits is None else limits(called[0] if called else path.parent.name)
    try:
        loaded = load(
            path, settings, mine, called=called, finish=lambda *_: None, clock=monotonic, on_death=lambda _: None
        )
    except ModelError as error:
        if hint := folder_hints.about_variables(path):
            raise ModelError(f"{error}; {hint}") from error
        raise
    loaded.close()
    return loaded.report


# --- private ------------------------------------------------------------------------------------------


def _inspected(path: Path) -> tuple[Path, tuple[str, int] | None]:
    """Return the version at a path, or a model's newest one, and what it is called where its folders do not say it.

    Raises:
        ModelError: there is none.
    """
    if path.name.isdecimal():
        return path, None
    with suppress(OSError):
        place = recognised(path)
        if place is not None and place.kind is Kind.VERSION:
            return path, (place.name, place.number)
    versions = repository.versions(path)
    if not versions:
        hint = folder_hints.about_file(path) if path.suffix in KERAS else folder_hints.about_model(path)
        hint = hint or f"expected <model>/<integer version>/{GRAPH} or {LITE}"
        raise ModelError(f"{repository.shown(path)} is no version and has none: {hint}")
    return versions[max(versions)], None


def _lengths(batching: Batching) -> dict[str, Any]:
    """Say how requests of different lengths are computed; nothing where there are none."""
    if not batching.lengths:
        return {}
    padding = batching.padding
    facts = {"longest": padding.longest, "values": padding.values} if padding else {}
    return {"lengths": {"mode": PADDED if padding else APART, "why": batching.lengths, **facts}}


def _aside(choice: Choice) -> tuple[Mapping[str, Proof], Model | None]:
    """Say which signatures are computed aside, and by what: those of dear rows, which would hold up the default ones.

    Where nothing can compute two signatures at once, none are.
    """
    default = choice.proofs[choice.model.signature.name].row_seconds
    dear = {
        name
        for name, proof in choice.proofs.items()
        if choice.engines[name] == TENSORFLOW and proof.row_seconds > DEAR * default > 0
    }
    second = engines.second(choice.model, min(dear)) if dear else None
    if second is None:
        return choice.proofs, None
    return {
        name: replace(proof, batching=replace(proof.batching, aside=name in dear))
        for name, proof in choice.proofs.items()
    }, second


def _queue(limits: Limits, capacity_bytes: int, costs: CostModel) -> BatchQueue:
    return BatchQueue(
        capacity_rows=limits.queue_rows,
        max_batch_rows=limits.max_batch_rows,
        delay_s=limits.max_queue_delay_s,
        capacity_bytes=capacity_bytes,
        turn=costs.turn,
    )


def _costs(proofs: Iterable[Proof], limits: Limits, clock: Clock) -> CostModel:
    costs = CostModel(ladder(limits.max_batch_rows))
    for proof in proofs:
        for rows, seconds in proof.seconds.items():
            costs.measured(proof.kind, rows, seconds, clock())
    return costs


def _labels(path: Path) -> Sequence[str]:
    """Read the classes' names, one a line; none where there is no such file.

    Raises:
        ModelError: it is not text.
    """
    try:
        return tuple((path / LABELS).read_text(encoding="utf-8").splitlines())
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path / LABELS} cannot be read: {error}") from error
