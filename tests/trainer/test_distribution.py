"""Two processes that train together end where one does, and where one of them fails, both end."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from horngate_trainer.training import share_of
from support.trainings import Ended, Trainers, blobs
from support.versions import check_whole

pytestmark = pytest.mark.slow


def two() -> list[dict[str, Any]]:
    """Variables of two workers on free ports."""
    with socket.socket() as first, socket.socket() as second:
        for each in (first, second):
            each.bind(("127.0.0.1", 0))
        hosts = [f"127.0.0.1:{each.getsockname()[1]}" for each in (first, second)]
    return [
        {"TF_CONFIG": json.dumps({"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}})}
        for index in range(2)
    ]


def weights(version: Path) -> list[np.ndarray[Any, Any]]:
    """What a published model has learned."""
    reader = tf.train.load_checkpoint(str(version / "variables/variables"))
    return [
        reader.get_tensor(name)
        for name in sorted(reader.get_variable_to_shape_map())
        if not name.startswith("_CHECKPOINT")
    ]


@dataclass(frozen=True)
class Together:
    """Two workers' training, with its flags."""

    flags: list[object]
    chief: Ended
    other: Ended


@pytest.fixture(scope="module")
def together(trainers: Trainers, tmp_path_factory: pytest.TempPathFactory) -> Together:
    """Two workers, each with a folder of models of its own; convolutions, normalization and dropout included."""
    folder = tmp_path_factory.mktemp("together")
    (x_train, y_train), (x_test, y_test) = blobs(300), blobs(90, seed=1)
    np.savez(folder / "data.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    flags = ["--data", folder / "data.npz", "--epochs", 3, "--seed", 3, "--architecture", "cnn"]
    flags += ["--formats", "savedmodel", "--strategy", "multi-worker"]
    chief, other = trainers((folder / "0", flags, None), (folder / "1", flags, None), quick=False, variables=two())
    assert (chief["code"], other["code"]) == (0, 0), chief["err"] + other["err"]
    assert other["out"] == ""
    assert not (folder / "1").exists()
    return Together(flags, chief, other)


@pytest.mark.timeout(120)
def test_two_processes_end_where_one_does(trainers: Trainers, tmp_path: Path, together: Together) -> None:
    """The same accuracy, and nearly the same weights; one version, by the chief; no checkpoints are left."""
    (alone,) = trainers((tmp_path, together.flags[:-2], None), quick=False)
    assert alone["code"] == 0, alone["err"]
    first, second = Path(alone["out"].strip()), Path(together.chief["out"].strip())
    assert check_whole(second)["evaluation"]["accuracy"] == check_whole(first)["evaluation"]["accuracy"]
    assert sorted(path.name for path in second.parent.iterdir()) == ["1"]
    pairs = list(zip(weights(first), weights(second), strict=True))
    assert len(pairs) > 10
    assert max(float(np.abs(one - two).max()) for one, two in pairs) < 1e-3


@pytest.mark.timeout(120)
def test_where_the_chief_dies_the_other_ends_and_both_go_on(
    trainers: Trainers, tmp_path: Path, together: Together
) -> None:
    """It says that another worker has failed; resumed, they end in the weights of those that nobody interrupted."""
    root, other = tmp_path / "0", tmp_path / "1"
    before_the_second_checkpoint = 4
    killed, left = trainers(
        (root, together.flags, before_the_second_checkpoint), (other, together.flags, None),
        quick=False, variables=two(),
    )  # fmt: skip
    assert killed["code"] == -9
    assert left["code"] == 1
    assert "another worker has failed" in left["err"].splitlines()[-1]
    flags = [*together.flags, "--resume"]
    chief, helper = trainers((root, flags, None), (other, flags, None), quick=False, variables=two())
    assert (chief["code"], helper["code"]) == (0, 0), chief["err"] + helper["err"]
    assert "resuming after epoch 1" in chief["err"]
    whole, resumed = (weights(Path(each["out"].strip())) for each in (together.chief, chief))
    assert [each.tobytes() for each in whole] == [each.tobytes() for each in resumed]
    once = [*together.flags, "--once"]
    finished = trainers((root, once, None), (other, once, None), quick=False, variables=two())
    assert [each["code"] for each in finished] == [0, 0], [each["err"] for each in finished]
    assert [each["out"] for each in finished] == [chief["out"], ""]


def test_a_worker_with_other_data_ends_all(trainers: Trainers, tmp_path: Path, write_data: Any) -> None:
    """It says what differs; the chief does not wait for it."""
    flags = ["--epochs", 1, "--seed", 3, "--strategy", "multi-worker", "--data"]
    data = write_data(), write_data("other.npz", classes=2)
    chief, other = trainers(*((tmp_path / "m", [*flags, each], None) for each in data), quick=False, variables=two())
    assert other["code"] == 2
    assert "this worker has other settings or data than the chief: data" in other["err"].splitlines()[-1]
    assert chief["code"] == 1
    assert "another worker has failed" in chief["err"].splitlines()[-1]


PARTS = """
import os, sys, time
from pathlib import Path

from horngate_trainer import clusters, distribution

own, theirs = (Path(each) for each in sys.argv[1:])
workers = distribution.join("multi-worker", clusters.parse(os.environ["TF_CONFIG"]))
assert workers.told({"finished": True}) == {"finished": True}
if workers.chief:  # it is not done before the other one would leave
    while not theirs.exists():
        time.sleep(0.01)
own.touch()
workers.part()
os._exit(0 if theirs.exists() else 3)
"""


def test_nobody_leaves_before_everybody_has_what_was_summed(tmp_path: Path) -> None:
    """Who ends at once is nobody's failure: the last sum is fetched from it, perhaps later."""
    marks = tmp_path / "chief", tmp_path / "other"
    processes = [
        subprocess.Popen([sys.executable, "-c", PARTS, *each], env={**os.environ, **own})
        for each, own in zip((marks, marks[::-1]), two(), strict=True)
    ]
    assert [each.wait(60) for each in processes] == [0, 0]


def test_every_row_of_a_batch_is_one_replicas() -> None:
    """Whatever the number of replicas, and where the last batch is not whole."""
    for replicas in (1, 2, 3, 7):
        shares = [share_of(replica, 150, 64, replicas) for replica in range(replicas)]
        assert sorted(np.concatenate(shares)) == list(range(150))
        for replica, rows in enumerate(shares):
            assert all(row % 64 % replicas == replica for row in rows)
