"""The engines that can compute a version: which of them are tried, and which of them then serves each signature."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import exp, log
from pathlib import Path

from horngate_server.core.device import Device
from horngate_server.core.errors import DeviceUnavailable, ModelError
from horngate_server.core.model import Array, Feed, LoadedModel, Model
from horngate_server.core.settings import AUTO, LITERT, TENSORFLOW, Limits, Settings
from horngate_server.core.signature import Signature
from horngate_server.lifecycle.batching_proof import Proof
from horngate_server.lifecycle.compute_threads import Threads
from horngate_server.lifecycle.repository import FILES, file_of
from horngate_server.lifecycle.verification import VERIFIED
from horngate_server.runtimes import litert, tensorflow

TITLES = {TENSORFLOW: "TensorFlow", LITERT: "LiteRT"}
EXTRAS = {TENSORFLOW: "horngate[server]", LITERT: "horngate[lite]"}
"""What has to be installed for each."""
SLOWER = 1.2
"""LiteRT serves a signature where it is at least as fast on average, and no batch size takes so many times as long."""


@dataclass(frozen=True, slots=True, eq=False)
class Tried:
    """What one engine has shown of a version.

    Attributes:
        engine: its name.
        model: opened; whoever takes it closes it.
        proofs: by signature, what is known of it.
        verification: "verified (N rows)", or why it is not.
        float32: it computes what the version's recorded answers were computed with: nothing was quantized.
        threads: how it computes.
    """

    engine: str
    model: LoadedModel
    proofs: Mapping[str, Proof]
    verification: str
    float32: bool = True
    threads: Threads = field(default_factory=Threads)

    @property
    def is_verified(self) -> bool:
        """Whether it has reproduced recorded answers."""
        return self.verification.startswith(VERIFIED)


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """What serves a version.

    Attributes:
        model: every signature, each computed by the engine that was chosen for it.
        engines: by signature, the engine's name.
        why: why it is the default signature's.
        proofs: by signature.
        verification: of the default signature's engine.
        threads: of that engine too.
    """

    model: LoadedModel
    engines: Mapping[str, str]
    why: str
    proofs: Mapping[str, Proof]
    verification: str
    threads: Threads = field(default_factory=Threads)


class CombinedModel:
    """Two engines' models as one: each signature is computed by the engine that was chosen for it.

    Args:
        default: the signature for callers who name none.
        by_signature: the model that computes each.
    """

    def __init__(self, default: str, by_signature: Mapping[str, LoadedModel]) -> None:
        self.signatures = {name: model.signatures[name] for name, model in by_signature.items()}
        self.signature = self.signatures[default]
        self.device: Device = by_signature[default].device
        self._by_signature = by_signature

    def feed(self, signature: Signature, shapes: Sequence[tuple[int, ...]]) -> Feed:
        """Return memory for one run (`Model.feed`)."""
        return self._by_signature[signature.name].feed(signature, shapes)

    def run(self, feed: Feed) -> Sequence[Array]:
        """Compute (`Model.run`)."""
        return self._by_signature[feed.signature.name].run(feed)

    def of(self, signature: str) -> LoadedModel:
        """Return the model that computes a signature."""
        return self._by_signature[signature]

    def close(self) -> None:
        """Close both."""
        for model in set(self._by_signature.values()):
            model.close()


def candidates(path: Path, settings: Settings, limits: Limits) -> Sequence[str]:
    """Return the engines that may compute a version, in the order in which they are tried.

    Raises:
        ModelError: none can; what was expected and what there is.
        DeviceUnavailable: a GPU is asked for, and only LiteRT has a file.
    """
    there = [engine for engine in FILES if file_of(path, engine).is_file()]
    here = [engine for engine in there if is_installed(engine)]
    if limits.engine != AUTO:
        return [checked(limits.engine, path)]
    if not here:
        raise ModelError(_not_installed(there[0]))
    if settings.device == "gpu" and TENSORFLOW not in here:
        raise DeviceUnavailable(f"--device gpu: {path} has only {FILES[LITERT]}, and LiteRT computes on the CPU")
    if TENSORFLOW in here and (settings.device == "gpu" or limits.tags):
        return [TENSORFLOW]
    return [engine for engine in here if engine != limits.shadow_engine] or here


def checked(engine: str, path: Path) -> str:
    """Return an engine that was asked for by name.

    Raises:
        ModelError: the version has no file for it, or it is not installed.
    """
    if not file_of(path, engine).is_file():
        raise ModelError(f"engine {engine}: it has no {FILES[engine]}; horngate_trainer.export writes both kinds")
    if not is_installed(engine):
        raise ModelError(_not_installed(engine))
    return engine


def is_installed(engine: str) -> bool:
    """Whether an engine can be used here."""
    return bool(litert.available() if engine == LITERT else tensorflow.available())


def load_libraries(path: Path, settings: Settings, limits: Limits) -> None:
    """Load what the engines need that may compute a version: that memory is the process's, not the version's.

    Raises:
        ModelError: no engine can compute it.
        DeviceUnavailable: as `candidates`.
    """
    for engine in candidates(path, settings, limits):
        if engine == LITERT:
            litert.library()
        else:
            tensorflow.load_library()


def load(engine: str, path: Path, *, device: str, threads: int, limits: Limits) -> LoadedModel:
    """Open a version with one engine.

    Raises:
        ModelError: it cannot be served, with the reason.
        DeviceUnavailable: ``device`` is "gpu" and there is none for this engine.
    """
    if engine == LITERT:
        return litert.load(path, device=device, threads=threads, signature=limits.signature)
    return tensorflow.load(path, device=device, threads=threads, tags=limits.tags, signature=limits.signature)


def second(model: LoadedModel, signature: str) -> Model | None:
    """Return what may compute a signature while the model computes others; None where its engine cannot do both."""
    mine = model.of(signature) if isinstance(model, CombinedModel) else model
    return mine.second() if isinstance(mine, tensorflow.SavedModel) else None


def only(tried: Tried, why: str) -> Choice:
    """Let one engine serve everything that it can."""
    engine_of = dict.fromkeys(tried.proofs, tried.engine)
    return Choice(tried.model, engine_of, why, tried.proofs, tried.verification, tried.threads)


def choose(full: Tried, lite: Tried) -> Choice:
    """Let LiteRT serve each signature that it computes as TensorFlow does, and no slower; close what serves nothing.

    Args:
        full: TensorFlow's.
        lite: LiteRT's.
    """
    refused = {name: _why_not(full, lite, name) for name in full.proofs}
    default = full.model.signature.name
    chosen = {name: full if why else lite for name, why in refused.items()}
    for each in (full, lite):
        if each not in chosen.values():
            each.model.close()
    why = refused[default] or f"{_ratio(full, lite, default):.2f} of TensorFlow's time, and the recorded answers"
    serving = list({id(each): each for each in chosen.values()}.values())
    model = (
        serving[0].model
        if len(serving) == 1
        else CombinedModel(default, {name: each.model for name, each in chosen.items()})
    )
    return Choice(
        model,
        {name: each.engine for name, each in chosen.items()},
        why,
        {name: each.proofs[name] for name, each in chosen.items()},
        chosen[default].verification,
        chosen[default].threads if len(serving) == 1 else replace(chosen[default].threads, at_once=1),
    )


# --- private ------------------------------------------------------------------------------------------


def _not_installed(engine: str) -> str:
    return f"its {FILES[engine]} needs {TITLES[engine]}, which is not installed: pip install '{EXTRAS[engine]}'"


def _why_not(full: Tried, lite: Tried, name: str) -> str:
    """Say why LiteRT does not serve a signature; empty if it does."""
    if name not in lite.proofs:
        return f"LiteRT's file has no signature {name}"
    if not lite.model.signatures[name].stands_in_for(full.model.signatures[name]):
        return f"LiteRT's signature {name} is {lite.model.signatures[name]}"
    if not lite.is_verified:
        return f"LiteRT is {lite.verification}"
    if not lite.float32:
        return "its LiteRT file is quantized, which has to be asked for"
    before, after = full.proofs[name], lite.proofs[name]
    if not after.proved or after.batching.mode != before.batching.mode:
        return f"batching by LiteRT: {after.batching}"
    return _slower(full, lite, name)


def _slower(full: Tried, lite: Tried, name: str) -> str:
    """Say how much slower LiteRT is; empty if it is not."""
    ratio, worst = _ratio(full, lite, name), max(_ratios(full, lite, name), default=1.0)
    return f"LiteRT takes {ratio:.2f} of TensorFlow's time, {worst:.2f} at worst" if ratio > 1 or worst > SLOWER else ""


def _ratios(full: Tried, lite: Tried, name: str) -> Sequence[float]:
    """Return LiteRT's time divided by TensorFlow's, for every batch size that both have tried."""
    before, after = full.proofs[name].seconds, lite.proofs[name].seconds
    return [after[rows] / before[rows] for rows in before if rows in after and before[rows] and after[rows]]


def _ratio(full: Tried, lite: Tried, name: str) -> float:
    """Return their geometric mean; 1 where there are none."""
    ratios = _ratios(full, lite, name)
    return exp(sum(map(log, ratios)) / len(ratios)) if ratios else 1.0
