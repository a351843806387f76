"""Versions appear, prove themselves, take over and leave: what is on disk and what the operator wants, made to be so.

One thread owns it all. It looks (disk, ``--config``), compares with what is served, and takes one step after the other:
load beside serving, verify, put a new table of routes in place, drain who is not wanted any more. Nothing is taken out
before somebody who is wanted can answer.
"""

import logging
import os
import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from horngate_server import config as config_room
from horngate_server import hints, loading, policy, repository
from horngate_server.attempt import Abandoned, Attempt
from horngate_server.config import Config, ModelConfig
from horngate_server.drift import Baseline, Drift
from horngate_server.errors import (
    DeviceUnavailable,
    HorngateError,
    ModelError,
    ModelNotFound,
    Refused,
    RequestError,
    SettingsError,
)
from horngate_server.executor import Clock, Executor, Finish
from horngate_server.guard import Guard
from horngate_server.loading import Loaded
from horngate_server.rate_limited_log import Notes
from horngate_server.readiness import OVERALL, Readiness
from horngate_server.roster import Departure, Entry, Observers, Roster
from horngate_server.runtime import pages
from horngate_server.served import Models
from horngate_server.settings import Settings
from horngate_server.states import State, VersionState
from horngate_server.watching import Watch
from horngate_server.wishes import Wishes

log = logging.getLogger(__name__)

PATIENCE_S = 10.0
"""How long one version's loading may give no sign of life before others are loaded beside it."""
BEGIN_PATIENCE_S = 60.0
"""How long it may give none before the server begins without it."""
GIVE_UP_EVERY_S = 0.05
"""Between two tries to end the loads of a thread that may just begin another."""
FAILURE_EVERY_S = 60.0
"""Between two log lines about looks that fail."""
_HELP = "record answers with it (horngate_trainer.export), or take it as it is with --verify off"
UNPROVED = f"unproved: no input was found that it accepts, and it answers only where no proved version can; {_HELP}"
UNPROVED_SERVES = f"unproved: no input was found that it accepts, its callers are the first to run it; {_HELP}"

Done = Callable[[RequestError | None], None]
"""Called once with how an administrator's wish ended."""


