"""Open a version's model and let it prove itself: what it answers, what may share a run, how large a run may be."""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic, thread_time

from horngate_protos.control_groups import cores
from horngate_server.core.errors import ModelError
from horngate_server.core.model import Array, Feed, LoadedModel, Model
from horngate_server.core.settings import AUTO, LENGTHS, Limits, Settings
from horngate_server.core.signature import ROWS, WHOLE, Batching, Signature
from horngate_server.lifecycle import engines, repository
from horngate_server.lifecycle.batching_proof import Bench, Proof, prove, usual_request
from horngate_server.lifecycle.compute_threads import Threads, seconds_of
from horngate_server.lifecycle.engines import Choice, Tried
from horngate_server.lifecycle.probe_inputs import Rows
from horngate_server.lifecycle.repository import Version
from horngate_server.lifecycle.thread_trials import best_opened
from horngate_server.lifecycle.verification import Record, Records, is_float32, records, verify
from horngate_server.runtimes import process_memory

log = logging.getLogger(__name__)

OTHERS_SHARE = 5
"""Batches of other signatures than the default one may take one part in so many of --target-batch-time."""


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A model that has proved itself.

    Attributes:
        choice: what serves, signature by signature.
        along: the other engine's model of the same version, which is to compute along; None for none.
        recorded: the requests of its default signature that the version has.
    """

    choice: Choice
    along: LoadedModel | None = None
    recorded: Sequence[Record] = ()


def prepare(
    version: Version,
    settings: Settings,
    limits: Limits,
    aside: ThreadPoolExecutor,
    *,
    beside: bool = False,
    alive: Callable[[], None] = lambda: None,
) -> Prepared:
    """Open a version's model, let it prove itself, and choose its engine where there are two.

    Args:
        version: what to open.
        settings: device, threads, how to verify.
        limits: how large and long runs may be.
        aside: the one thread that may stand back behind those who serve.
        beside: it does.
        alive: called at every step; what it raises ends the preparing.

    Raises:
        ModelError: it cannot be loaded, fails, or does not reproduce its own recorded answers.
    """
    preparation = _Preparation(version, settings, limits, aside, beside, alive)
    first, *others = engines.candidates(version.path, settings, limits)
    if not others:
        choice = engines.only(preparation.tried(first), _why_only(version, settings, limits))
    else:
        choice = _chosen(preparation, first, others[0])
    try:
        along = preparation.along(choice)
    except BaseException:
        choice.model.close()
        raise
    process_memory.trim()
    return Prepared(choice, along, preparation.recorded)


# --- private ------------------------------------------------------------------------------------------


class _Preparation:
    """One version's, whichever engines are tried for it."""

    def __init__(  # noqa: PLR0917 - as `prepare`
        self,
        version: Version,
        settings: Settings,
        limits: Limits,
        aside: ThreadPoolExecutor,
        beside: bool,
        alive: Callable[[], None],
    ) -> None:
        self.version = version
        self._settings = settings
        self._limits = limits
        self._aside = aside
        self._beside = beside
        self._alive = alive
        self._asked, self._lengths = _asked(version, limits), _lengths(version, limits)
        self._few = settings.compute_threads or max(1, cores() - 1)
        self.recorded: Sequence[Record] = ()

    def tried(self, engine: str) -> Tried:
        """Open the version with one engine and let it prove itself; close it again where a fresh one serves better.

        Raises:
            ModelError: it cannot be loaded, fails, or does not reproduce the recorded answers.
        """
        mode = self._settings.verify
        threads = Threads(self._few, why="asked for" if self._settings.compute_threads else "every core")
        model = self._opened(engine, threads.each)
        try:
            recorded, unread = _recorded(self.version, model, mode)
            self.recorded = recorded.get(model.signature.name, ())
            if self._few < cores() and not self._settings.compute_threads:
                model, threads = self._threaded(engine, model, recorded)
            watched = _Watched(model, self._alive)
            proofs = self._aside.submit(_prove, watched, recorded, partial(self._bench, model)).result()
            batchings = {name: proof.batching for name, proof in proofs.items()}
            verification = (
                unread or self._aside.submit(_verify, self.version, watched, recorded, batchings, mode, engine).result()
            )
            if any(model.signatures[name].writes for name in proofs):
                model.close()  # what it remembers begins with the first caller
                model = self._opened(engine, threads.each)
        except BaseException:
            model.close()
            raise
        return Tried(engine, model, proofs, verification, float32=is_float32(self.version, engine), threads=threads)

    def along(self, choice: Choice) -> LoadedModel | None:
        """Open the version with the engine that is to compute along; None where there is none, or it cannot."""
        engine, why = self._limits.shadow_engine, "that engine serves"
        if not engine:
            return None
        if engine not in choice.engines.values():
            try:
                return self._opened(engines.checked(engine, self.version.path), 1)
            except ModelError as error:
                why = str(error)
        name, number = self.version.name, self.version.number
        log.warning("model %s version %d: shadow = { engine = %r } computes nothing: %s", name, number, engine, why)
        return None

    def _opened(self, engine: str, threads: int) -> LoadedModel:
        def load() -> LoadedModel:
            self._alive()
            return engines.load(
                engine, self.version.path, device=self._settings.device, threads=threads, limits=self._limits
            )

        # threads that it starts inherit the priority of the one that opens it
        return self._aside.submit(load).result() if threads == 1 else load()

    def _bench(self, model: LoadedModel, signature: Signature) -> Bench:
        # beside those who serve, a thread waits for its turns: what it computes for counts, where it computes alone
        clock = thread_time if self._beside and self._few == 1 and model.device.kind == "CPU" else monotonic
        asked, limits = self._asked.get(signature.name, self._asked[""]), self._limits
        if signature is not model.signature:  # the default one's callers wait for it, or share the processor with it
            limits = replace(limits, target_batch_s=limits.target_batch_s / OTHERS_SHARE)
        return Bench(limits, clock, asked, self._lengths, gpu=model.device.kind != "CPU")

    def _threaded(self, engine: str, model: LoadedModel, recorded: Records) -> tuple[LoadedModel, Threads]:
        """Find out with how many threads a model computes best, and how many batches at once; return it opened so.

        Args:
            engine: its.
            model: opened with few threads; closed where another is returned.
            recorded: requests that it should take.
        """
        signature = model.signature
        recorded_rows = [each.inputs for each in recorded.get(signature.name, ())]

        def usual() -> tuple[Rows | None, float]:
            watched, bench = _Watched(model, self._alive), self._bench(model, signature)
            request = usual_request(watched, signature, recorded_rows, bench)
            return request, 0.0 if request is None else seconds_of(watched, signature, request, bench.clock)

        request, took = self._aside.submit(usual).result()
        return best_opened(model, request, took, few=self._few, reopen=partial(self._opened, engine), aside=self._aside)


