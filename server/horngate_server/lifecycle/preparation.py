"""Open a version's model and let it prove itself: what it answers, what may share a run, how large a run may be."""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic, thread_time

from horngate_server.core.device import Device
from horngate_server.core.errors import ModelError
from horngate_server.core.model import Array, Feed, Model
from horngate_server.core.settings import Limits, Settings, cores
from horngate_server.core.signature import ROWS, WHOLE, Batching
from horngate_server.lifecycle import repository
from horngate_server.lifecycle.batching_proof import Bench, Proof, prove, seconds_of_one
from horngate_server.lifecycle.repository import Version
from horngate_server.lifecycle.verification import Records, records, verify
from horngate_server.runtimes import process_memory, tensorflow

log = logging.getLogger(__name__)

LARGE_S = 0.005
"""A model that computes longer for one request gets every core, also the one that takes requests in."""


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A model that has proved itself: by signature, what is known of it."""

    model: Model
    device: Device
    proofs: Mapping[str, Proof]
    verification: str


def prepare(
    version: Version,
    settings: Settings,
    limits: Limits,
    aside: ThreadPoolExecutor,
    *,
    beside: bool = False,
    alive: Callable[[], None] = lambda: None,
) -> Prepared:
    """Open a version's model, let it prove itself, and close it again where a fresh one serves better.

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
    few = settings.compute_threads or max(1, cores() - 1)
    asked = _asked(version, limits)

    def opened(threads: int) -> tensorflow.SavedModel:
        def load() -> tensorflow.SavedModel:
            alive()
            return tensorflow.load(
                version.path, device=settings.device, threads=threads, tags=limits.tags, signature=limits.signature
            )

        # threads that it starts inherit the priority of the one that opens it
        return aside.submit(load).result() if threads == 1 else load()

    def bench(model: tensorflow.SavedModel) -> Bench:
        # beside those who serve, a thread waits for its turns: what it computes for counts, where it computes alone
        clock = thread_time if beside and few == 1 and model.device.kind == "CPU" else monotonic
        return Bench(limits, clock, asked, gpu=model.device.kind != "CPU")

    def proved(model: tensorflow.SavedModel) -> Mapping[str, Proof]:
        return aside.submit(_prove, _Watched(model, alive), recorded, bench(model)).result()

    def measured(model: tensorflow.SavedModel) -> float:
        requests = [each.inputs for each in recorded.get(model.signature.name, ())]
        return aside.submit(seconds_of_one, _Watched(model, alive), model.signature, requests, bench(model)).result()

    model = opened(few)
    try:
        recorded, unread = _recorded(version, model, settings.verify)
        if not settings.compute_threads and few < cores() and measured(model) > LARGE_S:
            few = cores()
            model.close()
            model = opened(few)
        proofs = proved(model)
        batchings = {name: proof.batching for name, proof in proofs.items()}
        watched = _Watched(model, alive)
        verification = unread or aside.submit(_verify, version, watched, recorded, batchings, settings.verify).result()
        if any(model.signatures[name].writes for name in proofs):
            model.close()  # what it remembers begins with the first caller
            model = opened(few)
    except BaseException:
        model.close()
        raise
    process_memory.trim()
    return Prepared(model, model.device, proofs, verification)


# --- private ------------------------------------------------------------------------------------------


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


def _asked(version: Version, limits: Limits) -> str:
    """Return how the operator, or else the model's maker, wants it batched.

    Raises:
        ModelError: the manifest says what is no way.
    """
    made = (version.manifest or {}).get("batching", "auto")
    if made not in ("auto", ROWS, WHOLE):
        raise ModelError(
            f"{version.path / repository.MANIFEST} has batching {made!r}; expected auto, {ROWS} or {WHOLE}"
        )
    return limits.batching if limits.batching != "auto" else str(made)


def _prove(model: Model, recorded: Records, bench: Bench) -> Mapping[str, Proof]:
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
            proofs[name] = prove(model, signature, [each.inputs for each in recorded.get(name, ())], bench)
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


def _verify(version: Version, model: Model, recorded: Records, batchings: Mapping[str, Batching], mode: str) -> str:
    """Let the model reproduce its recorded answers; return what the metadata says about that."""
    if mode == "off":
        return "unverified: --verify off"
    try:
        return verify(version, model, recorded, batchings)
    except ModelError as error:
        if mode == "strict":
            raise
        return _failed(version, error)
