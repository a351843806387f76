"""Checkpoints: who may take up which training, and what becomes of damaged ones."""

import errno
import fcntl
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from horngate_trainer import checkpoint
from horngate_trainer.checkpoint import Checkpoint, Keeper
from horngate_trainer.errors import CheckpointError, ResumeError

IDENTITY = {"seed": 5, "epochs": 3}


def state(epochs: int = 1, **identity: Any) -> Checkpoint:
    """A training after some epochs; the weight says how many."""
    return Checkpoint({**IDENTITY, **identity}, [{"loss": 0.5}] * epochs, [np.full(4, epochs, np.float32)])


def left(model: Path, *states: Checkpoint) -> Path:
    """Leave the checkpoints of a training whose trainer is gone; return its folder."""
    keeper = Keeper(model)
    for each in states:
        keeper.save(each)
    assert keeper._folder
    folder = keeper._folder
    keeper.close()
    return folder


def resumed(model: Path, **identity: Any) -> Checkpoint | None:
    """Take up a training and leave it again."""
    found = checkpoint.resume(model, {**IDENTITY, **identity}, print)
    if found is None:
        return None
    found[0].close()
    return found[1]


def test_none_is_none_and_a_finished_training_leaves_nothing(tmp_path: Path) -> None:
    """The folder of trainings goes with the last of them."""
    assert resumed(tmp_path) is None
    assert not checkpoint.exists(tmp_path)
    keeper = Keeper(tmp_path)
    keeper.save(state())
    keeper.remove()
    assert not any(tmp_path.iterdir())


def test_the_state_comes_back_as_it_was(tmp_path: Path) -> None:
    """Identity, history, variables, and the name of the run, which the version's manifest will have."""
    left(tmp_path, state(1), state(2))
    found = checkpoint.resume(tmp_path, IDENTITY, print)
    assert found is not None
    keeper, kept = found
    assert (kept.identity, len(kept.history), kept.run) == (IDENTITY, 2, keeper.run)
    assert [array.tolist() for array in kept.variables] == [[2.0] * 4]


def test_other_settings_are_refused_and_the_difference_is_named(tmp_path: Path) -> None:
    """Going on with other settings would be another training; an unspecified seed takes the old one."""
    left(tmp_path, state())
    with pytest.raises(ResumeError, match=r"other settings: epochs \(was 3, is 4\)$"):
        resumed(tmp_path, epochs=4)
    assert resumed(tmp_path, seed=None) is not None


def test_a_training_that_somebody_works_at_is_left_alone(tmp_path: Path) -> None:
    """It is neither resumed nor replaced; another one, begun at the same time, has a folder of its own."""
    first = Keeper(tmp_path)
    first.save(state(2))
    assert resumed(tmp_path) is None
    assert not checkpoint.exists(tmp_path)
    second = Keeper(tmp_path)
    second.save(state(1))
    first.close()
    kept = resumed(tmp_path)
    assert kept is not None
    assert len(kept.history) == 2
    second.close()


def test_the_training_that_came_farthest_is_taken_up_by_one_alone(tmp_path: Path) -> None:
    """Of several that were killed at once, each trainer that resumes gets another."""
    keepers = [Keeper(tmp_path) for _ in range(3)]
    for keeper, epochs in zip(keepers, (1, 3, 2), strict=True):
        keeper.save(state(epochs))
    for keeper in keepers:
        keeper.close()
    found = [checkpoint.resume(tmp_path, IDENTITY, print) for _ in range(4)]
    assert [each and len(each[1].history) for each in found] == [3, 2, 1, None]


def test_a_new_training_replaces_abandoned_ones_once_it_has_something_to_show(tmp_path: Path) -> None:
    """Until its first epoch is finished, --resume can still go on with the old one."""
    old = left(tmp_path, state(2))
    assert checkpoint.exists(tmp_path)
    keeper = Keeper(tmp_path)
    assert old.exists()
    keeper.save(state(1))
    assert not old.exists()
    keeper.remove()


def test_where_folders_cannot_be_locked_nothing_of_others_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on some network file systems: who lives cannot be known there. --resume takes it that nobody does."""

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    old = left(tmp_path, state(2))
    assert not checkpoint.exists(tmp_path)
    keeper = Keeper(tmp_path)
    keeper.save(state(1))
    keeper.remove()
    assert old.exists()
    assert resumed(tmp_path) is not None


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "junk": lambda _: b"junk",
    "cut": lambda data: data[: len(data) // 2],
    "tail-cut": lambda data: data[:-30],
    "flipped": lambda data: data.replace(np.full(4, 2, np.float32).tobytes(), np.full(4, 3, np.float32).tobytes()),
    "meta": lambda data: data.replace(b"i\0\0\0d\0\0\0e\0\0\0", b"x\0\0\0d\0\0\0e\0\0\0"),
    "zeros": lambda data: bytes(len(data)),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_costs_an_epoch_and_that_is_said(kind: str, tmp_path: Path) -> None:
    """The state before it is used; where there is none, an error says what to do."""
    folder = left(tmp_path, state(1), state(2))
    file = folder / "checkpoint.npz"
    whole = file.read_bytes()
    file.write_bytes(DAMAGE[kind](whole))
    assert file.read_bytes() != whole
    said: list[str] = []
    found = checkpoint.resume(tmp_path, IDENTITY, said.append)
    assert found is not None
    assert len(found[1].history) == 1
    assert str(file) in said[0]
    assert "is damaged" in said[0]
    assert said[0].endswith("going on from the one before it")
    found[0].close()
    (folder / "previous.npz").write_bytes(DAMAGE[kind](whole))
    with pytest.raises(CheckpointError, match=r"checkpoint\.npz is damaged \(.*\): train without --resume"):
        resumed(tmp_path)


@pytest.mark.parametrize(
    "meta", ["[]", "{}", '{"identity": 3}', '{"identity": {}, "history": [1], "variables": 1, "run": "a"}', "no JSON"]
)
def test_a_checkpoint_that_is_something_else_is_damaged_too(meta: str, tmp_path: Path) -> None:
    """A whole zip file with other contents."""
    np.savez(left(tmp_path, state(1)) / "checkpoint.npz", meta=np.array(meta), v0=np.zeros(1))
    with pytest.raises(CheckpointError, match="is damaged"):
        resumed(tmp_path)


def test_python_objects_are_not_unpickled(tmp_path: Path) -> None:
    """A checkpoint is data: it cannot run anything."""
    meta = json.dumps({"identity": IDENTITY, "history": [], "variables": 1, "run": "a"})
    np.savez(left(tmp_path, state(1)) / "checkpoint.npz", meta=np.array(meta), v0=np.array([{}]))
    with pytest.raises(CheckpointError, match="is damaged .*allow_pickle=False"):
        resumed(tmp_path)


def test_many_trainings_at_once_neither_share_nor_remove_anything_of_each_other(tmp_path: Path) -> None:
    """Each finds its own state at the end, whatever the others began and finished meanwhile."""
    failures: list[BaseException] = []
    barrier = threading.Barrier(8)

    def train(number: int) -> None:
        try:
            barrier.wait(20)
            for _ in range(5):
                keeper = Keeper(tmp_path)
                for _ in range(3):
                    keeper.save(state(1, seed=number))
                assert keeper._folder
                with np.load(keeper._folder / "checkpoint.npz") as archive:
                    assert json.loads(str(archive["meta"]))["identity"]["seed"] == number
                keeper.remove()
        except BaseException as failure:  # noqa: BLE001 - told by the assertion below
            failures.append(failure)

    threads = [threading.Thread(target=train, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert not any(tmp_path.iterdir())
