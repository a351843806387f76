"""Imports TensorFlow once and forks trainers, for tests of many at once and of kills at every stage.

Forking is safe: before its first operation TensorFlow has started no threads of its own. Each line on stdin is a JSON
list of trainings, which run at once; each line on stdout is a JSON list of how each ended: ``code`` (negative for a
signal), ``out`` and ``err``.

A training is ``{"flags": [...], "quick": bool, "kill": number or null, "below": folder, "variables": {...}}``.
``quick`` puts a stand-in in the place of the fit, so that what is left is what touches the disk; ``kill`` ends the
process with SIGKILL right before that change of a folder below ``below``, counted from 1; ``variables`` are those of
its environment.
"""

import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras
import numpy as np

from horngate_trainer import cli, pipeline
from horngate_trainer.checkpoint import Checkpoint
from horngate_trainer.training import Epoch

CHANGES = {"os.rename", "os.remove", "os.rmdir", "open"}


class FakeTraining:
    """A fit that adds one to the weights in each epoch."""

    def __init__(self, build: Any, *_: Any, epochs: int, seed: int, **__: Any) -> None:
        keras.utils.set_random_seed(seed)
        self.model = build()
        self.history: list[Epoch] = []
        self._epochs = epochs

    def restore(self, checkpoint: Checkpoint) -> None:
        """As `Training.restore`."""
        self.model.set_weights(checkpoint.variables)
        self.history = [Epoch(**epoch) for epoch in checkpoint.history]

    def state(self) -> tuple[Sequence[Any], Sequence[Any]]:
        """As `Training.state`."""
        return [vars_of(epoch) for epoch in self.history], self.model.get_weights()

    def share(self) -> None:
        """As `Training.share`."""

    def plain(self) -> Any:
        """As `Training.plain`."""
        return self.model

    def run(self, _: Any) -> Iterator[Epoch]:
        """As `Training.run`."""
        while len(self.history) < self._epochs:
            self.model.set_weights([np.add(weight, 1) for weight in self.model.get_weights()])
            self.history.append(Epoch(0.5, 0.5, 0.5, 0.5, 0.0))
            yield self.history[-1]


def vars_of(epoch: Epoch) -> dict[str, float]:
    """An epoch for a checkpoint."""
    return {name: getattr(epoch, name) for name in Epoch.__slots__}


def _inside(event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether a file or folder is removed by its name in an open folder, as shutil.rmtree does."""
    return event in {"os.remove", "os.rmdir"} and arguments[1] != -1


def kill_at(number: int, below: str) -> None:
    """End this process right before the numbered change of a folder."""
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event not in CHANGES or not (str(arguments[0]).startswith(below) or _inside(event, arguments)):
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            return
        seen += 1
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def child(asked: dict[str, Any], out: int, err: int) -> None:
    """Be a trainer."""
    os.dup2(out, 1)
    os.dup2(err, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    os.environ |= asked["variables"]
    if asked["quick"]:
        vars(pipeline)["Training"] = FakeTraining
    if asked["kill"]:
        kill_at(asked["kill"], asked["below"])
    code = cli.main(asked["flags"])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


for line in sys.stdin:
    running = []
    for each in json.loads(line):
        out, err = os.memfd_create("out"), os.memfd_create("err")
        process = os.fork()
        if not process:
            child(each, out, err)
        running.append((process, out, err))
    ended = []
    for process, out, err in running:
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        ended.append(
            {"code": code, "out": os.pread(out, 1 << 20, 0).decode(), "err": os.pread(err, 1 << 20, 0).decode()}
        )
        os.close(out)
        os.close(err)
    print(json.dumps(ended), flush=True)
