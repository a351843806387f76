"""Versions appear, prove themselves, take over and leave: real folders, fake models, and a clock that the test owns."""

import errno
import io
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator
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
from horngate_server.engine.validation import Plan
from horngate_server.lifecycle import loader, manager, reconciler, repository, version_policy
from horngate_server.lifecycle.load_attempt import Abandoned, LoadAttempt
from horngate_server.lifecycle.manager import Lifecycle
from horngate_server.lifecycle.model_config import ModelConfig
from horngate_server.lifecycle.model_state import ModelVersion, Observers
from horngate_server.lifecycle.version_state import TRANSITIONS, State
from horngate_server.protocols.open_inference import INFER
from horngate_server.services.model_control import ModelControl
from horngate_server.telemetry.metrics import Metrics
from support.in_process import SIGNATURE, Clock, FakeReply, InProcessServer
from support.lifecycle_harness import LifecycleHarness, publish, seal
from support.waiting import until

WAIT_S = 20.0


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LifecycleHarness]:
    """An empty root, looked at once a second."""
    made = LifecycleHarness(tmp_path / "models", monkeypatch)
    yield made
    made.lifecycle.stop(WAIT_S)
    assert made.lifecycle.drain(WAIT_S)
    made.lifecycle.close()
    assert all(model.closed for model in made.loaded)


def test_an_empty_root_is_not_ready_until_a_model_comes(harness: LifecycleHarness) -> None:
    """Live, not ready, and ready once a model has been published."""
    harness.lifecycle.begin()
    assert not harness.readiness.serving()
    publish(harness.root, 1)
    harness.look()
    assert harness.readiness.serving()
    assert harness.readiness.serving("m")
    assert harness.answers() == "1"


def test_a_new_version_takes_over_and_the_old_one_leaves(harness: LifecycleHarness) -> None:
    """The newest version answers; the one before is drained and closed, and can no longer be asked for."""
    publish(harness.root, 1)
    harness.lifecycle.begin()
    publish(harness.root, 2)
    harness.look()
    assert harness.answers() == "2"
    assert harness.state(1) == ("ended", "version 2 answers instead")
    assert [model.closed for model in harness.loaded] == [True, False]
    with pytest.raises(ModelNotFound, match="has no version '1'; it serves versions 2"):
        harness.answers("1")


def test_a_foreign_version_counts_once_its_files_are_still_for_two_looks(harness: LifecycleHarness) -> None:
    """Without a manifest, a folder that still grows is not touched."""
    publish(harness.root, 1)
    harness.lifecycle.begin()
    path = publish(harness.root, 2, manifest=False)
    harness.look()
    (path / "variables/data").write_bytes(b"more")
    harness.look()
    assert harness.answers() == "1"
    harness.look()
    assert harness.answers() == "2"


