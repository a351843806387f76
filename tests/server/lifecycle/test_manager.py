"""Versions appear, prove themselves, take over and leave: real folders, fake models, and a clock that the test owns."""

import errno
import hashlib
import io
import json
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from horngate_protos import tensorflow_serving_pb2 as tfs
from horngate_server.core.errors import (
    InputRefused,
    InvalidRequest,
    ModelError,
    ModelNotFound,
    NotReady,
    Refused,
    RequestError,
    SettingsError,
)
from horngate_server.core.inference import Header, InferenceRequest
from horngate_server.core.observer_guard import ObserverGuard
from horngate_server.core.settings import Limits, Settings
from horngate_server.core.signature import Signature
from horngate_server.engine.batch_queue import Work
from horngate_server.engine.routing import Models
from horngate_server.engine.validation import Plan
from horngate_server.lifecycle import loader, manager, reconciler, repository, version_policy
from horngate_server.lifecycle.load_attempt import Abandoned, LoadAttempt
from horngate_server.lifecycle.manager import Lifecycle
from horngate_server.lifecycle.model_config import ModelConfig
from horngate_server.lifecycle.model_state import ModelVersion, Observers
from horngate_server.lifecycle.readiness import Readiness
from horngate_server.lifecycle.version_state import TRANSITIONS, State
from horngate_server.protocols.open_inference import INFER
from horngate_server.runtimes import tensorflow
from horngate_server.services.model_control import ModelControl
from horngate_server.telemetry.metrics import Metrics
from support.desk import SIGNATURE, Clock, Desk, FakeModel, FakeReply, double
from support.waiting import until

WAIT_S = 20.0


class DeviceModel(FakeModel):
    """A fake with a device, as loading expects of a real one."""

    device = tensorflow.Device("CPU", "CPU:0", "a test's")

    def __init__(self, version: int, signature: Signature) -> None:
        super().__init__(signature)
        self.version = version
        self.compute = lambda inputs: double(inputs)[: len(signature.outputs)]


def publish(root: Path, version: int, *, name: str = "m", manifest: bool = True) -> Path:
    """Write a version as an exporter does: whole, under its final name at once."""
    partial = root / name / f".partial-{version}"
    (partial / "variables").mkdir(parents=True)
    (partial / "saved_model.pb").write_bytes(b"graph")
    (partial / "variables/data").write_bytes(b"weights of %d" % version)
    if manifest:
        seal(partial)
    return partial.rename(root / name / str(version))


def seal(path: Path) -> None:
    """Write the manifest."""
    files = {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in path.rglob("*")
        if file.is_file() and file.name != "horngate.json"
    }
    (path / "assets.extra").mkdir(exist_ok=True)
    (path / "assets.extra/horngate.json").write_text(json.dumps({"files": files}))


class Yard:
    """A lifecycle over a folder, taken step by step."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        self.root = root
        root.mkdir(exist_ok=True)
        self.clock = Clock()
        self.models = Models()
        self.readiness = Readiness()
        self.loaded: list[DeviceModel] = []
        self.broken: dict[int, Exception] = {}
        self.signatures: dict[int, Signature] = {}
        self.more_signatures: dict[int, Signature] = {}
        self.while_loading: Callable[[], None] = lambda: None
        self.while_loading_version: Callable[[int], None] = lambda _: None
        self.unproved: set[int] = set()
        self.forgotten: list[str] = []
        self.finished: list[Any] = []
        monkeypatch.setattr(tensorflow, "load", self._load)
        self._load_version = loader.load
        monkeypatch.setattr(loader, "load", self._proved_or_not)
        self.lifecycle = Lifecycle(
            Settings(models=root, max_batch_rows=4, queue_rows=64, **settings),
            models=self.models,
            readiness=self.readiness,
            finish=lambda *outcome: self.finished.append(outcome),
            forget=lambda _, version: self.forgotten.append(version),
            clock=self.clock,
            on_death=lambda _: None,
            stopping=threading.Event(),
        )

    def _load(self, path: Path, **_: object) -> DeviceModel:
        self.while_loading()
        self.while_loading_version(int(path.name))
        if int(path.name) in self.broken:
            raise self.broken[int(path.name)]
        model = DeviceModel(int(path.name), self.signatures.get(int(path.name), SIGNATURE))
        if (more := self.more_signatures.get(int(path.name))) is not None:
            model.signatures[more.name] = more
        self.loaded.append(model)
        return model

    def _proved_or_not(self, path: Path, *arguments: Any, **more: Any) -> loader.Loaded:
        loaded = self._load_version(path, *arguments, **more)
        return replace(loaded, report=replace(loaded.report, proved=int(path.name) not in self.unproved))

    def look(self, *, seconds: float = 1.0) -> None:
        """Let time pass and the lifecycle look."""
        self.clock.now += seconds
        self.lifecycle._step()
        for model in self.lifecycle._models.values():
            for departure in model.departures:
                departure.thread.join(WAIT_S)
        self.lifecycle._reconciler.note_departures()

    def state(self, version: int, name: str = "m") -> tuple[str, str]:
        """Return a version's state and reason."""
        return next(
            (each.state, each.reason)
            for each in self.lifecycle.states()
            if (each.name, each.version) == (name, version)
        )

    def answers(self, version: str = "", name: str = "m") -> str:
        """Return which version answers."""
        return self.models.get(name, version).info.version

    def wish(self, wish: Callable[[Callable[[RequestError | None], None]], None]) -> RequestError | None:
        """Make an administrator's wish, and return how it ended."""
        ended: list[RequestError | None] = []
        wish(ended.append)
        self.lifecycle._carry_out()
        return ended[0]


@pytest.fixture
def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Yard]:
    """An empty root, looked at once a second."""
    made = Yard(tmp_path / "models", monkeypatch)
    yield made
    made.lifecycle.stop(WAIT_S)
    assert made.lifecycle.drain(WAIT_S)
    made.lifecycle.close()
    assert all(model.closed for model in made.loaded)


def test_an_empty_root_is_not_ready_until_a_model_comes(yard: Yard) -> None:
    """Live, not ready, and ready once a model has been published."""
    yard.lifecycle.begin()
    assert not yard.readiness.serving()
    publish(yard.root, 1)
    yard.look()
    assert yard.readiness.serving()
    assert yard.readiness.serving("m")
    assert yard.answers() == "1"


