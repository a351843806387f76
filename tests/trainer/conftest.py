"""Small data for the trainer's tests."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.trainings import Ended, Trainers, blobs

Write = Callable[..., Path]

ZYGOTE = Path(__file__).with_name("training_zygote.py")


@pytest.fixture
def write_data(tmp_path: Path) -> Write:
    """Writes an .npz file in Keras's layout; single arrays can be replaced, or left out with None."""

    def write(name: str = "data.npz", *, side: int = 8, classes: int = 3, **replaced: Any) -> Path:
        x_train, y_train = blobs(300, side=side, classes=classes)
        x_test, y_test = blobs(90, side=side, classes=classes, seed=1)
        arrays = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test, **replaced}
        path = tmp_path / name
        np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
        return path

    return write


@pytest.fixture(scope="session")
def trainers() -> Iterator[Trainers]:
    """Runs trainings at once, each given by its flags; kills each before one of its changes of the disk, if asked."""
    with subprocess.Popen([sys.executable, ZYGOTE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as zygote:
        assert zygote.stdin
        assert zygote.stdout

        def run(
            *asked: tuple[Path, list[object], int | None], quick: bool = True, variables: Sequence[dict[str, str]] = ()
        ) -> list[Ended]:
            assert zygote.stdin
            assert zygote.stdout
            trainings = [
                {
                    "flags": ["--output", str(root), "--report", "none", "--min-accuracy", "0", *map(str, flags)],
                    "quick": quick, "kill": kill, "below": str(root), "variables": own,
                }
                for (root, flags, kill), own in zip_longest(asked, variables, fillvalue=dict[str, str]())
            ]  # fmt: skip
            zygote.stdin.write(json.dumps(trainings) + "\n")
            zygote.stdin.flush()
            ended: list[Ended] = json.loads(zygote.stdout.readline())
            return ended

        yield run
        zygote.stdin.close()
        assert zygote.wait(30) == 0