def test_a_half_copied_version_waits_in_silence_and_serves_when_it_is_whole(
    harness: LifecycleHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """A manifest that came before its files: not refused while the copy goes on, loaded as soon as it agrees."""
    harness.lifecycle.begin()
    whole = publish(harness.root, 1, name="elsewhere")
    weights = (whole / "variables/data").read_bytes()
    (whole / "variables/data").unlink()
    (harness.root / "m").mkdir()
    path = whole.rename(harness.root / "m/1")
    harness.look(seconds=0.5)
    (path / "variables/data").write_bytes(weights[:3])
    harness.look(seconds=0.5)
    assert harness.state(1)[0] == "found"
    assert "refused" not in caplog.text
    (path / "variables/data").write_bytes(weights)
    harness.look(seconds=0.5)
    assert harness.answers() == "1"


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
    harness: LifecycleHarness, damage: Callable[[Path], object], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """State and reason are there to see, the log has one line, and nobody ever gets to it."""
    publish(harness.root, 1)
    harness.lifecycle.begin()
    damage(publish(harness.root, 2))
    for _ in range(5):
        harness.look()
    state, why = harness.state(2)
    assert state == "failed"
    assert reason in why
    assert harness.answers() == "1"
    assert caplog.text.count("version 2 is refused") == 1


@pytest.mark.parametrize("error", [ModelError("it disagrees with its recorded answers"), ModelError("no signature")])
def test_a_version_that_cannot_prove_itself_is_refused_until_its_files_change(
    harness: LifecycleHarness, error: ModelError
) -> None:
    """It is not tried again and again; a new try follows a change."""
    publish(harness.root, 1)
    harness.lifecycle.begin()
    path = publish(harness.root, 2)
    harness.broken[2] = error
    for _ in range(3):
        harness.look()
    assert harness.state(2) == ("failed", str(error))
    harness.broken.clear()
    harness.look()
    assert harness.answers() == "1"
    (path / "variables/data").write_bytes(b"better weights")
    seal(path)
    harness.look()
    assert harness.answers() == "2"


def test_a_version_that_callers_could_not_talk_to_is_refused(configured: Callable[[str], LifecycleHarness]) -> None:
    """Other inputs, or an output less: the old version stays, unless the configuration says that it is meant."""
    harness = configured("")
    publish(harness.root, 1)
    harness.lifecycle.begin()
    harness.signatures[2] = Signature("serving_default", SIGNATURE.inputs, SIGNATURE.outputs[:1])
    publish(harness.root, 2)
    harness.look()
    harness.look()
    assert harness.answers() == "1"
    assert "version 1's callers rely on (x INT32[?,2]) -> " in harness.state(2)[1]
    assert harness.loaded[-1].closed
    configured("[models.m]\nany_signature = true")
    (harness.root / "m/2/variables/data").touch()
    harness.look()
    assert harness.answers() == "2"


def test_an_older_version_serves_when_the_newest_is_refused_at_start(harness: LifecycleHarness) -> None:
    """A bad version never keeps a good one from serving."""
    publish(harness.root, 1)
    publish(harness.root, 2)
    harness.broken[2] = ModelError("broken")
    harness.lifecycle.begin()
    harness.look()
    assert harness.answers() == "1"
    assert harness.state(2) == ("failed", "broken")


def test_a_model_with_no_good_version_says_why_to_its_callers(harness: LifecycleHarness) -> None:
    """UNAVAILABLE with the reason, rather than a model that nobody has heard of."""
    publish(harness.root, 1)
    harness.broken[1] = ModelError("broken")
    harness.lifecycle.begin()
    harness.look()
    with pytest.raises(NotReady, match="model 'm' cannot be served: version 1: broken"):
        harness.answers()


def test_a_folder_deleted_while_it_loads_is_never_served(
    harness: LifecycleHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """The old version stays, and the log says what happened."""
    publish(harness.root, 1)
    harness.lifecycle.begin()
    path = publish(harness.root, 2)
    harness.while_loading = lambda: shutil.rmtree(path)
    harness.look()
    harness.look()
    assert harness.answers() == "1"
    assert "version 2 vanished while it was loaded" in caplog.text
    assert [each.version for each in harness.lifecycle.states()] == [1]


def test_files_that_change_while_they_load_are_never_served(harness: LifecycleHarness) -> None:
    """What was verified and what was loaded must be the same files."""
    publish(harness.root, 1)
    harness.lifecycle.begin()
    path = publish(harness.root, 2)

    def overwrite() -> None:
        (path / "saved_model.pb").write_bytes(os.urandom(8))

    harness.while_loading = overwrite
    harness.look()
    assert harness.answers() == "1"
    assert harness.loaded[-1].closed


def test_a_folder_deleted_while_it_serves_serves_on(
    harness: LifecycleHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """From memory, and the state says so; once."""
    shutil.rmtree(publish(harness.root, 1).parent / "2", ignore_errors=True)
    harness.lifecycle.begin()
    shutil.rmtree(harness.root / "m/1")
    for _ in range(3):
        harness.look()
    assert harness.answers() == "1"
    assert harness.state(1) == ("ready", "its folder is gone; it serves on from memory")
    assert caplog.text.count("its folder is gone") == 1


def test_deleting_the_newest_version_rolls_back_to_the_one_before(harness: LifecycleHarness) -> None:
    """As with TensorFlow Serving; the one before has to prove itself again."""
    publish(harness.root, 1)
    path = publish(harness.root, 2)
    harness.lifecycle.begin()
    shutil.rmtree(path)
    harness.look()
    assert harness.answers() == "1"
    assert harness.state(2)[0] == "ended"


def test_a_version_overwritten_in_place_serves_on_as_it_was_loaded(
    harness: LifecycleHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """Its state tells the operator to publish a new version instead."""
    path = publish(harness.root, 1)
    harness.lifecycle.begin()
    flip(path)
    harness.look()
    harness.look()
    assert harness.state(1) == ("ready", "its files have changed since it was loaded; it serves on from memory")
    assert len(harness.loaded) == 1
    assert caplog.text.count("its files have changed") == 1


@pytest.mark.slow
def test_times_far_off_in_either_direction_do_not_matter(harness: LifecycleHarness) -> None:
    """A clock set back, or files from the future: only a difference counts."""
    for version, when in ((1, 4e9), (2, 0.0), (3, 1e9)):
        path = publish(harness.root, version, manifest=False)
        for file in path.rglob("*"):
            os.utime(file, (when, when))
        if version == 1:
            harness.lifecycle.begin()
        harness.look()
        harness.look()
        assert harness.answers() == str(version)


def test_a_root_that_vanishes_for_a_while_changes_nothing(
    harness: LifecycleHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """A network file system that is away: what is loaded serves on, and the log says it once."""
    publish(harness.root, 1)
    harness.lifecycle.begin()
    harness.root.rename(harness.root.with_name("away"))
    harness.look()
    harness.look()
    assert harness.answers() == "1"
    assert caplog.text.count("what is loaded serves on") == 1
    harness.root.with_name("away").rename(harness.root)
    publish(harness.root, 2)
    harness.look()
    assert harness.answers() == "2"


def test_the_server_writes_nothing_into_the_root(harness: LifecycleHarness) -> None:
    """A read-only root is enough: not a file more, less or newer after loading, serving and leaving."""
    publish(harness.root, 1)
    publish(harness.root, 2)
    before = {path: path.stat().st_mtime_ns for path in harness.root.rglob("*")}
    harness.lifecycle.begin()
    harness.look()
    assert {path: path.stat().st_mtime_ns for path in harness.root.rglob("*")} == before


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], LifecycleHarness]]:
    """Makes a harness with a configuration, or gives it another one."""
    yards: list[LifecycleHarness] = []

    def make(text: str) -> LifecycleHarness:
        path = tmp_path / "models.toml"
        path.with_suffix(".new").write_text(text)
        path.with_suffix(".new").rename(path)
        if not yards:
            yards.append(LifecycleHarness(tmp_path / "models", monkeypatch, config=path))
        return yards[0]

    yield make
    for harness in yards:
        harness.lifecycle.stop(WAIT_S)
        assert harness.lifecycle.drain(WAIT_S)
        harness.lifecycle.close()


def test_labels_say_who_answers_whom(configured: Callable[[str], LifecycleHarness]) -> None:
    """Without a version callers get stable; a label or a number gets its own; the rest is not served."""
    harness = configured("[models.m]\nlabels = { stable = 1, canary = 3 }")
    for version in (1, 2, 3):
        publish(harness.root, version)
    harness.lifecycle.begin()
    assert [harness.answers(each) for each in ("", "stable", "canary", "1", "3")] == ["1", "1", "3", "1", "3"]
    with pytest.raises(ModelNotFound, match="serves versions 1, 3, labels canary, stable"):
        harness.answers("2")
    configured("[models.m]\nlabels = { stable = 3 }")
    harness.look()
    assert [harness.answers(each) for each in ("", "stable")] == ["3", "3"]
    assert harness.state(1)[0] == "ended"


@pytest.mark.parametrize(
    ("text", "served"),
    [("", ["3"]), ("latest = 2", ["2", "3"]), ('versions = "all"', ["1", "2", "3"]), ("versions = [1, 2]", ["1", "2"])],
)
def test_policies_choose_what_is_served(
    configured: Callable[[str], LifecycleHarness], text: str, served: list[str]
) -> None:
    """The newest, the newest N, all, or these."""
    harness = configured(f"[models.m]\n{text}")
    for version in (1, 2, 3):
        publish(harness.root, version)
    harness.lifecycle.begin()
    assert harness.models.versions("m") == served
    assert harness.answers() == served[-1]


def test_a_bad_configuration_changes_nothing_and_says_where_it_is_wrong(
    configured: Callable[[str], LifecycleHarness], caplog: pytest.LogCaptureFixture
) -> None:
    """At start it ends the start; later what was there before stands, until a good one comes."""
    harness = configured("[models.m]\nlabels = { stable = 1 }")
    publish(harness.root, 1)
    publish(harness.root, 2)
    harness.lifecycle.begin()
    configured('[models.m]\nlatest = "two"')
    harness.look()
    harness.look()
    assert caplog.text.count("models.m.latest: expected a whole number above 0, came 'two'") == 1
    assert [harness.lifecycle.config_valid, harness.answers()] == [False, "1"]
    with pytest.raises(SettingsError, match="models.m.latest"):
        Lifecycle(
            harness.lifecycle._settings, models=harness.models, readiness=harness.readiness, finish=lambda *_: None,
            forget=lambda *_: None, clock=harness.clock, on_death=lambda _: None, stopping=threading.Event(),
        )  # fmt: skip
    configured("")
    harness.look()
    assert [harness.lifecycle.config_valid, harness.answers()] == [True, "2"]


def test_new_limits_take_effect_by_loading_beside(configured: Callable[[str], LifecycleHarness]) -> None:
    """The version that serves is replaced by itself, with the new limits; the old copy is closed."""
    harness = configured("")
    publish(harness.root, 1)
    harness.lifecycle.begin()
    assert harness.models.get("m").executor.capacity_rows == 64
    configured("[models.m]\nqueue_rows = 8")
    harness.look()
    assert harness.models.get("m").executor.capacity_rows == 8
    assert [model.closed for model in harness.loaded] == [True, False]


def test_new_limits_for_a_version_that_cannot_be_loaded_again_leave_it_serving(
    configured: Callable[[str], LifecycleHarness], caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried once and serves on with the limits that it has; its state says so."""
    harness = configured("")
    publish(harness.root, 1)
    harness.lifecycle.begin()
    harness.look()
    harness.broken[1] = ModelError("no memory")
    configured("[models.m]\nqueue_rows = 8")
    for _ in range(4):
        harness.look()
    assert harness.models.get("m").executor.capacity_rows == 64
    assert harness.state(1) == ("ready", "it could not be loaded again, with other limits: no memory")
    assert caplog.text.count("version 1 is refused") == 1


def test_a_label_for_a_version_that_is_not_there_is_said_once(
    configured: Callable[[str], LifecycleHarness], caplog: pytest.LogCaptureFixture
) -> None:
    """The others go on; callers of the label hear which labels there are."""
    harness = configured("[models.m]\nlabels = { canary = 9 }")
    publish(harness.root, 1)
    harness.lifecycle.begin()
    harness.look()
    harness.look()
    assert harness.answers() == "1"
    assert caplog.text.count("label canary is version 9, which is not served") == 1
    with pytest.raises(ModelNotFound, match="no version 'canary'"):
        harness.answers("canary")


def test_a_shadow_answers_nobody_until_it_is_promoted(configured: Callable[[str], LifecycleHarness]) -> None:
    """It is loaded beside stable and cannot be asked for; a label makes it answer, and it stops being a shadow."""
    harness = configured("[models.m]\nshadow = { version = 2, share = 1.0 }")
    publish(harness.root, 1)
    publish(harness.root, 2)
    harness.lifecycle.begin()
    assert harness.answers() == "1"
    with pytest.raises(ModelNotFound):
        harness.answers("2")
    assert [each.shadow is not None for each in harness.lifecycle.states()] == [False, True]
    configured("[models.m]\nshadow = { version = 2 }\nlabels = { stable = 2 }")
    harness.look()
    assert harness.answers() == "2"
    assert all(each.shadow is None for each in harness.lifecycle.states())


def test_the_other_engine_computes_along_with_the_version_that_answers(
    configured: Callable[[str], LifecycleHarness],
) -> None:
    """One version, opened by both engines; a new one takes the shadow along, and both models are closed in the end."""
    harness = configured('[models.m]\nshadow = { engine = "litert", share = 1.0 }')
    publish(harness.root, 1, lite=True)
    harness.lifecycle.begin()
    [state] = harness.lifecycle.states()
    assert state.report is not None
    assert (state.report.engine, state.report.why_engine) == ("tensorflow", "LiteRT computes along")
    assert state.shadow is not None
    publish(harness.root, 2, lite=True)
    harness.look()
    assert [(each.version, each.shadow is not None) for each in harness.lifecycle.states()] == [(1, False), (2, True)]
    assert [model.closed for model in harness.loaded] == [True, True, False, False]


@pytest.mark.parametrize(
    ("engine", "why"),
    [("litert", "engine litert: it has no model.tflite"), ("tensorflow", "that engine serves")],
)
def test_an_engine_that_cannot_compute_along_keeps_no_version_from_serving(
    configured: Callable[[str], LifecycleHarness], caplog: pytest.LogCaptureFixture, engine: str, why: str
) -> None:
    """It is said once, in the log."""
    harness = configured(f'[models.m]\nshadow = {{ engine = "{engine}" }}')
    publish(harness.root, 1)
    harness.lifecycle.begin()
    assert harness.answers() == "1"
    assert f"computes nothing: {why}" in caplog.text


def test_an_administrator_promotes_unloads_and_loads(harness: LifecycleHarness) -> None:
    """Promotion loads what is not loaded; unloading takes the model out until it is loaded again."""
    publish(harness.root, 1)
    publish(harness.root, 2)
    harness.lifecycle.begin()
    assert harness.wish(lambda done: harness.lifecycle.promote("m", 1, "stable", done)) is None
    assert harness.answers() == "1"
    assert harness.answers("stable") == "1"
    assert harness.wish(lambda done: harness.lifecycle.unload("m", done)) is None
    assert not harness.readiness.serving("m")
    with pytest.raises(ModelNotFound):
        harness.answers()
    assert harness.wish(lambda done: harness.lifecycle.load("m", done)) is None
    assert harness.answers() == "1"


def test_what_cannot_be_promoted_changes_nothing(harness: LifecycleHarness) -> None:
    """A version that is not there, or is refused: the wish fails with the reason, and the label stays where it was."""
    publish(harness.root, 1)
    publish(harness.root, 2)
    harness.broken[2] = ModelError("it disagrees")
    harness.lifecycle.begin()
    harness.look()
    error = harness.wish(lambda done: harness.lifecycle.promote("m", 2, "stable", done))
    assert error is not None
    assert "version 2 cannot be served: it disagrees" in str(error)
    assert isinstance(harness.wish(lambda done: harness.lifecycle.promote("m", 9, "stable", done)), ModelNotFound)
    assert isinstance(harness.wish(lambda done: harness.lifecycle.load("nobody", done)), ModelNotFound)
    assert harness.answers() == "1"
    assert "stable" not in [label for each in harness.lifecycle.states() for label in each.labels]


def test_a_label_of_the_configuration_is_changed_there_alone(configured: Callable[[str], LifecycleHarness]) -> None:
    """Else the next reading of the file would undo what an administrator was told is done."""
    harness = configured("[models.m]\nlabels = { stable = 1 }")
    publish(harness.root, 1)
    publish(harness.root, 2)
    harness.lifecycle.begin()
    error = harness.wish(lambda done: harness.lifecycle.promote("m", 2, "stable", done))
    assert error is not None
    assert "is set in --config" in str(error)


def test_versions_that_left_long_ago_are_forgotten(harness: LifecycleHarness) -> None:
    """Eight are remembered: a trainer that publishes every minute must not fill memory and metrics."""
    publish(harness.root, 1)
    harness.lifecycle.begin()
    for version in range(2, 14):
        publish(harness.root, version)
        harness.look()
        shutil.rmtree(harness.root / "m" / str(version - 1))
    harness.look()
    assert [each.version for each in harness.lifecycle.states()] == [5, 6, 7, 8, 9, 10, 11, 12, 13]
    assert harness.forgotten == ["1", "2", "3", "4"]


def test_a_look_that_fails_costs_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    """The callers have their answers; every failure is counted, and the log has one line of a burst."""

    class Broken:
        def offer(self, _: object) -> None:
            raise RuntimeError("broken")

    with InProcessServer(clock=Clock()) as server:
        guard = ObserverGuard(server.clock)
        observers = Observers(server.executor._finish, guard)
        observers.shadow = Broken()  # type: ignore[assignment]
        server.executor._finish = observers.finish
        assert server.ask([[1, 2]]).status() == "OK"
        assert server.ask([[1, 2]]).status() == "OK"
        assert not server.died
    assert guard.errors == {"shadow": 2}
    assert caplog.text.count("shadow: RuntimeError: broken. This is a bug") == 1


def test_an_unforeseen_failure_while_loading_refuses_the_version(harness: LifecycleHarness) -> None:
    """It is no reason to stop looking, nor to leave the version loading for ever."""
    publish(harness.root, 1)
    harness.lifecycle.begin()
    publish(harness.root, 2)
    harness.broken[2] = ZeroDivisionError("unforeseen")
    harness.look()
    harness.look()
    assert harness.answers() == "1"
    assert harness.state(2) == ("failed", "ZeroDivisionError: unforeseen. This is a bug.")


def test_a_request_that_comes_too_late_for_a_version_goes_to_the_next(caplog: pytest.LogCaptureFixture) -> None:
    """Between looking up who answers and getting in line, the version may have left: the caller does not notice."""
    caplog.set_level(logging.INFO)
    with InProcessServer() as old, InProcessServer() as new:
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


def test_who_answers_stays_while_the_new_stable_version_cannot(configured: Callable[[str], LifecycleHarness]) -> None:
    """A label that moves to a broken version moves nobody: neither to it nor to the newest one."""
    harness = configured("[models.m]\nlabels = { stable = 1 }")
    for version in (1, 2, 3):
        publish(harness.root, version)
    harness.broken[3] = ModelError("broken")
    harness.lifecycle.begin()
    configured("[models.m]\nlabels = { stable = 3 }")
    for _ in range(3):
        harness.look()
    assert harness.answers() == "1"
    harness.broken.clear()
    (harness.root / "m/3/variables/data").touch()
    harness.look()
    assert harness.answers() == "3"
    assert harness.state(1)[0] == "ended"


def test_the_thread_sees_a_new_version_by_itself(harness: LifecycleHarness) -> None:
    """Real time, real notice from the file system."""
    harness.clock.now = 0.0
    publish(harness.root, 1)
    harness.lifecycle.start().result(WAIT_S)
    publish(harness.root, 2)
    until(lambda: harness.answers() == "2")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for a load that gives no sign of life."""
    monkeypatch.setattr(reconciler, "PATIENCE_S", 0.1)
    monkeypatch.setattr(manager, "BEGIN_PATIENCE_S", 0.1)


class HungDisk:
    """Files of one version that nobody can read until the disk answers again."""

    def __init__(self, harness: LifecycleHarness, version: int) -> None:
        self.answers = threading.Event()
        self._yard, self._version = harness, version
        harness.while_loading_version = self._read

    def _read(self, version: int) -> None:
        if version == self._version:
            self._yard.clock.now += reconciler.PATIENCE_S
            assert self.answers.wait(WAIT_S)


@pytest.mark.usefixtures("impatient")
def test_a_version_whose_files_do_not_answer_keeps_no_other_from_serving(harness: LifecycleHarness) -> None:
    """The next older version and other models are loaded beside it; it takes over when its disk answers again."""
    disk = HungDisk(harness, 2)
    for version, name in ((1, "m"), (2, "m"), (1, "other")):
        publish(harness.root, version, name=name)
    harness.lifecycle.begin()
    assert (harness.answers(), harness.answers(name="other")) == ("1", "1")
    assert harness.state(2) == ("loading", "it is being loaded, without a sign of life for 0.1 s")
    disk.answers.set()
    [attempt] = harness.lifecycle._models["m"].attempts()
    attempt.thread.join(WAIT_S)
    harness.look()
    assert harness.answers() == "2"
    assert harness.state(1)[0] == "ended"


@pytest.mark.usefixtures("impatient")
def test_the_end_does_not_wait_for_a_load(harness: LifecycleHarness) -> None:
    """A lifecycle that stops gives up what it loads; what comes of it all the same is closed."""
    disk = HungDisk(harness, 1)
    publish(harness.root, 1)
    harness.lifecycle.begin()
    [attempt] = harness.lifecycle._models["m"].attempts()
    assert harness.lifecycle.stop(WAIT_S)
    assert not attempt.done
    disk.answers.set()
    attempt.thread.join(WAIT_S)
    with pytest.raises(Abandoned):
        attempt.take()
    assert [model.closed for model in harness.loaded] == [True]


def test_what_was_loaded_and_given_up_is_closed_and_nobodys(harness: LifecycleHarness) -> None:
    """The end may come between a load and its being taken: what is closed never serves."""
    publish(harness.root, 1)
    ended = threading.Event()

    def load(_alive: Callable[[], None]) -> loader.Loaded:
        return loader.load(
            harness.root / "m/1", Settings(models=harness.root), Limits(4, 64, 0.0), finish=lambda *_: None,
            clock=harness.clock, on_death=lambda _: None,
        )  # fmt: skip

    attempt = LoadAttempt(load, "m-1", harness.clock, ended.set)
    assert ended.wait(WAIT_S)
    attempt.abandon()
    with pytest.raises(Abandoned):
        attempt.take()
    assert [model.closed for model in harness.loaded] == [True]


@pytest.mark.usefixtures("impatient")
def test_a_version_that_vanishes_while_it_is_loaded_is_given_up(harness: LifecycleHarness) -> None:
    """Nobody serves what is no longer on disk and was never loaded."""
    disk = HungDisk(harness, 1)
    path = publish(harness.root, 1)
    harness.lifecycle.begin()
    [attempt] = harness.lifecycle._models["m"].attempts()
    shutil.rmtree(path)
    harness.look()
    disk.answers.set()
    attempt.thread.join(WAIT_S)
    harness.look()
    assert not harness.lifecycle.states()
    assert [model.closed for model in harness.loaded] == [True]


def test_a_version_whose_model_does_not_return_leaves_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the grace period it has ended and may be loaded again; its model is closed once it returns."""
    harness = LifecycleHarness(tmp_path / "models", monkeypatch, grace_period_s=0.05)
    publish(harness.root, 1)
    harness.lifecycle.begin()
    hung = harness.loaded[0]
    hung.gate.clear()
    served = harness.models.get("m", "")
    request = InferenceRequest(Header("m", "", ()), "", ())
    plan = Plan(served.info, rows=1, order=(0,), sizes=(8,), shapes=((2,),), alike=("m", False, ((2,),)))
    data = np.ones(2, np.int32).tobytes()
    served.executor._quick_s = 0.0
    assert not served.executor.submit([Work(FakeReply(), INFER, request, plan, (data,), 0.0, inf)])
    publish(harness.root, 2)
    harness.clock.now += 1
    harness.lifecycle._step()
    [departure] = harness.lifecycle._models["m"].departures
    departure.wait()
    harness.lifecycle._reconciler.note_departures()
    assert harness.state(1) == (
        "ended",
        "version 2 answers instead; its model has not returned within 0.05 s, and keeps its memory until it does",
    )
    assert [model.closed for model in harness.loaded] == [False, False]
    hung.gate.set()
    departure.thread.join(WAIT_S)
    assert [model.closed for model in harness.loaded] == [True, False]
    harness.lifecycle.stop(WAIT_S)
    assert harness.lifecycle.drain(WAIT_S)
    harness.lifecycle.close()


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


class ReloadCall:
    """How a deferred call was answered."""

    def __init__(self, harness: LifecycleHarness, config: tfs.ModelServerConfig) -> None:
        answers: list[bytes | RequestError] = []
        ModelControl(harness.lifecycle, Metrics(CollectorRegistry()), harness.clock).reload(
            tfs.ReloadConfigRequest(config=config).SerializeToString(), answers.append
        )
        harness.lifecycle._carry_out()
        [self.answer] = answers


def served(*models: tfs.ModelConfig) -> tfs.ModelServerConfig:
    """Make a configuration of these models."""
    return tfs.ModelServerConfig(model_config_list=tfs.ModelConfigList(config=models))


def test_tensorflow_servings_reload_says_what_is_served_from_now_on(harness: LifecycleHarness) -> None:
    """Versions, labels, models; those that it does not name are unloaded, and come back with the next one."""
    for version in (1, 2, 3):
        publish(harness.root, version)
    publish(harness.root, 1, name="n")
    harness.lifecycle.begin()
    every = tfs.ServableVersionPolicy(all=tfs.ServableVersionPolicy.All())
    both = tfs.ModelConfig(
        name="m",
        base_path=str(harness.root / "m"),
        model_version_policy=every,
        version_labels={"stable": 2, "canary": 3},
    )
    assert isinstance(ReloadCall(harness, served(both)).answer, bytes)
    assert harness.models.versions("m") == ["1", "2", "3"]
    assert [harness.answers(), harness.answers("canary")] == ["2", "3"]
    with pytest.raises(ModelNotFound):
        harness.answers(name="n")
    specific = tfs.ServableVersionPolicy(specific=tfs.ServableVersionPolicy.Specific(versions=[1]))
    one = tfs.ModelConfig(name="m", model_version_policy=specific)
    latest = tfs.ModelConfig(
        name="n",
        model_version_policy=tfs.ServableVersionPolicy(latest=tfs.ServableVersionPolicy.Latest(num_versions=2)),
    )
    assert isinstance(ReloadCall(harness, served(one, latest)).answer, bytes)
    assert (harness.models.versions("m"), harness.answers(), harness.answers(name="n")) == (["1"], "1", "1")


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
    harness: LifecycleHarness, config: tfs.ModelServerConfig, error: type[RequestError], said: str
) -> None:
    """What makes no sense is refused before anything changes."""
    publish(harness.root, 1)
    harness.lifecycle.begin()
    try:
        answer: object = ReloadCall(harness, config).answer
    except RequestError as raised:
        answer = raised
    assert isinstance(answer, error)
    assert said in str(answer)
    assert harness.answers() == "1"


def test_a_reload_is_refused_where_a_file_says_what_is_served(configured: Callable[[str], LifecycleHarness]) -> None:
    """Else the file would undo what a caller was told is done."""
    harness = configured("")
    publish(harness.root, 1)
    harness.lifecycle.begin()
    answer = ReloadCall(harness, served(tfs.ModelConfig(name="m"))).answer
    assert isinstance(answer, Refused)
    assert "change it there" in str(answer)


def test_a_version_without_a_signature_that_callers_use_is_refused(harness: LifecycleHarness) -> None:
    """Not only the default one: whoever asks by name must be answered too."""
    publish(harness.root, 1)
    more = Signature("more", SIGNATURE.inputs, SIGNATURE.outputs)
    harness.more_signatures[1] = more
    harness.lifecycle.begin()
    publish(harness.root, 2)
    harness.look()
    harness.look()
    assert harness.answers() == "1"
    assert "its signature more is not there" in harness.state(2)[1]


def test_numbers_that_no_protocol_can_name_are_no_versions(
    harness: LifecycleHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """A version is a whole number of 64 bits with a sign; a larger one is ignored, and the log names it once."""
    publish(harness.root, 1)
    publish(harness.root, 20261126035230123456)
    harness.lifecycle.begin()
    harness.look()
    harness.look()
    assert harness.answers() == "1"
    assert [each.version for each in harness.lifecycle.states()] == [1]
    assert caplog.text.count("m/20261126035230123456 is ignored: it is no version") == 1


def test_a_version_of_5000_digits_is_no_version() -> None:
    """Python itself would not read it; leading zeros do not count."""
    assert repository.number_of("9" * 5000) is None
    assert repository.number_of("0" * 300 + "7") == 7
    assert repository.number_of(str((1 << 63) - 1)) == (1 << 63) - 1


def test_an_empty_version_says_so_until_something_is_in_it(
    harness: LifecycleHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """Its state has the reason, and the log one line."""
    publish(harness.root, 1)
    harness.lifecycle.begin()
    (harness.root / "m/2").mkdir()
    for _ in range(3):
        harness.look()
    assert harness.state(2) == ("found", "its folder is empty")
    assert caplog.text.count("m/2 is empty") == 1
    shutil.rmtree(harness.root / "m/2")
    publish(harness.root, 2)
    harness.look()
    assert harness.answers() == "2"


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
def test_a_version_that_cannot_be_read_says_why_and_is_tried_again(harness: LifecycleHarness, what: str) -> None:
    """A folder or a file without permission: the state has the reason, and what served before serves on."""
    publish(harness.root, 1)
    harness.lifecycle.begin()
    with pytest.MonkeyPatch.context() as patch:
        path = publish(harness.root, 2)
        forbid(patch, path / what if what else path)
        for _ in range(3):
            harness.look()
        state, reason = harness.state(2)
        assert state == "failed"
        assert "cannot be read: Permission denied" in reason
        assert harness.answers() == "1"
    (path / "saved_model.pb").chmod(0o640)
    harness.look()
    assert harness.answers() == "2"


def test_a_model_whose_folder_cannot_be_read_for_a_while_serves_on(
    harness: LifecycleHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """Its versions are not taken for gone; the log says why once, and others are not held up."""
    publish(harness.root, 1)
    harness.lifecycle.begin()
    with pytest.MonkeyPatch.context() as patch:
        forbid(patch, harness.root / "m")
        publish(harness.root, 1, name="n")
        harness.look()
        harness.look()
        assert [harness.answers(), harness.answers(name="n")] == ["1", "1"]
        assert harness.state(1) == ("ready", "")
    assert caplog.text.count("m is ignored: it cannot be read: Permission denied") == 1
    publish(harness.root, 2)
    harness.look()
    assert harness.answers() == "2"


def test_a_failure_that_is_not_the_models_own_refuses_the_version(harness: LifecycleHarness) -> None:
    """What a run says of its input is about that version, not a bug of the server's."""
    publish(harness.root, 1)
    harness.lifecycle.begin()
    publish(harness.root, 2)
    harness.broken[2] = InputRefused("indices out of range")
    harness.look()
    harness.look()
    assert harness.state(2) == ("failed", "indices out of range")
    assert harness.answers() == "1"
    assert harness.readiness.serving()


def test_a_version_whose_weights_come_late_heals(harness: LifecycleHarness) -> None:
    """It fails its proof, the reason says what is missing, and it is tried again when the files are there."""
    publish(harness.root, 1)
    harness.lifecycle.begin()
    path = publish(harness.root, 2, manifest=False)
    (path / "saved_model.pb").write_bytes(b"a graph with VarHandleOp")
    harness.broken[2] = ModelError("Could not find variable dense/kernel")
    for _ in range(3):
        harness.look()
    state, reason = harness.state(2)
    assert state == "failed"
    assert "variables/variables.index is not there, and its graph has variables: copy the whole folder" in reason
    assert (harness.answers(), harness.readiness.serving()) == ("1", True)
    (path / "variables/variables.index").write_bytes(b"index")
    (path / "variables/variables.data-00000-of-00001").write_bytes(b"weights")
    harness.broken.clear()
    harness.look()
    harness.look()
    assert harness.answers() == "2"


def test_an_unproved_version_does_not_replace_a_proved_one(
    harness: LifecycleHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """It was never run: state and log say so once and what helps, and the version that proved itself serves on."""
    publish(harness.root, 1)
    harness.lifecycle.begin()
    harness.unproved = {2}
    publish(harness.root, 2)
    for _ in range(4):
        harness.look()
    assert harness.answers() == "1"
    state, reason = harness.state(2)
    assert state == "failed"
    assert reason.startswith("unproved: no input was found that it accepts")
    assert "--verify off" in reason
    assert caplog.text.count("version 2 is refused: unproved") == 1
    assert harness.loaded[-1].closed
    assert len(harness.loaded) == 2
    publish(harness.root, 3)
    harness.look()
    assert harness.answers() == "3"


def test_an_unproved_version_serves_where_there_is_no_proved_one(
    harness: LifecycleHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said loudly; a newer unproved one takes over from it, and a proved one from either, older as it may be."""
    harness.unproved = {2, 3}
    publish(harness.root, 2)
    harness.lifecycle.begin()
    assert harness.answers() == "2"
    assert harness.state(2)[0] == "ready"
    assert harness.state(2)[1].startswith("unproved: ")
    assert "model m version 2 is unproved" in caplog.text
    publish(harness.root, 3)
    harness.look()
    assert harness.answers() == "3"
    publish(harness.root, 1)
    harness.look()
    assert harness.answers() == "1"


def test_an_older_proved_version_is_preferred_at_start(harness: LifecycleHarness) -> None:
    """What served before a restart serves after it; only where no other can be loaded, the unproved one does."""
    for version in (1, 2, 3):
        publish(harness.root, version)
    harness.unproved = {3}
    harness.broken = {2: ModelError("broken")}
    harness.lifecycle.begin()
    harness.look()
    assert harness.answers() == "1"
    assert harness.state(3)[0] == "failed"


def test_an_unproved_version_serves_once_all_others_have_failed(harness: LifecycleHarness) -> None:
    """It was set aside for an older one that then turned out to be broken."""
    for version in (1, 2):
        publish(harness.root, version)
    harness.unproved = {2}
    harness.broken = {1: ModelError("broken")}
    harness.lifecycle.begin()
    for _ in range(3):
        harness.look()
    assert harness.answers() == "2"
    assert harness.state(1) == ("failed", "broken")
    assert [model.closed for model in harness.loaded] == [True, False]


def test_verify_off_takes_an_unproved_version_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator has said that nothing is to be asked."""
    harness = LifecycleHarness(tmp_path / "models", monkeypatch, verify="off")
    publish(harness.root, 1)
    harness.unproved = {2}
    harness.lifecycle.begin()
    publish(harness.root, 2)
    harness.look()
    assert (harness.answers(), harness.state(2)) == ("2", ("ready", ""))
    harness.lifecycle.stop(WAIT_S)
    assert harness.lifecycle.drain(WAIT_S)
    harness.lifecycle.close()


def test_an_unproved_version_that_serves_is_loaded_again_when_its_files_change(harness: LifecycleHarness) -> None:
    """Nothing is lost that has proved itself, and what was missing may have come."""
    harness.unproved = {1}
    path = publish(harness.root, 1)
    harness.lifecycle.begin()
    harness.unproved = set()
    (path / "variables/data").write_bytes(b"all of the weights")
    seal(path)
    harness.look()
    assert harness.state(1) == ("ready", "")
    assert [model.closed for model in harness.loaded] == [True, False]


@pytest.mark.slow
def test_an_unproved_version_without_its_weights_is_refused(harness: LifecycleHarness) -> None:
    """Nobody can have an answer from it."""
    harness.unproved = {1}
    path = publish(harness.root, 1, manifest=False)
    (path / "saved_model.pb").write_bytes(b"a graph with VarHandleOp")
    harness.lifecycle.begin()
    harness.look()
    harness.look()
    assert harness.state(1)[0] == "failed"
    assert "variables/variables.index is not there" in harness.state(1)[1]


def test_a_shadow_may_be_unproved(configured: Callable[[str], LifecycleHarness]) -> None:
    """It answers nobody; that it was never run does no harm."""
    harness = configured("[models.m]\nshadow = { version = 2, share = 1.0 }")
    publish(harness.root, 1)
    publish(harness.root, 2)
    harness.unproved = {2}
    harness.lifecycle.begin()
    assert harness.answers() == "1"
    assert harness.state(2)[0] == "ready"


def test_an_administrator_hears_why_an_unproved_version_is_not_promoted(harness: LifecycleHarness) -> None:
    """The answer has the reason and what helps."""
    publish(harness.root, 1)
    publish(harness.root, 2)
    harness.unproved = {2}
    harness.lifecycle.begin()
    error = harness.wish(lambda done: harness.lifecycle.promote("m", 2, "stable", done))
    assert "version 2 cannot be served: unproved" in str(error)
    assert harness.answers() == "1"


def test_a_name_that_is_not_utf8_is_ignored_and_said(
    harness: LifecycleHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """No caller could ask for it; metrics, listing and log are text all the same."""
    publish(harness.root, 1)
    odd = os.fsencode(harness.root) + b"/caf\xe9/1"
    os.makedirs(odd)
    harness.lifecycle.begin()
    harness.look()
    assert harness.answers() == "1"
    assert caplog.text.count("caf\\udce9 is ignored: its name is not UTF-8") == 1


def test_what_is_not_utf8_in_a_reason_becomes_text(harness: LifecycleHarness) -> None:
    """Metrics, answers to callers and JSON can hold it."""
    publish(harness.root, 1)
    harness.lifecycle.begin()
    path = publish(harness.root, 2)
    (path / "assets.extra/horngate.json").write_text('{"files": {"caf\\udce9": ""}}')
    harness.look()
    harness.look()
    state, reason = harness.state(2)
    assert state == "failed"
    assert "caf\\udce9" in reason
    assert reason.encode()