def test_a_new_version_takes_over_and_the_old_one_leaves(yard: Yard) -> None:
    """The newest version answers; the one before is drained and closed, and can no longer be asked for."""
    publish(yard.root, 1)
    yard.lifecycle.begin()
    publish(yard.root, 2)
    yard.look()
    assert yard.answers() == "2"
    assert yard.state(1) == ("ended", "version 2 answers instead")
    assert [model.closed for model in yard.loaded] == [True, False]
    with pytest.raises(ModelNotFound, match="has no version '1'; it serves versions 2"):
        yard.answers("1")


def test_a_foreign_version_counts_once_its_files_are_still_for_two_looks(yard: Yard) -> None:
    """Without a manifest, a folder that still grows is not touched."""
    publish(yard.root, 1)
    yard.lifecycle.begin()
    path = publish(yard.root, 2, manifest=False)
    yard.look()
    (path / "variables/data").write_bytes(b"more")
    yard.look()
    assert yard.answers() == "1"
    yard.look()
    assert yard.answers() == "2"


def test_a_half_copied_version_waits_in_silence_and_serves_when_it_is_whole(
    yard: Yard, caplog: pytest.LogCaptureFixture
) -> None:
    """A manifest that came before its files: not refused while the copy goes on, loaded as soon as it agrees."""
    yard.lifecycle.begin()
    whole = publish(yard.root, 1, name="elsewhere")
    weights = (whole / "variables/data").read_bytes()
    (whole / "variables/data").unlink()
    (yard.root / "m").mkdir()
    path = whole.rename(yard.root / "m/1")
    yard.look(seconds=0.5)
    (path / "variables/data").write_bytes(weights[:3])
    yard.look(seconds=0.5)
    assert yard.state(1)[0] == "found"
    assert "refused" not in caplog.text
    (path / "variables/data").write_bytes(weights)
    yard.look(seconds=0.5)
    assert yard.answers() == "1"


def flip(path: Path) -> None:
    """Damage one byte."""
    (path / "variables/data").write_bytes(b"x" + (path / "variables/data").read_bytes()[1:])


def truncate(path: Path) -> None:
    """Lose the last byte."""
    (path / "variables/data").write_bytes((path / "variables/data").read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        pytest.param(truncate, "SHA-256 differs", id="truncated"),
        pytest.param(flip, "SHA-256 differs", id="flipped"),
        pytest.param(lambda path: (path / "saved_model.pb").unlink(), "has no saved_model.pb", id="graph"),
        pytest.param(lambda path: (path / "assets.extra/horngate.json").write_text("{"), "not JSON", id="manifest"),
    ],
)
def test_a_damaged_version_is_refused_once_and_the_old_one_serves_on(
    yard: Yard, damage: Callable[[Path], object], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """State and reason are there to see, the log has one line, and nobody ever gets to it."""
    publish(yard.root, 1)
    yard.lifecycle.begin()
    damage(publish(yard.root, 2))
    for _ in range(5):
        yard.look()
    state, why = yard.state(2)
    assert state == "failed"
    assert reason in why
    assert yard.answers() == "1"
    assert caplog.text.count("version 2 is refused") == 1


@pytest.mark.parametrize("error", [ModelError("it disagrees with its recorded answers"), ModelError("no signature")])
def test_a_version_that_cannot_prove_itself_is_refused_until_its_files_change(yard: Yard, error: ModelError) -> None:
    """It is not tried again and again; a new try follows a change."""
    publish(yard.root, 1)
    yard.lifecycle.begin()
    path = publish(yard.root, 2)
    yard.broken[2] = error
    for _ in range(3):
        yard.look()
    assert yard.state(2) == ("failed", str(error))
    yard.broken.clear()
    yard.look()
    assert yard.answers() == "1"
    (path / "variables/data").write_bytes(b"better weights")
    seal(path)
    yard.look()
    assert yard.answers() == "2"


def test_a_version_that_callers_could_not_talk_to_is_refused(configured: Callable[[str], Yard]) -> None:
    """Other inputs, or an output less: the old version stays, unless the configuration says that it is meant."""
    yard = configured("")
    publish(yard.root, 1)
    yard.lifecycle.begin()
    yard.signatures[2] = Signature("serving_default", SIGNATURE.inputs, SIGNATURE.outputs[:1])
    publish(yard.root, 2)
    yard.look()
    yard.look()
    assert yard.answers() == "1"
    assert "version 1's callers rely on (x INT32[?,2]) -> " in yard.state(2)[1]
    assert yard.loaded[-1].closed
    configured("[models.m]\nany_signature = true")
    (yard.root / "m/2/variables/data").touch()
    yard.look()
    assert yard.answers() == "2"


def test_an_older_version_serves_when_the_newest_is_refused_at_start(yard: Yard) -> None:
    """A bad version never keeps a good one from serving."""
    publish(yard.root, 1)
    publish(yard.root, 2)
    yard.broken[2] = ModelError("broken")
    yard.lifecycle.begin()
    yard.look()
    assert yard.answers() == "1"
    assert yard.state(2) == ("failed", "broken")


def test_a_model_with_no_good_version_says_why_to_its_callers(yard: Yard) -> None:
    """UNAVAILABLE with the reason, rather than a model that nobody has heard of."""
    publish(yard.root, 1)
    yard.broken[1] = ModelError("broken")
    yard.lifecycle.begin()
    yard.look()
    with pytest.raises(NotReady, match="model 'm' cannot be served: version 1: broken"):
        yard.answers()


def test_a_folder_deleted_while_it_loads_is_never_served(yard: Yard, caplog: pytest.LogCaptureFixture) -> None:
    """The old version stays, and the log says what happened."""
    publish(yard.root, 1)
    yard.lifecycle.begin()
    path = publish(yard.root, 2)
    yard.while_loading = lambda: shutil.rmtree(path)
    yard.look()
    yard.look()
    assert yard.answers() == "1"
    assert "version 2 vanished while it was loaded" in caplog.text
    assert [each.version for each in yard.lifecycle.states()] == [1]


def test_files_that_change_while_they_load_are_never_served(yard: Yard) -> None:
    """What was verified and what was loaded must be the same files."""
    publish(yard.root, 1)
    yard.lifecycle.begin()
    path = publish(yard.root, 2)

    def overwrite() -> None:
        (path / "saved_model.pb").write_bytes(os.urandom(8))

    yard.while_loading = overwrite
    yard.look()
    assert yard.answers() == "1"
    assert yard.loaded[-1].closed


def test_a_folder_deleted_while_it_serves_serves_on(yard: Yard, caplog: pytest.LogCaptureFixture) -> None:
    """From memory, and the state says so; once."""
    shutil.rmtree(publish(yard.root, 1).parent / "2", ignore_errors=True)
    yard.lifecycle.begin()
    shutil.rmtree(yard.root / "m/1")
    for _ in range(3):
        yard.look()
    assert yard.answers() == "1"
    assert yard.state(1) == ("ready", "its folder is gone; it serves on from memory")
    assert caplog.text.count("its folder is gone") == 1


def test_deleting_the_newest_version_rolls_back_to_the_one_before(yard: Yard) -> None:
    """As with TensorFlow Serving; the one before has to prove itself again."""
    publish(yard.root, 1)
    path = publish(yard.root, 2)
    yard.lifecycle.begin()
    shutil.rmtree(path)
    yard.look()
    assert yard.answers() == "1"
    assert yard.state(2)[0] == "ended"


def test_a_version_overwritten_in_place_serves_on_as_it_was_loaded(
    yard: Yard, caplog: pytest.LogCaptureFixture
) -> None:
    """Its state tells the operator to publish a new version instead."""
    path = publish(yard.root, 1)
    yard.lifecycle.begin()
    flip(path)
    yard.look()
    yard.look()
    assert yard.state(1) == ("ready", "its files have changed since it was loaded; it serves on from memory")
    assert len(yard.loaded) == 1
    assert caplog.text.count("its files have changed") == 1


@pytest.mark.slow
def test_times_far_off_in_either_direction_do_not_matter(yard: Yard) -> None:
    """A clock set back, or files from the future: only a difference counts."""
    for version, when in ((1, 4e9), (2, 0.0), (3, 1e9)):
        path = publish(yard.root, version, manifest=False)
        for file in path.rglob("*"):
            os.utime(file, (when, when))
        if version == 1:
            yard.lifecycle.begin()
        yard.look()
        yard.look()
        assert yard.answers() == str(version)


def test_a_root_that_vanishes_for_a_while_changes_nothing(yard: Yard, caplog: pytest.LogCaptureFixture) -> None:
    """A network file system that is away: what is loaded serves on, and the log says it once."""
    publish(yard.root, 1)
    yard.lifecycle.begin()
    yard.root.rename(yard.root.with_name("away"))
    yard.look()
    yard.look()
    assert yard.answers() == "1"
    assert caplog.text.count("what is loaded serves on") == 1
    yard.root.with_name("away").rename(yard.root)
    publish(yard.root, 2)
    yard.look()
    assert yard.answers() == "2"


def test_the_server_writes_nothing_into_the_root(yard: Yard) -> None:
    """A read-only root is enough: not a file more, less or newer after loading, serving and leaving."""
    publish(yard.root, 1)
    publish(yard.root, 2)
    before = {path: path.stat().st_mtime_ns for path in yard.root.rglob("*")}
    yard.lifecycle.begin()
    yard.look()
    assert {path: path.stat().st_mtime_ns for path in yard.root.rglob("*")} == before


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Yard]]:
    """Makes a yard with a configuration, or gives it another one."""
    yards: list[Yard] = []

    def make(text: str) -> Yard:
        path = tmp_path / "models.toml"
        path.with_suffix(".new").write_text(text)
        path.with_suffix(".new").rename(path)
        if not yards:
            yards.append(Yard(tmp_path / "models", monkeypatch, config=path))
        return yards[0]

    yield make
    for yard in yards:
        yard.lifecycle.stop(WAIT_S)
        assert yard.lifecycle.drain(WAIT_S)
        yard.lifecycle.close()


