"""What is wanted of each version, made to be so: loaded, let serve, refused, let go.

Nothing is taken out before somebody who is wanted can answer. Everything here happens on the lifecycle's thread.
"""

import logging
import os
import queue
import threading
from collections.abc import Callable

from horngate_server.core.clock import Clock
from horngate_server.core.errors import DeviceUnavailable, HorngateError
from horngate_server.core.observer_guard import ObserverGuard
from horngate_server.core.settings import Settings
from horngate_server.engine.executor import Finish
from horngate_server.engine.routing import Models
from horngate_server.lifecycle import compatibility, folder_hints, loader, repository, version_policy
from horngate_server.lifecycle.drift import Baseline, Drift
from horngate_server.lifecycle.load_attempt import Abandoned, LoadAttempt
from horngate_server.lifecycle.loader import Loaded
from horngate_server.lifecycle.model_state import Departure, ModelState, ModelVersion, Observers
from horngate_server.lifecycle.readiness import OVERALL, Readiness
from horngate_server.lifecycle.version_state import State
from horngate_server.runtimes import process_memory

log = logging.getLogger(__name__)

PATIENCE_S = 10.0
"""How long one version's loading may give no sign of life before others are loaded beside it."""
_HELP = "record answers with it (horngate_trainer.export), or take it as it is with --verify off"
UNPROVED = f"unproved: no input was found that it accepts, and it answers only where no proved version can; {_HELP}"
UNPROVED_SERVES = f"unproved: no input was found that it accepts, its callers are the first to run it; {_HELP}"


