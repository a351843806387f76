"""The control loop: versions appear, take over and leave as the disk and the operator say.

One thread owns it all. It looks (disk, ``--config``), compares with what is served, and takes one step after the other:
load beside serving, verify, put a new table of routes in place, drain who is not wanted any more. Nothing is taken out
before somebody who is wanted can answer.
"""

import difflib
import logging
import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from horngate_server.core.clock import Clock
from horngate_server.core.errors import HorngateError, ModelError, ModelNotFound, Refused, RequestError, SettingsError
from horngate_server.core.file_changes import Changes
from horngate_server.core.observer_guard import ObserverGuard
from horngate_server.core.rate_limited_log import RateLimitedLog
from horngate_server.core.settings import Settings
from horngate_server.engine.executor import Executor, Finish
from horngate_server.engine.routing import Models
from horngate_server.lifecycle import model_config, repository
from horngate_server.lifecycle.commands import ModelCommands
from horngate_server.lifecycle.directory_watcher import DirectoryWatcher
from horngate_server.lifecycle.loader import Loaded
from horngate_server.lifecycle.model_config import Config, ModelConfig
from horngate_server.lifecycle.model_places import ModelPlaces
from horngate_server.lifecycle.model_state import ModelState
from horngate_server.lifecycle.readiness import Readiness
from horngate_server.lifecycle.reconciler import Reconciler
from horngate_server.lifecycle.version_state import VersionState

log = logging.getLogger(__name__)