def test_labels_say_who_answers_whom(configured: Callable[[str], Yard]) -> None:
    """Without a version callers get stable; a label or a number gets its own; the rest is not served."""
    yard = configured("[models.m]\nlabels = { stable = 1, canary = 3 }")
    for version in (1, 2, 3):
        publish(yard.root, version)
    yard.lifecycle.begin()
    assert [yard.answers(each) for each in ("", "stable", "canary", "1", "3")] == ["1", "1", "3", "1", "3"]
    with pytest.raises(ModelNotFound, match="serves versions 1, 3, labels canary, stable"):
        yard.answers("2")
    configured("[models.m]\nlabels = { stable = 3 }")
    yard.look()
    assert [yard.answers(each) for each in ("", "stable")] == ["3", "3"]
    assert yard.state(1)[0] == "ended"


@pytest.mark.parametrize(
    ("text", "served"),
    [("", ["3"]), ("latest = 2", ["2", "3"]), ('versions = "all"', ["1", "2", "3"]), ("versions = [1, 2]", ["1", "2"])],
)
def test_policies_choose_what_is_served(configured: Callable[[str], Yard], text: str, served: list[str]) -> None:
    """The newest, the newest N, all, or these."""
    yard = configured(f"[models.m]\n{text}")
    for version in (1, 2, 3):
        publish(yard.root, version)
    yard.lifecycle.begin()
    assert yard.models.versions("m") == served
    assert yard.answers() == served[-1]


def test_a_bad_configuration_changes_nothing_and_says_where_it_is_wrong(
    configured: Callable[[str], Yard], caplog: pytest.LogCaptureFixture
) -> None:
    """At start it ends the start; later what was there before stands, until a good one comes."""
    yard = configured("[models.m]\nlabels = { stable = 1 }")
    publish(yard.root, 1)
    publish(yard.root, 2)
    yard.lifecycle.begin()
    configured('[models.m]\nlatest = "two"')
    yard.look()
    yard.look()
    assert caplog.text.count("models.m.latest: expected a whole number above 0, came 'two'") == 1
    assert [yard.lifecycle.config_valid, yard.answers()] == [False, "1"]
    with pytest.raises(SettingsError, match="models.m.latest"):
        Lifecycle(
            yard.lifecycle._settings, models=yard.models, readiness=yard.readiness, finish=lambda *_: None,
            forget=lambda *_: None, clock=yard.clock, on_death=lambda _: None, stopping=threading.Event(),
        )  # fmt: skip
    configured("")
    yard.look()
    assert [yard.lifecycle.config_valid, yard.answers()] == [True, "2"]