def _chosen(preparation: _Preparation, first: str, second: str) -> Choice:
    """Try both engines, and choose: TensorFlow's file must be right; LiteRT's is left where it is not, or slower.

    Raises:
        ModelError: TensorFlow cannot serve the version, or it disagrees with its recorded answers.
    """
    version = preparation.version
    full = preparation.tried(first)
    if full.model.device.kind != "CPU":
        return engines.only(full, "the GPU")
    try:
        lite = preparation.tried(second)
    except ModelError as error:
        log.info("model %s version %d: not by %s: %s", version.name, version.number, engines.TITLES[second], error)
        return engines.only(full, f"{engines.TITLES[second]}: {error}")
    except BaseException:
        full.model.close()
        raise
    return engines.choose(full, lite)


def _why_only(version: Version, settings: Settings, limits: Limits) -> str:
    """Say why only one engine was tried."""
    if limits.engine != AUTO:
        return "asked for"
    there = [engine for engine in repository.FILES if repository.file_of(version.path, engine).is_file()]
    if len(there) == 1:
        return f"it has only {repository.FILES[there[0]]}"
    missing = [engine for engine in there if not engines.is_installed(engine)]
    if missing:
        return f"{engines.TITLES[missing[0]]} is not installed"
    if limits.shadow_engine:
        return f"{engines.TITLES[limits.shadow_engine]} computes along"
    return "--device gpu" if settings.device == "gpu" else "tags are TensorFlow's"