class Reconciler:
    """Takes the steps from what is served to what is wanted.

    Args:
        settings: all of them.
        served: who answers whom; changed here alone.
        readiness: told who is ready.
        finish: takes executors' outcomes.
        forget: told of versions that nobody needs to hear of any more.
        clock: monotonic seconds.
        on_death: what executors call when their loop fails.
        stopping: set when the process is to stop.
        guard: takes what goes wrong with looks at batches.
        wake: called from any thread when there is something to be noted.

    Attributes:
        models: what is known of each, by name.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        served: Models,
        readiness: Readiness,
        finish: Finish,
        forget: Callable[[str, str], None],
        clock: Clock,
        on_death: Callable[[BaseException], None],
        stopping: threading.Event,
        guard: ObserverGuard,
        wake: Callable[[], None],
    ) -> None:
        self.models: dict[str, ModelState] = {}
        self._settings = settings
        self._served = served
        self._readiness = readiness
        self._finish = finish
        self._forget = forget
        self._clock = clock
        self._on_death = on_death
        self._stopping = stopping
        self._guard = guard
        self._wake = wake
        self._departed: queue.SimpleQueue[Departure] = queue.SimpleQueue()
        self._looked = False
        self._settled = False

    def looked(self) -> None:
        """Note that the disk was looked at once: from now on, two looks can be compared."""
        self._looked = True

    def settle(self) -> None:
        """Say overall readiness from now on: what was there at the start is loaded."""
        self._settled = True
        self._tell_readiness()

    def reconcile(self) -> None:
        """Load what is wanted and is not there, and let go who is not wanted any more."""
        for model in list(self.models.values()):
            self._apply(model)
            while not self._stopping.is_set() and (version := model.next_to_load(self._ripe)) is not None:
                self._load(model, version)
                self._apply(model)
        self.expect()

    def expect(self) -> None:
        """Say why those who could be asked cannot answer yet."""
        self._served.expect({name: model.why_not() for name, model in self.models.items() if not model.unloaded})

    def pending(self, model: ModelState) -> bool:
        """Whether a version of a model is still to be loaded."""
        return model.next_to_load(lambda _: True) is not None

    def note_loads(self) -> None:
        """Take in the versions whose loading nobody has waited for."""
        for model in self.models.values():
            for version in list(model.versions.values()):
                if version.attempt is not None and version.attempt.done:
                    self._take_in(model, version)

    def note_departures(self) -> None:
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

    # --- private --------------------------------------------------------------------------------------

    def _ripe(self, version: ModelVersion) -> bool:
        """Whether a version may be tried: it has a manifest to hold it against, or has stopped changing."""
        if not version.seen:
            version.seen, version.changed = repository.fingerprint(version.path), self._clock()
            if not version.seen and not version.reason and version.state == State.FOUND:
                version.become(State.FOUND, "its folder is empty", self._clock())
                log.warning("%s is empty: it is loaded once there is something in it", repository.shown(version.path))
        return bool(version.seen) and (os.path.isfile(version.path / repository.MANIFEST) or self._still(version))

    def _still(self, version: ModelVersion) -> bool:
        """Whether a version has been the same for two looks."""
        return self._looked and self._clock() - version.changed >= self._settings.watch_interval_s

    def _load(self, model: ModelState, version: ModelVersion) -> None:
        """Load one version beside those that serve; ready or refused afterwards, or found if it is not whole yet.

        While it gives no sign of life, as on a disk that does not answer, others are loaded before it.
        """
        if version.loaded is None:
            version.become(State.LOADING, "", self._clock())
        limits = model.config.limits
        version.next_observers = observers = Observers(self._finish, self._guard)

        def load(alive: Callable[[], None]) -> Loaded:
            return loader.load(
                version.path,
                self._settings,
                limits,
                called=(model.name, version.number),
                finish=observers.finish,
                clock=self._clock,
                on_death=self._on_death,
                beside=self._settled,
                alive=alive,
            )

        version.attempt = LoadAttempt(load, f"{model.name}-{version.number}", self._clock, self._wake)
        if version.attempt.wait(PATIENCE_S):
            self._take_in(model, version)
        elif not self._stopping.is_set():
            log.warning("model %s version %d: no sign of life from its loading for %g s; others are loaded before it",
                        model.name, version.number, PATIENCE_S)  # fmt: skip
            version.reason = f"it is being loaded, without a sign of life for {PATIENCE_S:g} s"

    def _take_in(self, model: ModelState, version: ModelVersion) -> None:
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
            hint = folder_hints.about_variables(version.path)
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

    def _let_serve(self, model: ModelState, version: ModelVersion, loaded: Loaded) -> None:
        """Let a version serve that was loaded, unless it may not."""
        unfit = self._unfit(model, version, loaded)
        if unfit:
            loaded.close()
            self._refuse(model, version, unfit)
            return
        unproved = not loaded.report.proved and self._settings.verify != "off"
        if unproved and self._is_superseded(model, version):
            loaded.close()
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

    def _say_loaded(self, model: ModelState, version: ModelVersion, loaded: Loaded) -> None:
        report = loaded.report
        log.info(
            "loaded model %s version %s in %.2f s: %s, %s (%s), %s (%s)",
            model.name, report.version, report.seconds, report.verification, report.engine, report.why_engine,
            report.device, report.why,
        )  # fmt: skip
        if report.rungs:
            log.info("  %s", ", ".join(f"{each.rows} rows {each.ms:.2f} ms" for each in report.rungs))
        for name, batching in report.batching.items():
            log.info("  %s: %s", name, batching)
        if version.unproved:
            log.warning("model %s version %d is %s", model.name, version.number, UNPROVED_SERVES)
        if loaded.device.surprise:
            log.warning("a GPU is present but not used: %s", loaded.device.why)

    def _is_superseded(self, model: ModelState, version: ModelVersion) -> bool:
        """Whether there is a proved version to lose if this unproved one answered, or one that may yet prove itself."""
        if version.loaded is not None or (
            model.config.shadow == version.number and version.number not in model.labels.values()
        ):
            return False
        known = version.unproved  # it is wanted all the same: nothing else could be loaded
        version.unproved = True
        return model.has_proved() or (not known and model.may_find_proved(but=version.number))

    def _set_aside(self, model: ModelState, version: ModelVersion) -> None:
        """Refuse an unproved version, until nothing else can answer."""
        if version.state != State.FAILED or version.reason != UNPROVED:
            log.warning("model %s version %d is refused: %s", model.name, version.number, UNPROVED)
        version.refused = version.seen
        version.become(State.FAILED, UNPROVED, self._clock())

    def _unfit(self, model: ModelState, version: ModelVersion, loaded: Loaded) -> str:
        """Say why a version that could be loaded may not serve all the same; empty if it may."""
        if repository.fingerprint(version.path) != version.seen:
            return "its files changed while it was loaded"
        if not loaded.report.proved and self._settings.verify != "off":
            hint = folder_hints.about_variables(version.path)
            if hint:
                return f"it could not be tried: {hint}"
        if model.route.default is None or model.config.any_signature:
            return ""
        serving = model.versions[model.route.default].loaded
        return compatibility.why_not(loaded.infos, serving.infos) if serving is not None else ""

    def _refuse(self, model: ModelState, version: ModelVersion, reason: str) -> None:
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

    def _apply(self, model: ModelState) -> None:
        """Put the routes in place that follow from what is ready, and let go who is not wanted any more."""
        ready = model.ready()
        labels = model.labels
        before = model.route
        route = (
            version_policy.NOBODY
            if model.unloaded
            else version_policy.route(ready, model.wanted(), labels, model.config.shadow, before.default)
        )
        if model.shadow_key != (key := model.key_of_shadow(route)):
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
            if label not in route.labels and label not in model.missing and not self.pending(model):
                log.warning("model %s: label %s is version %d, which is not served", model.name, label, number)
                model.missing.add(label)
        model.missing -= set(route.labels)
        if key is not None and model.shadow is None:
            model.start_shadow(key, self._clock, self._guard)
        self._readiness.set(model.name, serving=route.default is not None)
        self._tell_readiness()
        leaving = (
            ready if model.unloaded else version_policy.removable(model.wanted(), ready, model.refused(), route.default)
        )
        for number in leaving:
            version = model.versions[number]
            reason = "unloaded" if model.unloaded else f"version {route.default} answers instead"
            version.become(State.DRAINING, reason, self._clock())
            loaded, version.loaded, version.served = version.loaded, None, None
            if loaded is not None:
                self._drain(model, loaded, version)
        if leaving:
            self._apply(model)

    def _drain(self, model: ModelState, loaded: Loaded, version: ModelVersion | None) -> None:
        """Let a version that gets no more requests answer those it has, and give its memory back."""
        grace_s = self._settings.grace_period_s

        def drain() -> None:
            in_time = loaded.executor.stop(grace_s)
            if not in_time:
                departure.end(f"; its model has not returned within {grace_s:g} s, and keeps its memory until it does")
                loaded.executor.stop(None)
            loaded.close()
            process_memory.trim()
            if in_time:
                departure.end()

        departure = Departure(drain, model, loaded, version, self._on_departure)
        model.departures = [each for each in model.departures if each.thread.is_alive()]
        model.departures.append(departure)
        departure.thread.start()

    def _on_departure(self, departure: Departure) -> None:
        self._departed.put(departure)
        self._wake()

    def _tell_readiness(self) -> None:
        if self._settled:
            self._readiness.set(OVERALL, serving=any(True for _ in self._served))
