"""A lifecycle over a real folder, with fake models and a clock that the test owns, taken step by step."""

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from horngate_server.core.device import Device
from horngate_server.core.errors import (
    RequestError,
)
from horngate_server.core.settings import Settings
from horngate_server.core.signature import Signature
from horngate_server.engine.routing import Models
from horngate_server.lifecycle import loader
from horngate_server.lifecycle.manager import Lifecycle
from horngate_server.lifecycle.readiness import Readiness
from horngate_server.runtimes import litert, tensorflow
from support.in_process import SIGNATURE, Clock, FakeModel, double

WAIT_S = 20.0


class FakeLoadedModel(FakeModel):
    """A fake with a device, as loading expects of a real one."""

    device = Device("CPU", "CPU:0", "a test's")

    def __init__(self, version: int, *signatures: Signature) -> None:
        super().__init__(signatures[0])
        self.signatures = {each.name: each for each in signatures}
        self.version = version
        self.compute = lambda inputs: double(inputs)[: len(signatures[0].outputs)]


def publish(root: Path, version: int, *, name: str = "m", manifest: bool = True, lite: bool = False) -> Path:
    """Write a version as an exporter does: whole, under its final name at once; ``lite``: for both engines."""
    partial = root / name / f".partial-{version}"
    (partial / "variables").mkdir(parents=True)
    (partial / "saved_model.pb").write_bytes(b"graph")
    (partial / "variables/data").write_bytes(b"weights of %d" % version)
    if lite:
        (partial / "model.tflite").write_bytes(b"both")
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


class LifecycleHarness:
    """A lifecycle over a folder, taken step by step."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        self.root = root
        root.mkdir(exist_ok=True)
        self.clock = Clock()
        self.models = Models()
        self.readiness = Readiness()
        self.loaded: list[FakeLoadedModel] = []
        self.broken: dict[int, Exception] = {}
        self.signatures: dict[int, Signature] = {}
        self.more_signatures: dict[int, Signature] = {}
        self.while_loading: Callable[[], None] = lambda: None
        self.while_loading_version: Callable[[int], None] = lambda _: None
        self.unproved: set[int] = set()
        self.forgotten: list[str] = []
        self.finished: list[Any] = []
        for engine in (tensorflow, litert):
            monkeypatch.setattr(engine, "library", lambda: None)
        monkeypatch.setattr(tensorflow, "load", self._load)
        monkeypatch.setattr(litert, "load", self._load)
        monkeypatch.setattr(litert, "available", lambda: "2.3")
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

    def _load(self, path: Path, **_: object) -> FakeLoadedModel:
        self.while_loading()
        self.while_loading_version(int(path.name))
        if int(path.name) in self.broken:
            raise self.broken[int(path.name)]
        model = FakeLoadedModel(int(path.name), self.signatures.get(int(path.name), SIGNATURE))
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