class Lifecycle:
    """The owner of which versions are served.

    Args:
        settings: all of them.
        models: who answers whom; changed here alone.
        readiness: told who is ready.
        finish: takes executors' outcomes.
        forget: told of versions that nobody needs to hear of any more.
        clock: monotonic seconds.
        on_death: what executors call when their loop fails.
        stopping: set when the process is to stop.
        guard: takes what goes wrong with looks at batches.

    Raises:
        SettingsError: ``--config`` is wrong.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        models: Models,
        readiness: Readiness,
        finish: Finish,
        forget: Callable[[str, str], None],
        clock: Clock,
        on_death: Callable[[BaseException], None],
        stopping: threading.Event,
        guard: Guard | None = None,
    ) -> None:
        self._settings = settings
        self._config_seen = _stamp(settings.config)  # before it is read: a change meanwhile is seen at the next look
        self._config: Config = config_room.read(settings.config, settings)
        self.config_valid = True
        self._served = models
        self._readiness = readiness
        self._finish = finish
        self._forget = forget
        self._clock = clock
        self._on_death = on_death
        self._stopping = stopping
        self._guard = guard or Guard(clock)
        self._notes = Notes(log, clock, FAILURE_EVERY_S)
        self._models: dict[str, Roster] = {}
        self._looked = False
        self._settled = False
        self._wishes: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._departed: queue.SimpleQueue[Departure] = queue.SimpleQueue()
        self._wake = threading.Event()
        self._watch = Watch(settings.models, self._wake.set)
        self._thread: threading.Thread | None = None
        self._root_error = ""
        self._ignored: Mapping[Path, str] = {}

    def begin(self) -> None:
        """Look for the first time and load what is there, on the caller's thread.

        A version that is still being loaded, and gives no sign of life, is waited for no longer.

        Raises:
            ModelError: the root cannot be read, or ``--device gpu`` and there is none.
        """
        self._look(first=True)
        self._reconcile()
        self._looked = True
        if any(self._pending(model) for model in self._models.values()):
            self._stopping.wait(self._settings.watch_interval_s)  # those without a manifest must be looked at twice
            self._step()
        for attempt in [each for model in self._models.values() for each in model.attempts()]:
            if attempt.wait(BEGIN_PATIENCE_S):
                self._step()
        self._settled = True
        self._tell_readiness()

    def start(self) -> "Future[None]":
        """Look, load what is there, and keep looking, on a thread of its own.

        Returns:
            Done once what was there is loaded, or with what `begin` raises.
        """
        begun: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(begun,), name="lifecycle", daemon=True)
        self._thread.start()
        return begun

    def look_now(self) -> None:
        """Look at the disk and the configuration at once. Callable from any thread."""
        self._wake.set()

    def stop(self, timeout_s: float) -> bool:
        """Change nothing any more, and give up what is being loaded; False if a thread did not end in time."""
        ends = self._clock() + timeout_s
        self._stopping.set()
        self._wake.set()
        while True:
            for model in self._models.copy().values():
                for attempt in model.attempts():
                    attempt.abandon()
            if self._thread is None or not self._thread.is_alive() or self._clock() >= ends:
                break
            self._thread.join(GIVE_UP_EVERY_S)
        ended = [self._thread is None or not self._thread.is_alive(), self._watch.stop(ends - self._clock())]
        ended += [model.stop_shadow(ends - self._clock()) for model in self._models.copy().values()]
        return all(ended)

    def drain(self, grace_s: float) -> bool:
        """Let every executor compute what waits, and end; False if that took too long. After `stop`."""
        ends = self._clock() + grace_s
        executors = self.executors()
        for executor in executors:
            executor.refuse()  # all of them first: none takes work while another is waited for
        drained = [executor.stop(max(0.0, ends - self._clock())) for executor in executors]
        for model in self._models.values():
            for departure in model.departures:
                departure.thread.join(max(0.0, ends - self._clock()))
                drained.append(not departure.thread.is_alive())
        return all(drained)

    def close(self) -> None:
        """Close every model; after `drain` said True."""
        for executor in self.executors():
            executor.close()

    def executors(self) -> list[Executor]:
        """Return those of all versions that are loaded and not leaving."""
        models = list(self._models.values())
        return [each.loaded.executor for model in models for each in list(model.versions.values()) if each.loaded]

    def states(self) -> list[VersionState]:
        """Return what became of every version, by name and number. Callable from any thread."""
        return [
            state
            for name, model in sorted(self._models.copy().items())
            for state in sorted(model.states(), key=lambda each: each.version)
        ]

    def ready(self) -> list[Loaded]:
        """Return what can answer now."""
        models = [model for _, model in sorted(self._models.copy().items())]
        return [each.loaded for model in models for _, each in sorted(model.versions.copy().items()) if each.loaded]

    # --- an administrator's wishes: done on the lifecycle's thread, told when they are done ------------

    @property
    def defaults(self) -> ModelConfig:
        """What is wanted of a model of which nobody says anything."""
        return self._config.default

    @property
    def root(self) -> Path:
        """Where the models are."""
        return self._settings.models

    def load(self, name: str, done: Done) -> None:
        """Serve a model as its configuration says; versions that were refused are tried again."""
        self._wish(done, lambda wishes: wishes.load(name))

    def unload(self, name: str, done: Done) -> None:
        """Stop serving a model until it is loaded again."""
        self._wish(done, lambda wishes: wishes.unload(name))

    def promote(self, name: str, version: int, label: str, done: Done) -> None:
        """Give a version a label, loading it first where it is not loaded."""
        self._wish(done, lambda wishes: wishes.promote(name, version, label))

    def reload(self, models: Mapping[str, ModelConfig], done: Done) -> None:
        """Serve these models and no others, as these configurations say; not where ``--config`` says it."""
        self._wish(done, lambda wishes: self._reload(wishes, models))

    # --- private: the thread --------------------------------------------------------------------------

    def _run(self, begun: "Future[None]") -> None:
        try:
            self.begin()
        except BaseException as error:  # noqa: BLE001 - whoever has started it hears of it
            begun.set_exception(error)
            return
        begun.set_result(None)
        self._watch.start()
        while not self._stopping.is_set():
            self._wake.wait(self._settings.watch_interval_s)
            self._wake.clear()
            try:
                self._step()
                self._carry_out()
            except Exception as error:  # noqa: BLE001 - logged with its traceback, but not once a second
                self._notes.note(
                    "look", logging.ERROR, "the look at the models failed; the next one is in %g s",
                    self._settings.watch_interval_s, exc_info=error,
                )  # fmt: skip

    def _carry_out(self) -> None:
        """Do what other threads have asked for."""
        while not self._wishes.empty():
            self._wishes.get()()

    def _reload(self, wishes: Wishes, models: Mapping[str, ModelConfig]) -> None:
        if self._settings.config is not None:
            raise Refused(f"models are configured in {self._settings.config}: change it there")
        unknown = sorted(set(models) - set(self._models))
        if unknown:
            raise ModelNotFound(f"no model {', '.join(unknown)} in {self.root}; it has {sorted(self._models)}")
        self._config = replace(self._config, models=MappingProxyType(dict(models)))
        wishes.reload(models)

    def _wish(self, done: Done, run: Callable[[Wishes], None]) -> None:
        def wish() -> None:
            try:
                self._look()
                run(Wishes(self._models, self._reconcile, self._note_departures))
            except RequestError as error:
                done(error)
            except HorngateError as error:
                done(Refused(str(error)))
            else:
                done(None)

        self._wishes.put(wish)
        self._wake.set()

    def _step(self) -> None:
        if not self._stopping.is_set():
            self._look()
            self._reconcile()

    # --- private: looking -----------------------------------------------------------------------------

    def _look(self, *, first: bool = False) -> None:
        """See what has left, what is on disk, and what is in the configuration."""
        self._note_departures()
        self._note_loads()
        self._look_at_config()
        try:
            listing = repository.look(self._settings.models)
        except ModelError as error:
            if first:
                raise
            if str(error) != self._root_error:
                log.error("%s; what is loaded serves on", error)
            self._root_error = str(error)
            return
        self._root_error = ""
        self._say_ignored(listing.ignored)
        found = listing.models
        for name in found:
            if name not in self._models:
                log.info("model %s found", name)
                self._models[name] = Roster(name, self._config.of(name))
        for name, model in self._models.items():
            if name not in listing.unreadable:  # what is loaded serves on; what is not is not forgotten
                model.see(found.get(name, {}), self._clock())
        self._expect()

    def _say_ignored(self, ignored: Mapping[Path, str]) -> None:
        """Say once what looks like a model or a version and is none."""
        for path, reason in ignored.items():
            if self._ignored.get(path) != reason:
                log.warning("%s is ignored: %s", repository.shown(path), reason)
        self._ignored = ignored

    def _look_at_config(self) -> None:
        """Read the configuration again if it has changed; a bad one changes nothing."""
        stamp = _stamp(self._settings.config)
        if stamp == self._config_seen:
            return
        self._config_seen = stamp
        try:
            self._config = config_room.read(self._settings.config, self._settings)
        except SettingsError as error:
            self.config_valid = False
            log.error("the configuration stays as it was: %s", error)
            return
        self.config_valid = True
        log.info("the configuration has changed: %s", self._settings.config)
        for name, model in self._models.items():
            model.configure(self._config.of(name))

    # --- private: making it so ------------------------------------------------------------------------

    def _reconcile(self) -> None:
        for model in list(self._models.values()):
            self._apply(model)
            while not self._stopping.is_set() and (version := model.next_to_load(self._ripe)) is not None:
                self._load(model, version)
                self._apply(model)
        self._expect()

    def _expect(self) -> None:
        """Say why those who could be asked cannot answer yet."""
        self._served.expect({name: model.why_not() for name, model in self._models.items() if not model.unloaded})

    def _ripe(self, version: Entry) -> bool:
        """Whether a version may be tried: it has a manifest to hold it against, or has stopped changing."""
        if not version.seen:
            version.seen, version.changed = repository.fingerprint(version.path), self._clock()
            if not version.seen and not version.reason and version.state == State.FOUND:
                version.become(State.FOUND, "its folder is empty", self._clock())
                log.warning("%s is empty: it is loaded once there is something in it", repository.shown(version.path))
        return bool(version.seen) and (os.path.isfile(version.path / repository.MANIFEST) or self._still(version))

    def _still(self, version: Entry) -> bool:
        """Whether a version has been the same for two looks."""
        return self._looked and self._clock() - version.changed >= self._settings.watch_interval_s

    def _pending(self, model: Roster) -> bool:
        return model.next_to_load(lambda _: True) is not None

    def _load(self, model: Roster, version: Entry) -> None:
        """Load one version beside those that serve; ready or refused afterwards, or found if it is not whole yet.

        While it gives no sign of life, as on a disk that does not answer, others are loaded before it.
        """
        if version.loaded is None:
            version.become(State.LOADING, "", self._clock())
        limits = model.config.limits
        version.next_observers = observers = Observers(self._finish, self._guard)

        def load(alive: Callable[[], None]) -> Loaded:
            return loading.load(
                version.path,
                self._settings,
                limits,
                finish=observers.finish,
                clock=self._clock,
                on_death=self._on_death,
                beside=self._settled,
                alive=alive,
            )

        version.attempt = Attempt(load, f"{model.name}-{version.number}", self._clock, self._wake.set)
        if version.attempt.wait(PATIENCE_S):
            self._take_in(model, version)
        elif not self._stopping.is_set():
            log.warning("model %s version %d: no sign of life from its loading for %g s; others are loaded before it",
                        model.name, version.number, PATIENCE_S)  # fmt: skip
            version.reason = f"it is being loaded, without a sign of life for {PATIENCE_S:g} s"

    def _note_loads(self) -> None:
        """Take in the versions whose loading nobody has waited for."""
        for model in self._models.values():
            for version in list(model.versions.values()):
                if version.attempt is not None and version.attempt.done:
                    self._take_in(model, version)

    def _take_in(self, model: Roster, version: Entry) -> None:
        """Let a version serve whose loading is over, or refuse it."""
        attempt, version.attempt = version.attempt, None
        assert attempt is not None
        try:
            loaded = attempt.take()
        except Abandoned:
            return
        except DeviceUnavailable:
            if not self._settled:
                raise
            self._refuse(model, version, "the GPU is gone")
            return
        except (HorngateError, MemoryError) as error:
            hint = hints.about_variables(version.path)
            self._refuse(model, version, (str(error) or type(error).__name__) + (hint and f"; {hint}"))
            return
        except OSError as error:
            what = repository.shown(error.filename or version.path)
            self._refuse(model, version, f"{what} cannot be read: {error.strerror or error}")
            return
        except Exception as error:
            log.exception("model %s version %d: unexpected failure while it was loaded", model.name, version.number)
            self._refuse(model, version, f"{type(error).__name__}: {error}. This is a bug.")
            return
        self._let_serve(model, version, loaded)

    def _let_serve(self, model: Roster, version: Entry, loaded: Loaded) -> None:
        """Let a version serve that was loaded, unless it may not."""
        unfit = self._unfit(model, version, loaded)
        if unfit:
            loaded.executor.close()
            self._refuse(model, version, unfit)
            return
        unproved = not loaded.report.proved and self._settings.verify != "off"
        if unproved and self._is_superseded(model, version):
            loaded.executor.close()
            self._set_aside(model, version)
            return
        before = version.loaded
        baseline = Baseline.of(loaded.version.manifest)
        observers = version.next_observers
        assert observers is not None
        observers.drift = Drift(loaded.info, baseline, self._clock) if baseline else None
        loaded.executor.start()
        version.observers, version.baseline = observers, baseline
        version.loaded, version.served = loaded, loaded.served()
        version.unproved, version.again, version.refused = unproved, False, None
        version.become(State.READY, UNPROVED_SERVES if unproved else "", self._clock())
        self._say_loaded(model, version, loaded)
        if before is not None:
            self._apply(model)
            self._drain(model, before, version=None)

    def _say_loaded(self, model: Roster, version: Entry, loaded: Loaded) -> None:
        report = loaded.report
        log.info(
            "loaded model %s version %s in %.2f s: %s, %s (%s)",
            model.name, report.version, report.seconds, report.verification, report.device, report.why,
        )  # fmt: skip
        if report.rungs:
            log.info("  %s", ", ".join(f"{each.rows} rows {each.ms:.2f} ms" for each in report.rungs))
        for name, batching in report.batching.items():
            log.info("  %s: %s", name, batching)
        if version.unproved:
            log.warning("model %s version %d is %s", model.name, version.number, UNPROVED_SERVES)
        if loaded.device.surprise:
            log.warning("a GPU is present but not used: %s", loaded.device.why)

    def _is_superseded(self, model: Roster, version: Entry) -> bool:
        """Whether there is a proved version to lose if this unproved one answered, or one that may yet prove itself."""
        if version.loaded is not None or (
            model.config.shadow == version.number and version.number not in model.labels.values()
        ):
            return False
        known = version.unproved  # it is wanted all the same: nothing else could be loaded
        version.unproved = True
        return model.has_proved() or (not known and model.may_find_proved(but=version.number))

    def _set_aside(self, model: Roster, version: Entry) -> None:
        """Refuse an unproved version, until nothing else can answer."""
        if version.state != State.FAILED or version.reason != UNPROVED:
            log.warning("model %s version %d is refused: %s", model.name, version.number, UNPROVED)
        version.refused = version.seen
        version.become(State.FAILED, UNPROVED, self._clock())

    def _unfit(self, model: Roster, version: Entry, loaded: Loaded) -> str:
        """Say why a version that could be loaded may not serve all the same; empty if it may."""
        if repository.fingerprint(version.path) != version.seen:
            return "its files changed while it was loaded"
        if not loaded.report.proved and self._settings.verify != "off":
            hint = hints.about_variables(version.path)
            if hint:
                return f"it could not be tried: {hint}"
        if model.route.default is None or model.config.any_signature:
            return ""
        serving = model.versions[model.route.default]
        if serving.loaded is None:
            return ""
        for name, other in serving.loaded.infos.items():
            mine = loaded.infos.get(name)
            if mine is None or not mine.signature.stands_in_for(other.signature):
                has = f"is {mine.signature}" if mine else "is not there"
                return (
                    f"its signature {name} {has}, and version {serving.number}'s callers rely on {other.signature}; "
                    "any_signature = true in --config lets it serve"
                )
        return ""

    def _refuse(self, model: Roster, version: Entry, reason: str) -> None:
        """Note why a version is not served; say it once, and only when it has stopped changing."""
        now = repository.fingerprint(version.path)
        if now != version.seen or not self._still(version):
            version.waiting = True
            if version.loaded is None:
                version.become(State.FOUND, f"not whole yet: {reason}", self._clock())
            if not now:
                log.warning("model %s version %d vanished while it was loaded", model.name, version.number)
            return
        version.refused = version.seen
        version.unproved = version.unproved and version.loaded is not None
        if version.loaded is not None:
            with_limits = "" if version.again else ", with other limits"
            version.again = False
            version.reason = repository.shown(f"it could not be loaded again{with_limits}: {reason}")
        else:
            version.become(State.FAILED, reason, self._clock())
        log.error("model %s version %d is refused: %s", model.name, version.number, repository.shown(reason))

    def _apply(self, model: Roster) -> None:
        """Put the routes in place that follow from what is ready, and let go who is not wanted any more."""
        ready = model.ready()
        shadow = model.config.shadow
        labels = model.labels
        before = model.route
        route = policy.NOBODY if model.unloaded else policy.route(ready, model.wanted(), labels, shadow, before.default)
        computing_along = shadow if shadow in ready and shadow not in route.versions else None
        if model.shadow_key != (key := model.key_of_shadow(computing_along, route.default)):
            model.stop_shadow()
        served = {number: each.served for number, each in model.versions.items() if each.served}
        model.route = route
        if route.default is None:
            self._served.route(model.name, None)
        else:
            self._served.route(
                model.name,
                served[route.default],
                [served[number] for number in route.versions],
                {label: served[number] for label, number in route.labels.items()},
            )
        if route.default != before.default and route.default is not None:
            log.info("model %s: version %d answers from now on", model.name, route.default)
        for label, number in labels.items():
            if label not in route.labels and label not in model.missing and not self._pending(model):
                log.warning("model %s: label %s is version %d, which is not served", model.name, label, number)
                model.missing.add(label)
        model.missing -= set(route.labels)
        if key is not None and model.shadow is None:
            model.start_shadow(key, self._clock, self._guard)
        self._tell_readiness(model.name, serving=route.default is not None)
        leaving = ready if model.unloaded else policy.removable(model.wanted(), ready, model.refused(), route.default)
        for number in leaving:
            version = model.versions[number]
            reason = "unloaded" if model.unloaded else f"version {route.default} answers instead"
            version.become(State.DRAINING, reason, self._clock())
            loaded, version.loaded, version.served = version.loaded, None, None
            if loaded is not None:
                self._drain(model, loaded, version)
        if leaving:
            self._apply(model)

    def _drain(self, model: Roster, loaded: Loaded, version: Entry | None) -> None:
        """Let a version that gets no more requests answer those it has, and give its memory back."""
        grace_s = self._settings.grace_period_s

        def drain() -> None:
            in_time = loaded.executor.stop(grace_s)
            if not in_time:
                departure.end(f"; its model has not returned within {grace_s:g} s, and keeps its memory until it does")
                loaded.executor.stop(None)
            loaded.executor.close()
            pages.trim()
            if in_time:
                departure.end()

        departure = Departure(drain, model, loaded, version, self._on_departure)
        model.departures = [each for each in model.departures if each.thread.is_alive()]
        model.departures.append(departure)
        departure.thread.start()

    def _on_departure(self, departure: Departure) -> None:
        self._departed.put(departure)
        self._wake.set()

    def _note_departures(self) -> None:
        """Take in which versions have left."""
        while not self._departed.empty():
            departure = self._departed.get()
            model, version = departure.model, departure.version
            if version is None:
                continue  # it stays: only the copy with its former limits has left
            version.seen = frozenset()  # should it be wanted again, it is looked at anew
            version.become(State.ENDED, version.reason + departure.overran, self._clock())
            level = logging.WARNING if departure.overran else logging.INFO
            log.log(level, "model %s version %d has left: %s", model.name, version.number, version.reason)
            for number in model.forget_old():
                self._forget(model.name, str(number))

    def _tell_readiness(self, name: str | None = None, *, serving: bool = False) -> None:
        if name is not None:
            self._readiness.set(name, serving=serving)
        if self._settled:
            self._readiness.set(OVERALL, serving=any(True for _ in self._served))


# --- private ------------------------------------------------------------------------------------------


def _stamp(path: Path | None) -> tuple[int, int, int] | None:
    """Return what changes when a file does."""
    if path is None:
        return None
    try:
        stat = path.stat()
    except OSError:
        return (0, 0, 0)
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