def test_new_limits_take_effect_by_loading_beside(configured: Callable[[str], Yard]) -> None:
    """The version that serves is replaced by itself, with the new limits; the old copy is closed."""
    yard = configured("")
    publish(yard.root, 1)
    yard.lifecycle.begin()
    assert yard.models.get("m").executor.capacity_rows == 64
    configured("[models.m]\nqueue_rows = 8")
    yard.look()
    assert yard.models.get("m").executor.capacity_rows == 8
    assert [model.closed for model in yard.loaded] == [True, False]


def test_new_limits_for_a_version_that_cannot_be_loaded_again_leave_it_serving(
    configured: Callable[[str], Yard], caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried once and serves on with the limits that it has; its state says so."""
    yard = configured("")
    publish(yard.root, 1)
    yard.lifecycle.begin()
    yard.look()
    yard.broken[1] = ModelError("no memory")
    configured("[models.m]\nqueue_rows = 8")
    for _ in range(4):
        yard.look()
    assert yard.models.get("m").executor.capacity_rows == 64
    assert yard.state(1) == ("ready", "it could not be loaded again, with other limits: no memory")
    assert caplog.text.count("version 1 is refused") == 1


def test_a_label_for_a_version_that_is_not_there_is_said_once(
    configured: Callable[[str], Yard], caplog: pytest.LogCaptureFixture
) -> None:
    """The others go on; callers of the label hear which labels there are."""
    yard = configured("[models.m]\nlabels = { canary = 9 }")
    publish(yard.root, 1)
    yard.lifecycle.begin()
    yard.look()
    yard.look()
    assert yard.answers() == "1"
    assert caplog.text.count("label canary is version 9, which is not served") == 1
    with pytest.raises(ModelNotFound, match="no version 'canary'"):
        yard.answers("canary")


def test_a_shadow_answers_nobody_until_it_is_promoted(configured: Callable[[str], Yard]) -> None:
    """It is loaded beside stable and cannot be asked for; a label makes it answer, and it stops being a shadow."""
    yard = configured("[models.m]\nshadow = { version = 2, share = 1.0 }")
    publish(yard.root, 1)
    publish(yard.root, 2)
    yard.lifecycle.begin()
    assert yard.answers() == "1"
    with pytest.raises(ModelNotFound):
        yard.answers("2")
    assert [each.shadow is not None for each in yard.lifecycle.states()] == [False, True]
    configured("[models.m]\nshadow = { version = 2 }\nlabels = { stable = 2 }")
    yard.look()
    assert yard.answers() == "2"
    assert all(each.shadow is None for each in yard.lifecycle.states())


def test_an_administrator_promotes_unloads_and_loads(yard: Yard) -> None:
    """Promotion loads what is not loaded; unloading takes the model out until it is loaded again."""
    publish(yard.root, 1)
    publish(yard.root, 2)
    yard.lifecycle.begin()
    assert yard.wish(lambda done: yard.lifecycle.promote("m", 1, "stable", done)) is None
    assert yard.answers() == "1"
    assert yard.answers("stable") == "1"
    assert yard.wish(lambda done: yard.lifecycle.unload("m", done)) is None
    assert not yard.readiness.serving("m")
    with pytest.raises(ModelNotFound):
        yard.answers()
    assert yard.wish(lambda done: yard.lifecycle.load("m", done)) is None
    assert yard.answers() == "1"


def test_what_cannot_be_promoted_changes_nothing(yard: Yard) -> None:
    """A version that is not there, or is refused: the wish fails with the reason, and the label stays where it was."""
    publish(yard.root, 1)
    publish(yard.root, 2)
    yard.broken[2] = ModelError("it disagrees")
    yard.lifecycle.begin()
    yard.look()
    error = yard.wish(lambda done: yard.lifecycle.promote("m", 2, "stable", done))
    assert error is not None
    assert "version 2 cannot be served: it disagrees" in str(error)
    assert isinstance(yard.wish(lambda done: yard.lifecycle.promote("m", 9, "stable", done)), ModelNotFound)
    assert isinstance(yard.wish(lambda done: yard.lifecycle.load("nobody", done)), ModelNotFound)
    assert yard.answers() == "1"
    assert "stable" not in [label for each in yard.lifecycle.states() for label in each.labels]


def test_a_label_of_the_configuration_is_changed_there_alone(configured: Callable[[str], Yard]) -> None:
    """Else the next reading of the file would undo what an administrator was told is done."""
    yard = configured("[models.m]\nlabels = { stable = 1 }")
    publish(yard.root, 1)
    publish(yard.root, 2)
    yard.lifecycle.begin()
    error = yard.wish(lambda done: yard.lifecycle.promote("m", 2, "stable", done))
    assert error is not None
    assert "is set in --config" in str(error)


def test_versions_that_left_long_ago_are_forgotten(yard: Yard) -> None:
    """Eight are remembered: a trainer that publishes every minute must not fill memory and metrics."""
    publish(yard.root, 1)
    yard.lifecycle.begin()
    for version in range(2, 14):
        publish(yard.root, version)
        yard.look()
        shutil.rmtree(yard.root / "m" / str(version - 1))
    yard.look()
    assert [each.version for each in yard.lifecycle.states()] == [5, 6, 7, 8, 9, 10, 11, 12, 13]
    assert yard.forgotten == ["1", "2", "3", "4"]


def test_a_look_that_fails_costs_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    """The callers have their answers; every failure is counted, and the log has one line of a burst."""

    class Broken:
        def offer(self, _: object) -> None:
            raise RuntimeError("broken")

    with Desk(clock=Clock()) as desk:
        guard = ObserverGuard(desk.clock)
        observers = Observers(desk.executor._finish, guard)
        observers.shadow = Broken()  # type: ignore[assignment]
        desk.executor._finish = observers.finish
        assert desk.ask([[1, 2]]).status() == "OK"
        assert desk.ask([[1, 2]]).status() == "OK"
        assert not desk.died
    assert guard.errors == {"shadow": 2}
    assert caplog.text.count("shadow: RuntimeError: broken. This is a bug") == 1


def test_an_unforeseen_failure_while_loading_refuses_the_version(yard: Yard) -> None:
    """It is no reason to stop looking, nor to leave the version loading for ever."""
    publish(yard.root, 1)
    yard.lifecycle.begin()
    publish(yard.root, 2)
    yard.broken[2] = ZeroDivisionError("unforeseen")
    yard.look()
    yard.look()
    assert yard.answers() == "1"
    assert yard.state(2) == ("failed", "ZeroDivisionError: unforeseen. This is a bug.")


def test_a_request_that_comes_too_late_for_a_version_goes_to_the_next(caplog: pytest.LogCaptureFixture) -> None:
    """Between looking up who answers and getting in line, the version may have left: the caller does not notice."""
    caplog.set_level(logging.INFO)
    with Desk() as old, Desk() as new:
        service, models = old.service, old.models
        served = models.get("m")
        old.executor.stop(WAIT_S)
        stale = [served, new.models.get("m")]
        models.get = lambda *_: stale.pop(0)  # type: ignore[method-assign]
        new.executor._finish = service.finish
        reply = old.ask([[1, 2]])
        assert reply.output("double").tolist() == [[2, 4]]
        assert not stale


@given(
    st.sets(st.integers(1, 8)), st.sets(st.integers(1, 8)), st.sets(st.integers(1, 8)),
    st.dictionaries(st.sampled_from(["stable", "canary"]), st.integers(1, 8)),
    st.one_of(st.none(), st.integers(1, 8)), st.integers(1, 3), st.one_of(st.none(), st.frozensets(st.integers(1, 8))),
)  # fmt: skip
def test_nothing_is_taken_out_before_somebody_wanted_can_answer(
    on_disk: set[int],
    refused: set[int],
    ready: set[int],
    labels: dict[str, int],
    shadow: int | None,
    latest: int,
    versions: frozenset[int] | None,
) -> None:
    """Whatever is there, wanted and ready: who answered before has a successor, and no refused or shadow one does."""
    config = ModelConfig(Limits(4, 4, 0.0), latest, versions, labels, shadow)
    wanted = version_policy.wanted(config, labels.values(), on_disk, refused)
    assert set(wanted) <= on_disk - refused
    before = version_policy.route(ready, wanted, labels, shadow, None)
    gone = version_policy.removable(wanted, ready, refused, before.default)
    assert gone <= ready - set(wanted)
    after = version_policy.route(ready - gone, wanted, labels, shadow, before.default)
    assert after.default == before.default
    if after.default is not None and after.default == shadow:
        assert shadow in labels.values()


def test_who_answers_stays_while_the_new_stable_version_cannot(configured: Callable[[str], Yard]) -> None:
    """A label that moves to a broken version moves nobody: neither to it nor to the newest one."""
    yard = configured("[models.m]\nlabels = { stable = 1 }")
    for version in (1, 2, 3):
        publish(yard.root, version)
    yard.broken[3] = ModelError("broken")
    yard.lifecycle.begin()
    configured("[models.m]\nlabels = { stable = 3 }")
    for _ in range(3):
        yard.look()
    assert yard.answers() == "1"
    yard.broken.clear()
    (yard.root / "m/3/variables/data").touch()
    yard.look()
    assert yard.answers() == "3"
    assert yard.state(1)[0] == "ended"


def test_the_thread_sees_a_new_version_by_itself(yard: Yard) -> None:
    """Real time, real notice from the file system."""
    yard.clock.now = 0.0
    publish(yard.root, 1)
    yard.lifecycle.start().result(WAIT_S)
    publish(yard.root, 2)
    until(lambda: yard.answers() == "2")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for a load that gives no sign of life."""
    monkeypatch.setattr(reconciler, "PATIENCE_S", 0.1)
    monkeypatch.setattr(manager, "BEGIN_PATIENCE_S", 0.1)


class HungDisk:
    """Files of one version that nobody can read until the disk answers again."""

    def __init__(self, yard: Yard, version: int) -> None:
        self.answers = threading.Event()
        self._yard, self._version = yard, version
        yard.while_loading_version = self._read

    def _read(self, version: int) -> None:
        if version == self._version:
            self._yard.clock.now += reconciler.PATIENCE_S
            assert self.answers.wait(WAIT_S)


@pytest.mark.usefixtures("impatient")
def test_a_version_whose_files_do_not_answer_keeps_no_other_from_serving(yard: Yard) -> None:
    """The next older version and other models are loaded beside it; it takes over when its disk answers again."""
    disk = HungDisk(yard, 2)
    for version, name in ((1, "m"), (2, "m"), (1, "other")):
        publish(yard.root, version, name=name)
    yard.lifecycle.begin()
    assert (yard.answers(), yard.answers(name="other")) == ("1", "1")
    assert yard.state(2) == ("loading", "it is being loaded, without a sign of life for 0.1 s")
    disk.answers.set()
    [attempt] = yard.lifecycle._models["m"].attempts()
    attempt.thread.join(WAIT_S)
    yard.look()
    assert yard.answers() == "2"
    assert yard.state(1)[0] == "ended"


@pytest.mark.usefixtures("impatient")
def test_the_end_does_not_wait_for_a_load(yard: Yard) -> None:
    """A lifecycle that stops gives up what it loads; what comes of it all the same is closed."""
    disk = HungDisk(yard, 1)
    publish(yard.root, 1)
    yard.lifecycle.begin()
    [attempt] = yard.lifecycle._models["m"].attempts()
    assert yard.lifecycle.stop(WAIT_S)
    assert not attempt.done
    disk.answers.set()
    attempt.thread.join(WAIT_S)
    with pytest.raises(Abandoned):
        attempt.take()
    assert [model.closed for model in yard.loaded] == [True]


def test_what_was_loaded_and_given_up_is_closed_and_nobodys(yard: Yard) -> None:
    """The end may come between a load and its being taken: what is closed never serves."""
    publish(yard.root, 1)
    ended = threading.Event()

    def load(_alive: Callable[[], None]) -> loader.Loaded:
        return loader.load(
            yard.root / "m/1", Settings(models=yard.root), Limits(4, 64, 0.0), finish=lambda *_: None, clock=yard.clock,
            on_death=lambda _: None,
        )  # fmt: skip

    attempt = LoadAttempt(load, "m-1", yard.clock, ended.set)
    assert ended.wait(WAIT_S)
    attempt.abandon()
    with pytest.raises(Abandoned):
        attempt.take()
    assert [model.closed for model in yard.loaded] == [True]


@pytest.mark.usefixtures("impatient")
def test_a_version_that_vanishes_while_it_is_loaded_is_given_up(yard: Yard) -> None:
    """Nobody serves what is no longer on disk and was never loaded."""
    disk = HungDisk(yard, 1)
    path = publish(yard.root, 1)
    yard.lifecycle.begin()
    [attempt] = yard.lifecycle._models["m"].attempts()
    shutil.rmtree(path)
    yard.look()
    disk.answers.set()
    attempt.thread.join(WAIT_S)
    yard.look()
    assert not yard.lifecycle.states()
    assert [model.closed for model in yard.loaded] == [True]


def test_a_version_whose_model_does_not_return_leaves_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the grace period it has ended and may be loaded again; its model is closed once it returns."""
    yard = Yard(tmp_path / "models", monkeypatch, grace_period_s=0.05)
    publish(yard.root, 1)
    yard.lifecycle.begin()
    hung = yard.loaded[0]
    hung.gate.clear()
    served = yard.models.get("m", "")
    request = InferenceRequest(Header("m", "", ()), "", ())
    plan = Plan(served.info, rows=1, order=(0,), sizes=(8,), shapes=((2,),), alike=("m", False, ((2,),)))
    data = np.ones(2, np.int32).tobytes()
    served.executor._quick_s = 0.0
    assert not served.executor.submit([Work(FakeReply(), INFER, request, plan, (data,), 0.0, inf)])
    publish(yard.root, 2)
    yard.clock.now += 1
    yard.lifecycle._step()
    [departure] = yard.lifecycle._models["m"].departures
    departure.wait()
    yard.lifecycle._reconciler.note_departures()
    assert yard.state(1) == (
        "ended",
        "version 2 answers instead; its model has not returned within 0.05 s, and keeps its memory until it does",
    )
    assert [model.closed for model in yard.loaded] == [False, False]
    hung.gate.set()
    departure.thread.join(WAIT_S)
    assert [model.closed for model in yard.loaded] == [True, False]
    yard.lifecycle.stop(WAIT_S)
    assert yard.lifecycle.drain(WAIT_S)
    yard.lifecycle.close()


@given(st.lists(st.sampled_from(State), min_size=1, max_size=8))
def test_a_version_takes_only_the_ways_that_the_table_has(states: list[State]) -> None:
    """Whatever it is told to become, it ends up where the table says, and says so where it may not go."""
    version = ModelVersion(1, Path("m/1"), on_disk=True, seen=frozenset(), changed=0.0, since=0.0)
    for state in states:
        before = version.state
        if state is before or state in TRANSITIONS[before]:
            version.become(state, "", 1.0)
            assert version.state is state
        else:
            with pytest.raises(ValueError, match=f"version 1 is {before} and cannot become {state}"):
                version.become(state, "", 1.0)
            assert version.state is before


def test_every_state_leads_to_one_that_may_be_loaded() -> None:
    """No version is stuck: from each state there is a way to LOADING."""
    for state in State:
        reached = {state}
        while (more := {after for each in reached for after in TRANSITIONS[each]}) - reached:
            reached |= more
        assert State.LOADING in reached


class Told:
    """How a deferred call was answered."""

    def __init__(self, yard: Yard, config: tfs.ModelServerConfig) -> None:
        answers: list[bytes | RequestError] = []
        ModelControl(yard.lifecycle, Metrics(CollectorRegistry()), yard.clock).reload(
            tfs.ReloadConfigRequest(config=config).SerializeToString(), answers.append
        )
        yard.lifecycle._carry_out()
        [self.answer] = answers


def served(*models: tfs.ModelConfig) -> tfs.ModelServerConfig:
    """Make a configuration of these models."""
    return tfs.ModelServerConfig(model_config_list=tfs.ModelConfigList(config=models))


def test_tensorflow_servings_reload_says_what_is_served_from_now_on(yard: Yard) -> None:
    """Versions, labels, models; those that it does not name are unloaded, and come back with the next one."""
    for version in (1, 2, 3):
        publish(yard.root, version)
    publish(yard.root, 1, name="n")
    yard.lifecycle.begin()
    every = tfs.ServableVersionPolicy(all=tfs.ServableVersionPolicy.All())
    both = tfs.ModelConfig(
        name="m", base_path=str(yard.root / "m"), model_version_policy=every, version_labels={"stable": 2, "canary": 3}
    )
    assert isinstance(Told(yard, served(both)).answer, bytes)
    assert yard.models.versions("m") == ["1", "2", "3"]
    assert [yard.answers(), yard.answers("canary")] == ["2", "3"]
    with pytest.raises(ModelNotFound):
        yard.answers(name="n")
    specific = tfs.ServableVersionPolicy(specific=tfs.ServableVersionPolicy.Specific(versions=[1]))
    one = tfs.ModelConfig(name="m", model_version_policy=specific)
    latest = tfs.ModelConfig(
        name="n",
        model_version_policy=tfs.ServableVersionPolicy(latest=tfs.ServableVersionPolicy.Latest(num_versions=2)),
    )
    assert isinstance(Told(yard, served(one, latest)).answer, bytes)
    assert (yard.models.versions("m"), yard.answers(), yard.answers(name="n")) == (["1"], "1", "1")


@pytest.mark.parametrize(
    ("config", "error", "said"),
    [
        pytest.param(tfs.ModelServerConfig(), InvalidRequest, "expected a ModelConfigList", id="unset"),
        pytest.param(served(tfs.ModelConfig(name="m"), tfs.ModelConfig(name="m")), InvalidRequest, "once", id="twice"),
        pytest.param(
            served(tfs.ModelConfig(name="m", base_path="/elsewhere/m")), InvalidRequest, "base_path", id="elsewhere"
        ),
        pytest.param(
            served(tfs.ModelConfig(name="m", model_platform="caffe")), InvalidRequest, "expected tensorflow", id="kind"
        ),
        pytest.param(
            served(tfs.ModelConfig(name="m", version_labels={"3": 3})), InvalidRequest, "no number", id="number"
        ),
        pytest.param(served(tfs.ModelConfig(name="x")), ModelNotFound, "no model x", id="unknown-model"),
        pytest.param(
            served(tfs.ModelConfig(name="m", version_labels={"canary": 9})),
            Refused, "label canary is version 9, which is not served", id="label-of-nothing",
        ),
    ],
)  # fmt: skip
def test_a_reload_that_cannot_be_done_says_why(
    yard: Yard, config: tfs.ModelServerConfig, error: type[RequestError], said: str
) -> None:
    """What makes no sense is refused before anything changes."""
    publish(yard.root, 1)
    yard.lifecycle.begin()
    try:
        answer: object = Told(yard, config).answer
    except RequestError as raised:
        answer = raised
    assert isinstance(answer, error)
    assert said in str(answer)
    assert yard.answers() == "1"


def test_a_reload_is_refused_where_a_file_says_what_is_served(configured: Callable[[str], Yard]) -> None:
    """Else the file would undo what a caller was told is done."""
    yard = configured("")
    publish(yard.root, 1)
    yard.lifecycle.begin()
    answer = Told(yard, served(tfs.ModelConfig(name="m"))).answer
    assert isinstance(answer, Refused)
    assert "change it there" in str(answer)


def test_a_version_without_a_signature_that_callers_use_is_refused(yard: Yard) -> None:
    """Not only the default one: whoever asks by name must be answered too."""
    publish(yard.root, 1)
    more = Signature("more", SIGNATURE.inputs, SIGNATURE.outputs)
    yard.more_signatures[1] = more
    yard.lifecycle.begin()
    publish(yard.root, 2)
    yard.look()
    yard.look()
    assert yard.answers() == "1"
    assert "its signature more is not there" in yard.state(2)[1]


def test_numbers_that_no_protocol_can_name_are_no_versions(yard: Yard, caplog: pytest.LogCaptureFixture) -> None:
    """A version is a whole number of 64 bits with a sign; a larger one is ignored, and the log names it once."""
    publish(yard.root, 1)
    publish(yard.root, 20261126035230123456)
    yard.lifecycle.begin()
    yard.look()
    yard.look()
    assert yard.answers() == "1"
    assert [each.version for each in yard.lifecycle.states()] == [1]
    assert caplog.text.count("m/20261126035230123456 is ignored: it is no version") == 1


def test_a_version_of_5000_digits_is_no_version() -> None:
    """Python itself would not read it; leading zeros do not count."""
    assert repository._number("9" * 5000) is None
    assert repository._number("0" * 300 + "7") == 7
    assert repository._number(str((1 << 63) - 1)) == (1 << 63) - 1


def test_an_empty_version_says_so_until_something_is_in_it(yard: Yard, caplog: pytest.LogCaptureFixture) -> None:
    """Its state has the reason, and the log one line."""
    publish(yard.root, 1)
    yard.lifecycle.begin()
    (yard.root / "m/2").mkdir()
    for _ in range(3):
        yard.look()
    assert yard.state(2) == ("found", "its folder is empty")
    assert caplog.text.count("m/2 is empty") == 1
    shutil.rmtree(yard.root / "m/2")
    publish(yard.root, 2)
    yard.look()
    assert yard.answers() == "2"


def forbid(monkeypatch: pytest.MonkeyPatch, forbidden: Path) -> None:
    """Let a file or a folder be unreadable, whoever runs the test."""
    scandir, opened, stat = os.scandir, io.open, os.stat

    def closed(path: Any, *, itself: bool = True) -> None:
        if (
            isinstance(path, str | Path)
            and (Path(path) == forbidden) <= itself
            and Path(path).is_relative_to(forbidden)
        ):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

    def scan(path: Any = ".") -> Any:
        closed(path)
        return scandir(path)

    def open_file(path: Any, *arguments: Any, **more: Any) -> Any:
        closed(path)
        return opened(path, *arguments, **more)

    def look(path: Any, **more: Any) -> Any:
        closed(path, itself=False)
        return stat(path, **more)

    monkeypatch.setattr(os, "scandir", scan)
    monkeypatch.setattr(os, "listdir", lambda path=".": [each.name for each in scan(path)])
    monkeypatch.setattr(os, "stat", look)
    monkeypatch.setattr(io, "open", open_file)


@pytest.mark.parametrize("what", ["", "saved_model.pb", "assets.extra/horngate.json"])
def test_a_version_that_cannot_be_read_says_why_and_is_tried_again(yard: Yard, what: str) -> None:
    """A folder or a file without permission: the state has the reason, and what served before serves on."""
    publish(yard.root, 1)
    yard.lifecycle.begin()
    with pytest.MonkeyPatch.context() as patch:
        path = publish(yard.root, 2)
        forbid(patch, path / what if what else path)
        for _ in range(3):
            yard.look()
        state, reason = yard.state(2)
        assert state == "failed"
        assert "cannot be read: Permission denied" in reason
        assert yard.answers() == "1"
    (path / "saved_model.pb").chmod(0o640)
    yard.look()
    assert yard.answers() == "2"


def test_a_model_whose_folder_cannot_be_read_for_a_while_serves_on(
    yard: Yard, caplog: pytest.LogCaptureFixture
) -> None:
    """Its versions are not taken for gone; the log says why once, and others are not held up."""
    publish(yard.root, 1)
    yard.lifecycle.begin()
    with pytest.MonkeyPatch.context() as patch:
        forbid(patch, yard.root / "m")
        publish(yard.root, 1, name="n")
        yard.look()
        yard.look()
        assert [yard.answers(), yard.answers(name="n")] == ["1", "1"]
        assert yard.state(1) == ("ready", "")
    assert caplog.text.count("m is ignored: it cannot be read: Permission denied") == 1
    publish(yard.root, 2)
    yard.look()
    assert yard.answers() == "2"


def test_a_failure_that_is_not_the_models_own_refuses_the_version(yard: Yard) -> None:
    """What a run says of its input is about that version, not a bug of the server's."""
    publish(yard.root, 1)
    yard.lifecycle.begin()
    publish(yard.root, 2)
    yard.broken[2] = InputRefused("indices out of range")
    yard.look()
    yard.look()
    assert yard.state(2) == ("failed", "indices out of range")
    assert yard.answers() == "1"
    assert yard.readiness.serving()


def test_a_version_whose_weights_come_late_heals(yard: Yard) -> None:
    """It fails its proof, the reason says what is missing, and it is tried again when the files are there."""
    publish(yard.root, 1)
    yard.lifecycle.begin()
    path = publish(yard.root, 2, manifest=False)
    (path / "saved_model.pb").write_bytes(b"a graph with VarHandleOp")
    yard.broken[2] = ModelError("Could not find variable dense/kernel")
    for _ in range(3):
        yard.look()
    state, reason = yard.state(2)
    assert state == "failed"
    assert "variables/variables.index is not there, and its graph has variables: copy the whole folder" in reason
    assert (yard.answers(), yard.readiness.serving()) == ("1", True)
    (path / "variables/variables.index").write_bytes(b"index")
    (path / "variables/variables.data-00000-of-00001").write_bytes(b"weights")
    yard.broken.clear()
    yard.look()
    yard.look()
    assert yard.answers() == "2"


def test_an_unproved_version_does_not_replace_a_proved_one(yard: Yard, caplog: pytest.LogCaptureFixture) -> None:
    """It was never run: state and log say so once and what helps, and the version that proved itself serves on."""
    publish(yard.root, 1)
    yard.lifecycle.begin()
    yard.unproved = {2}
    publish(yard.root, 2)
    for _ in range(4):
        yard.look()
    assert yard.answers() == "1"
    state, reason = yard.state(2)
    assert state == "failed"
    assert reason.startswith("unproved: no input was found that it accepts")
    assert "--verify off" in reason
    assert caplog.text.count("version 2 is refused: unproved") == 1
    assert yard.loaded[-1].closed
    assert len(yard.loaded) == 2
    publish(yard.root, 3)
    yard.look()
    assert yard.answers() == "3"


def test_an_unproved_version_serves_where_there_is_no_proved_one(yard: Yard, caplog: pytest.LogCaptureFixture) -> None:
    """It is said loudly; a newer unproved one takes over from it, and a proved one from either, older as it may be."""
    yard.unproved = {2, 3}
    publish(yard.root, 2)
    yard.lifecycle.begin()
    assert yard.answers() == "2"
    assert yard.state(2)[0] == "ready"
    assert yard.state(2)[1].startswith("unproved: ")
    assert "model m version 2 is unproved" in caplog.text
    publish(yard.root, 3)
    yard.look()
    assert yard.answers() == "3"
    publish(yard.root, 1)
    yard.look()
    assert yard.answers() == "1"


def test_an_older_proved_version_is_preferred_at_start(yard: Yard) -> None:
    """What served before a restart serves after it; only where no other can be loaded, the unproved one does."""
    for version in (1, 2, 3):
        publish(yard.root, version)
    yard.unproved = {3}
    yard.broken = {2: ModelError("broken")}
    yard.lifecycle.begin()
    yard.look()
    assert yard.answers() == "1"
    assert yard.state(3)[0] == "failed"


def test_an_unproved_version_serves_once_all_others_have_failed(yard: Yard) -> None:
    """It was set aside for an older one that then turned out to be broken."""
    for version in (1, 2):
        publish(yard.root, version)
    yard.unproved = {2}
    yard.broken = {1: ModelError("broken")}
    yard.lifecycle.begin()
    for _ in range(3):
        yard.look()
    assert yard.answers() == "2"
    assert yard.state(1) == ("failed", "broken")
    assert [model.closed for model in yard.loaded] == [True, False]


def test_verify_off_takes_an_unproved_version_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator has said that nothing is to be asked."""
    yard = Yard(tmp_path / "models", monkeypatch, verify="off")
    publish(yard.root, 1)
    yard.unproved = {2}
    yard.lifecycle.begin()
    publish(yard.root, 2)
    yard.look()
    assert (yard.answers(), yard.state(2)) == ("2", ("ready", ""))
    yard.lifecycle.stop(WAIT_S)
    assert yard.lifecycle.drain(WAIT_S)
    yard.lifecycle.close()


def test_an_unproved_version_that_serves_is_loaded_again_when_its_files_change(yard: Yard) -> None:
    """Nothing is lost that has proved itself, and what was missing may have come."""
    yard.unproved = {1}
    path = publish(yard.root, 1)
    yard.lifecycle.begin()
    yard.unproved = set()
    (path / "variables/data").write_bytes(b"all of the weights")
    seal(path)
    yard.look()
    assert yard.state(1) == ("ready", "")
    assert [model.closed for model in yard.loaded] == [True, False]


@pytest.mark.slow
def test_an_unproved_version_without_its_weights_is_refused(yard: Yard) -> None:
    """Nobody can have an answer from it."""
    yard.unproved = {1}
    path = publish(yard.root, 1, manifest=False)
    (path / "saved_model.pb").write_bytes(b"a graph with VarHandleOp")
    yard.lifecycle.begin()
    yard.look()
    yard.look()
    assert yard.state(1)[0] == "failed"
    assert "variables/variables.index is not there" in yard.state(1)[1]


def test_a_shadow_may_be_unproved(configured: Callable[[str], Yard]) -> None:
    """It answers nobody; that it was never run does no harm."""
    yard = configured("[models.m]\nshadow = { version = 2, share = 1.0 }")
    publish(yard.root, 1)
    publish(yard.root, 2)
    yard.unproved = {2}
    yard.lifecycle.begin()
    assert yard.answers() == "1"
    assert yard.state(2)[0] == "ready"


def test_an_administrator_hears_why_an_unproved_version_is_not_promoted(yard: Yard) -> None:
    """The answer has the reason and what helps."""
    publish(yard.root, 1)
    publish(yard.root, 2)
    yard.unproved = {2}
    yard.lifecycle.begin()
    error = yard.wish(lambda done: yard.lifecycle.promote("m", 2, "stable", done))
    assert "version 2 cannot be served: unproved" in str(error)
    assert yard.answers() == "1"


def test_a_name_that_is_not_utf8_is_ignored_and_said(yard: Yard, caplog: pytest.LogCaptureFixture) -> None:
    """No caller could ask for it; metrics, listing and log are text all the same."""
    publish(yard.root, 1)
    odd = os.fsencode(yard.root) + b"/caf\xe9/1"
    os.makedirs(odd)
    yard.lifecycle.begin()
    yard.look()
    assert yard.answers() == "1"
    assert caplog.text.count("caf\\udce9 is ignored: its name is not UTF-8") == 1


def test_what_is_not_utf8_in_a_reason_becomes_text(yard: Yard) -> None:
    """Metrics, answers to callers and JSON can hold it."""
    publish(yard.root, 1)
    yard.lifecycle.begin()
    path = publish(yard.root, 2)
    (path / "assets.extra/horngate.json").write_text('{"files": {"caf\\udce9": ""}}')
    yard.look()
    yard.look()
    state, reason = yard.state(2)
    assert state == "failed"
    assert "caf\\udce9" in reason
    assert reason.encode()