BEGIN_PATIENCE_S = 60.0
"""How long it may give none before the server begins without it."""
GIVE_UP_EVERY_S = 0.05
"""Between two tries to end the loads of a thread that may just begin another."""
FAILURE_EVERY_S = 60.0
"""Between two log lines about looks that fail."""

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
        guard: ObserverGuard | None = None,
    ) -> None:
        self._settings = settings
        # before it is read: a change meanwhile is seen at the next look
        self._config_file = Changes([settings.config], clock) if settings.config is not None else None
        self._config: Config = model_config.read(settings.config, settings)
        self.config_valid = True
        self._clock = clock
        self._stopping = stopping
        self._limited_log = RateLimitedLog(log, clock, FAILURE_EVERY_S)
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wake = threading.Event()
        self._reconciler = Reconciler(
            settings,
            served=models,
            readiness=readiness,
            finish=finish,
            forget=forget,
            clock=clock,
            on_death=on_death,
            stopping=stopping,
            guard=guard or ObserverGuard(clock),
            wake=self._wake.set,
        )
        self._models = self._reconciler.models
        self._places = ModelPlaces(settings)
        self._watch = DirectoryWatcher(self._places.paths, self._wake.set)
        self._thread: threading.Thread | None = None
        self._root_error = ""
        self._ignored: Mapping[Path, str] = {}
        self._unknown: frozenset[str] = frozenset()
        if settings.write_config and settings.config is not None:
            from horngate_server.lifecycle import config_file  # noqa: PLC0415 - few need it

            config_file.check(settings.config)

    def begin(self) -> None:
        """Look for the first time and load what is there, on the caller's thread.

        A version that is still being loaded, and gives no sign of life, is waited for no longer.

        Raises:
            ModelError: the root cannot be read, or ``--device gpu`` and there is none.
        """
        self._look(first=True)
        self._reconciler.reconcile()
        self._reconciler.looked()
        if any(self._reconciler.pending(model) for model in self._models.values()):
            self._stopping.wait(self._settings.watch_interval_s)  # those without a manifest must be looked at twice
            self._step()
        for attempt in [each for model in self._models.values() for each in model.attempts()]:
            if attempt.wait(BEGIN_PATIENCE_S):
                self._step()
        self._reconciler.settle()

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
        for loaded in self._loaded():
            loaded.close()

    def executors(self) -> list[Executor]:
        """Return those of all versions that are loaded and not leaving."""
        return [each.executor for each in self._loaded()]

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

    def config_of(self, name: str) -> ModelConfig:
        """Return what is wanted of a model. Callable from any thread."""
        return self._config.of(name)

    @property
    def places(self) -> ModelPlaces:
        """Where the models are."""
        return self._places

    @property
    def ignored(self) -> Mapping[Path, str]:
        """What looks like a model or a version and is none, each with the reason. Callable from any thread."""
        return self._ignored

    def load(self, name: str, done: Done) -> None:
        """Serve a model as its configuration says; versions that were refused are tried again."""
        self._wish(done, lambda commands: commands.load(name))

    def unload(self, name: str, done: Done) -> None:
        """Stop serving a model until it is loaded again."""
        self._wish(done, lambda commands: commands.unload(name))

    def promote(self, name: str, version: int, label: str, done: Done) -> None:
        """Give a version a label, loading it first where it is not loaded."""
        self._wish(done, lambda commands: commands.promote(name, version, label))

    def reload(self, models: Mapping[str, ModelConfig], done: Done) -> None:
        """Serve these models and no others, as these configurations say; not where ``--config`` says it."""
        self._wish(done, lambda commands: self._reload(commands, models))

    # --- private: the thread --------------------------------------------------------------------------

    def _loaded(self) -> list[Loaded]:
        """Return the versions that are loaded and not leaving."""
        models = list(self._models.values())
        return [each.loaded for model in models for each in list(model.versions.values()) if each.loaded]

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
                self._limited_log.note(
                    "look", logging.ERROR, "the look at the models failed; the next one is in %g s",
                    self._settings.watch_interval_s, exc_info=error,
                )  # fmt: skip

    def _carry_out(self) -> None:
        """Do what other threads have asked for."""
        while not self._commands.empty():
            self._commands.get()()

    def _reload(self, commands: ModelCommands, models: Mapping[str, ModelConfig]) -> None:
        if self._settings.config is not None:
            raise Refused(f"models are configured in {self._settings.config}: change it there")
        unknown = sorted(set(models) - set(self._models))
        if unknown:
            raise ModelNotFound(f"no model {', '.join(unknown)}; expected one of {sorted(self._models)}")
        self._config = replace(self._config, models=MappingProxyType(dict(models)))
        commands.reload(models)

    def _wish(self, done: Done, run: Callable[[ModelCommands], None]) -> None:
        def wish() -> None:
            try:
                self._look()
                run(self._commands_now())
            except RequestError as error:
                done(error)
            except HorngateError as error:
                done(Refused(str(error)))
            else:
                done(None)

        self._commands.put(wish)
        self._wake.set()

    def _commands_now(self) -> ModelCommands:
        write = self._write_label if self._settings.write_config else None
        return ModelCommands(self._models, self._reconciler.reconcile, self._reconciler.note_departures, write)

    def _write_label(self, name: str, label: str, number: int) -> None:
        from horngate_server.lifecycle import config_file  # noqa: PLC0415 - few need it

        assert self._settings.config is not None
        self._configure(config_file.set_label(self._settings.config, self._settings, name, label, number))
        log.info("%s says now that label %s of model %s is version %d", self._settings.config, label, name, number)

    def _step(self) -> None:
        if not self._stopping.is_set():
            self._look()
            self._reconciler.reconcile()

    # --- private: looking -----------------------------------------------------------------------------

    def _look(self, *, first: bool = False) -> None:
        """See what has left, what is on disk, and what is in the configuration."""
        self._reconciler.note_departures()
        self._reconciler.note_loads()
        self._look_at_config()
        try:
            listing = self._places.look()
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
                self._models[name] = ModelState(name, self._config.of(name))
        for name, model in self._models.items():
            if name not in listing.unreadable:  # what is loaded serves on; what is not is not forgotten
                model.see(found.get(name, {}), self._clock())
        self._say_unknown()
        self._reconciler.expect()

    def _say_unknown(self) -> None:
        """Say once for which models the file has a section that are not there."""
        unknown = frozenset(self._config.models) - self._models.keys() if self._settings.config else frozenset()
        for name in sorted(unknown - self._unknown):
            like = difflib.get_close_matches(name, self._models, 1)
            hint = f"did you mean {like[0]}?" if like else f"there is {', '.join(sorted(self._models)) or 'none'}"
            log.warning("--config %s: models.%s: there is no such model so far; %s", self._settings.config, name, hint)
        self._unknown = unknown

    def _say_ignored(self, ignored: Mapping[Path, str]) -> None:
        """Say once what looks like a model or a version and is none."""
        for path, reason in ignored.items():
            if self._ignored.get(path) != reason:
                log.warning("%s is ignored: %s", repository.shown(path), reason)
        self._ignored = ignored

    def _look_at_config(self) -> None:
        """Read the configuration again if it has changed; a bad one changes nothing."""
        if self._config_file is None or not self._config_file.seen():
            return
        try:
            config = model_config.read(self._settings.config, self._settings)
        except SettingsError as error:
            self.config_valid = False
            log.error("the configuration stays as it was: %s", error)
            return
        log.info("the configuration has changed: %s", self._settings.config)
        self._configure(config)

    def _configure(self, config: Config) -> None:
        """Take what the file says."""
        self._config = self._without_misnomers(config)
        self.config_valid = True
        for name, model in self._models.items():
            model.configure(self._config.of(name))

    def _without_misnomers(self, config: Config) -> Config:
        """Let a model keep its section that the file has now under a name like it, which no model has."""
        kept = {}
        for name in config.models.keys() - self._models.keys():
            for like in difflib.get_close_matches(name, self._models, 1):
                if like not in config.models and like in self._config.models:
                    log.warning("model %s keeps its configuration, though the file has models.%s instead", like, name)
                    kept[like] = self._config.models[like]
        return replace(config, models=MappingProxyType({**config.models, **kept}))
