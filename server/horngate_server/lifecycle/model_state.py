"""One model's versions as the lifecycle knows them: what is on disk, what is wanted, what is loaded, who answers.

Changed by the lifecycle's thread alone; `ModelState.states` may be called from any.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from horngate_server.core.clock import Clock
from horngate_server.core.inference import ModelInfo
from horngate_server.core.model import LoadedModel
from horngate_server.core.observer_guard import ObserverGuard
from horngate_server.core.signature import Signature
from horngate_server.engine.batch_runner import BatchReport, Outcome
from horngate_server.engine.executor import Finish
from horngate_server.engine.routing import Servable
from horngate_server.lifecycle import repository, version_policy
from horngate_server.lifecycle.drift import Baseline, Drift
from horngate_server.lifecycle.load_attempt import LoadAttempt
from horngate_server.lifecycle.loader import Loaded
from horngate_server.lifecycle.model_config import ModelConfig
from horngate_server.lifecycle.repository import Fingerprint
from horngate_server.lifecycle.shadow import Shadow
from horngate_server.lifecycle.version_state import State, VersionState

log = logging.getLogger(__name__)

KEPT_ENDED = 8
"""Versions of a model that are remembered after they have left."""


class Observers:
    """What else looks at a version's batches, after their callers were answered.

    Args:
        finish: answers.
        guard: takes what goes wrong with a look.
    """

    def __init__(self, finish: Finish, guard: ObserverGuard) -> None:
        self._finish = finish
        self._guard = guard
        self.drift: Drift | None = None
        self.shadow: Shadow | None = None

    def finish(self, info: ModelInfo, outcomes: Sequence[Outcome], report: BatchReport | None) -> None:
        """Answer, then look (`executor.Finish`)."""
        self._finish(info, outcomes, report)
        if report is None or (report.info is not info and not _is_same(report.info.signature, info.signature)):
            return  # another signature's rows are not what they know
        if (drift := self.drift) is not None:
            try:
                drift.see(report)
            except Exception as error:  # noqa: BLE001 - whatever it is, it must not cost an answer
                self._guard.failed("drift", error)
        if (shadow := self.shadow) is not None:
            try:
                shadow.offer(report)
            except Exception as error:  # noqa: BLE001 - whatever it is, it must not cost an answer
                self._guard.failed("shadow", error)


@dataclass(slots=True, eq=False)
class ModelVersion:
    """One version, from its first being seen until it is forgotten. Changed by the lifecycle's thread.

    Attributes:
        number: its number.
        path: its folder.
        on_disk: whether its folder was there at the last look.
        seen: its files at the last look; empty while nobody has looked, or they have gone.
        changed: when they were last seen to change.
        since: when it came into its state.
        refused: the files with which it was refused; None while it may be tried.
        waiting: it was tried and is not whole yet: not again before its files change or have been still.
        unproved: no input was found that it accepts: it answers only while no version that proved itself can.
        again: it is unproved and serves, and its files have changed: it is to be loaded again.
        attempt: while it is being loaded, also where it serves and is loaded again.
        loaded: while it can answer.
        next_observers: those of what is being loaded.
    """

    number: int
    path: Path
    on_disk: bool
    seen: Fingerprint
    changed: float
    since: float
    state: State = State.FOUND
    reason: str = ""
    refused: Fingerprint | None = None
    waiting: bool = False
    unproved: bool = False
    again: bool = False
    attempt: LoadAttempt | None = None
    loaded: Loaded | None = None
    served: Servable | None = None
    observers: Observers | None = None
    next_observers: Observers | None = None
    baseline: Baseline | None = None

    def become(self, state: State, reason: str, now: float) -> None:
        """Enter a state; the reason may hold paths, and becomes what can be sent as text.

        Raises:
            ValueError: this state cannot follow the one that it is in (`version_state.TRANSITIONS`). This is a bug.
        """
        if not self.state.may_become(state):
            raise ValueError(f"version {self.number} is {self.state} and cannot become {state}")
        self.state, self.reason, self.since = state, repository.shown(reason), now


class Departure:
    """A version, or its copy with former limits, that answers what it has and leaves.

    Args:
        drain: lets it; calls `end` when it has left, or will not in time.
        model: whose.
        loaded: what leaves.
        version: None where it stays, with other limits.
        ended: told by `end`, on the thread that drains.

    Attributes:
        thread: drains; it may live on after the end, with a model that does not return.
        overran: what there is to say about a model that has not returned in time.
    """

    def __init__(
        self,
        drain: Callable[[], None],
        model: "ModelState",
        loaded: Loaded,
        version: ModelVersion | None,
        ended: "Callable[[Departure], None]",
    ) -> None:
        self.model = model
        self.version = version
        self.overran = ""
        self._ended = ended
        self._over = threading.Event()
        name = f"drain-{model.name}-{loaded.info.version}"
        self.thread = threading.Thread(target=drain, name=name, daemon=True)

    def end(self, overran: str = "") -> None:
        """It has left, or will not in time."""
        self.overran = overran
        self._ended(self)
        self._over.set()

    def wait(self) -> None:
        """Wait for the end."""
        self._over.wait()


_ShadowKey = tuple[int, int, float, LoadedModel, Loaded]


@dataclass(slots=True, eq=False)
class ModelState:
    """One model: what is wanted of it, its versions, and who answers."""

    name: str
    config: ModelConfig
    versions: dict[int, ModelVersion] = field(default_factory=dict)
    promoted: dict[str, int] = field(default_factory=dict)
    promoting: set[int] = field(default_factory=set)
    unloaded: bool = False
    route: version_policy.Route = version_policy.NOBODY
    missing: set[str] = field(default_factory=set)
    shadow: Shadow | None = None
    shadow_key: _ShadowKey | None = None
    departures: list[Departure] = field(default_factory=list)

    @property
    def labels(self) -> Mapping[str, int]:
        """Label to version: the configuration's, and an administrator's where that is silent."""
        return {**self.promoted, **self.config.labels}

    def configure(self, config: ModelConfig) -> None:
        """Take a new configuration; what it could not be loaded with before, it may now."""
        if config.limits != self.config.limits:
            for version in self.versions.values():
                version.refused = None
                version.unproved = version.unproved and version.loaded is not None
        self.config = config

    def see(self, found: Mapping[int, Path], now: float) -> None:
        """Take in what is on disk."""
        for number, path in found.items():
            if number not in self.versions:
                self.versions[number] = ModelVersion(number, path, True, frozenset(), now, now)
        for number, version in list(self.versions.items()):
            version.on_disk = number in found
            if not version.on_disk:
                self._gone(version)
            elif version.seen and version.attempt is None:  # those that nobody has tried yet need no comparing
                self._compare(version, repository.fingerprint(version.path), now)

    def wanted(self, but: frozenset[int] | set[int] = frozenset()) -> list[int]:
        """Return the versions that ought to be served, but for some; the newest first."""
        if self.unloaded:
            return []
        on_disk = {number for number, each in self.versions.items() if each.on_disk}
        named = {*self.labels.values(), *self.promoting}
        unproved = self.unproved()
        refused = self.refused() - unproved
        if self.has_proved() or on_disk - refused - unproved - but:
            refused |= unproved
        return version_policy.wanted(self.config, named, on_disk, refused | but)

    def unproved(self) -> set[int]:
        """Return those that may answer only while no other can; one that only computes along does no harm."""
        along = {self.config.shadow} - set(self.labels.values())
        return {number for number, each in self.versions.items() if each.unproved and number not in along}

    def has_proved(self) -> bool:
        """Whether a version can answer that has proved itself."""
        return any(each.loaded is not None and not each.unproved for each in self.versions.values())

    def may_find_proved(self, but: int) -> bool:
        """Whether a version that ought to be served, but for one, may still prove itself."""
        waiting = {number for number, each in self.versions.items() if each.waiting}
        return bool(set(self.wanted(but={but})) - self.unproved() - waiting)

    def ready(self) -> set[int]:
        """Return the versions that can answer."""
        return {number for number, version in self.versions.items() if version.loaded is not None}

    def refused(self) -> set[int]:
        """Return those that cannot be served as they are."""
        return {n for n, version in self.versions.items() if version.refused is not None and version.loaded is None}

    def next_to_load(self, ripe: Callable[[ModelVersion], bool]) -> ModelVersion | None:
        """Return the newest version that is wanted, is not as it should be, and may be tried now.

        While one may not be tried yet, the next older one is wanted in its place.
        """
        later: set[int] = set()
        while True:
            for number in self.wanted(but=later):
                version = self.versions[number]
                if version.loaded is not None and version.loaded.limits == self.config.limits and not version.again:
                    continue
                refused = version.refused is not None and (version.loaded is not None or not version.unproved)
                tried = refused or version.waiting or version.attempt is not None or version.state == State.DRAINING
                if not tried and ripe(version):
                    return version
                if version.loaded is None:
                    later.add(number)
                    break
            else:
                return None

    def why_not(self) -> str:
        """Say why nobody answers; empty while nobody has been tried."""
        reasons = [f"version {n}: {each.reason}" for n, each in sorted(self.versions.items()) if each.reason]
        return "; ".join(reasons)

    def states(self) -> Iterator[VersionState]:
        """Yield what became of every version."""
        labels: dict[int, list[str]] = {}
        if self.route.default is not None:
            labels[self.route.default] = [""]
        for label, number in self.route.labels.items():
            labels.setdefault(number, []).append(label)
        for number, version in self.versions.copy().items():
            along = self.shadow if self.shadow_key is not None and self.shadow_key[0] == number else None
            drift = version.observers.drift if version.observers else None
            yield VersionState(
                self.name,
                number,
                version.state,
                version.reason,
                version.since,
                labels.get(number, []),
                version.loaded.report if version.loaded else None,
                version.baseline if version.loaded else None,
                drift.report() if drift is not None and version.loaded else None,
                along.report if along is not None else None,
            )

    def key_of_shadow(self, route: version_policy.Route) -> _ShadowKey | None:
        """Return what a shadow would be of, beside the version that answers; equal keys are one shadow."""
        live, number = route.default, self.config.shadow
        if self.config.limits.shadow_engine:
            number = live
        elif number not in self.ready() or number in route.versions:
            return None
        if number is None or live is None:
            return None
        shadow, answers = self.versions[number].loaded, self.versions[live].loaded
        assert shadow is not None
        assert answers is not None
        along = shadow.along if number == live else shadow.model
        return None if along is None else (number, live, self.config.shadow_share, along, answers)

    def start_shadow(self, key: _ShadowKey, clock: Clock, guard: ObserverGuard) -> None:
        """Let a version compute along."""
        number, live, share, along, answers = key
        self.shadow_key = key
        engine = self.config.limits.shadow_engine if number == live else ""
        name = f"{self.name} version {number}{engine and ' by '}{engine}"
        self.shadow = Shadow(name, along, answers.executor, share, clock, guard=guard)
        self.shadow.start()
        observers = self.versions[live].observers
        assert observers is not None
        observers.shadow = self.shadow
        log.info("model %s computes along with version %d, a share of %g", name, live, share)

    def attempts(self) -> list[LoadAttempt]:
        """Return the loads under way."""
        return [each.attempt for each in self.versions.copy().values() if each.attempt is not None]

    def stop_shadow(self, timeout_s: float | None = None) -> bool:
        """Let nobody compute along; the version's model is free afterwards, unless that took longer: then False."""
        ended = True
        if self.shadow is not None and self.shadow_key is not None:
            observers = self.versions[self.shadow_key[1]].observers
            if observers is not None:
                observers.shadow = None
            ended = self.shadow.stop(timeout_s)
        self.shadow = self.shadow_key = None
        return ended

    def forget_old(self) -> list[int]:
        """Forget those that left long ago; return their numbers."""
        left = (each for each in self.versions.values() if each.state == State.ENDED)
        ended = sorted(left, key=lambda each: each.since)
        old = [each.number for each in ended[:-KEPT_ENDED]]
        for number in old:
            del self.versions[number]
        return old

    def _gone(self, version: ModelVersion) -> None:
        """A version's folder is not there any more."""
        if version.loaded is not None:
            if version.seen:
                version.reason = "its folder is gone; it serves on from memory"
                log.warning("model %s version %d: %s", self.name, version.number, version.reason)
            version.seen = frozenset()
        elif version.state not in (State.ENDED, State.DRAINING):
            if version.state != State.FOUND:
                log.warning("model %s version %d: its folder is gone", self.name, version.number)
            if version.attempt is not None:
                version.attempt.abandon()
            del self.versions[version.number]
        else:
            version.seen = frozenset()

    def _compare(self, version: ModelVersion, now_seen: Fingerprint, now: float) -> None:
        """See whether a version's files have changed."""
        if now_seen == version.seen:
            if version.waiting and version.state == State.FOUND:
                version.waiting = False  # still at this look: one more try decides
            return
        if version.loaded is not None and version.seen and not version.again:
            version.again = version.unproved  # nothing is lost that has proved itself
            then = "it is loaded again" if version.again else "it serves on from memory"
            version.reason = f"its files have changed since it was loaded; {then}"
            log.warning("model %s version %d: %s", self.name, version.number, version.reason)
        version.seen, version.changed = now_seen, now
        version.refused = None
        version.waiting = False
        version.unproved = version.unproved and version.loaded is not None
        if version.state == State.FAILED:
            version.become(State.FOUND, "", now)


# --- private ------------------------------------------------------------------------------------------


def _is_same(one: Signature, other: Signature) -> bool:
    """Whether two signatures are the same function under two names, as Keras writes them."""
    return one.function == other.function and one.outputs == other.outputs