class _Watched:
    """A model that gives a sign of life before each run."""

    def __init__(self, model: Model, alive: Callable[[], None]) -> None:
        self.signature, self.signatures = model.signature, model.signatures
        self.feed, self.close = model.feed, model.close
        self._run, self._alive = model.run, alive

    def run(self, feed: Feed) -> Sequence[Array]:
        """Compute (`Model.run`); raise what the sign of life does."""
        self._alive()
        return self._run(feed)


def _asked(version: Version, limits: Limits) -> Mapping[str, str]:
    """Return how the operator, or else the model's maker, wants signatures batched, by name; "" for all others.

    Raises:
        ModelError: the manifest says what is no way.
    """
    manifest = version.manifest or {}
    made = {"": manifest.get("batching", "auto")}
    match manifest.get("explanation"):
        case {"signature": str(name), "batching": batching}:
            made[name] = batching
    for way in made.values():
        if way not in ("auto", ROWS, WHOLE):
            raise ModelError(
                f"{version.path / repository.MANIFEST} has batching {way!r}; expected auto, {ROWS} or {WHOLE}"
            )
    return {"": limits.batching} if limits.batching != "auto" else made


def _lengths(version: Version, limits: Limits) -> str:
    """Return how the operator, or else the model's maker, wants requests of different lengths.

    Raises:
        ModelError: the manifest says what is no way.
    """
    if limits.lengths != AUTO:
        return limits.lengths
    made = (version.manifest or {}).get("lengths", AUTO)
    if made not in LENGTHS:
        raise ModelError(
            f"{version.path / repository.MANIFEST} has lengths {made!r}; expected one of {', '.join(LENGTHS)}"
        )
    return str(made)


def _prove(model: Model, recorded: Records, bench: Callable[[Signature], Bench]) -> Mapping[str, Proof]:
    """Prove every signature; equal ones once. One that fails is not served, unless it is the default one.

    Raises:
        ModelError: the default one fails.
    """
    proofs: dict[str, Proof] = {}
    for name, signature in sorted(model.signatures.items(), key=lambda item: item[1] is not model.signature):
        if signature.function in proofs:
            proofs[name] = proofs[signature.function]
            continue
        try:
            proofs[name] = prove(model, signature, [each.inputs for each in recorded.get(name, ())], bench(signature))
        except ModelError as error:
            if signature is model.signature:
                raise
            log.warning("not served: %s", error)
    return proofs


def _recorded(version: Version, model: Model, mode: str) -> tuple[Records, str]:
    """Read the recorded requests; none, and why, where they cannot be read and that does not matter."""
    try:
        return records(version, model), ""
    except ModelError as error:
        if mode == "strict":
            raise
        return {}, "" if mode == "off" else _failed(version, error)


def _failed(version: Version, error: ModelError) -> str:
    log.warning("model %s version %d serves though %s (--verify warn)", version.name, version.number, error)
    return f"failed: {error}"


def _verify(  # noqa: PLR0917 - what one verification needs
    version: Version, model: Model, recorded: Records, batchings: Mapping[str, Batching], mode: str, engine: str
) -> str:
    """Let the model reproduce its recorded answers; return what the metadata says about that."""
    if mode == "off":
        return "unverified: --verify off"
    try:
        return verify(version, model, recorded, batchings, engine)
    except ModelError as error:
        if mode == "strict":
            raise
        return _failed(version, error)
