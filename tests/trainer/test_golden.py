"""``horngate-trainer golden``: yesterday's requests become what a version is verified by, if it answers them so."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from horngate_protos.tfrecords import framed
from horngate_trainer import cli, export, golden, recorded
from horngate_trainer.golden_settings import MOST_ROWS
from horngate_trainer.written import reload
from support.versions import check_whole

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword"),  # Keras, when it saves
]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version of a small classifier."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,), name="rows"), layers.Dense(3, "softmax", name="scores")])
    return export(model, tmp_path_factory.mktemp("golden"), name="wine", formats=["savedmodel"])


@pytest.fixture
def version(exported: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(exported, tmp_path / "wine" / "1"))


def traffic(version: Path, file: Path, sizes: Sequence[int], *, wrong: float = 0.0) -> None:
    """Write requests of so many rows with what the version answers, and a little beside it."""
    random = np.random.default_rng(0)
    with reload(version) as answer:
        pairs = []
        for size in sizes:
            request = {"rows": random.random((size, 4), np.float32)}
            pairs.append((request, {name: array + wrong for name, array in answer(request).items()}))
    golden.write(file, "wine", {"serving_default": pairs})


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Run the command; return its exit code, and what it printed."""
    code = cli.main(["golden", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def test_recorded_requests_replace_those_of_the_same_signature(
    version: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As many rows as asked for, no request twice; others stay; the version is whole, and everything else as before."""
    explained = [({"x": np.zeros((1, 2), np.float32)}, {"y": np.zeros((1,), np.int64)})]
    kept = [(each.request, each.answer) for each in recorded.read(version / golden.FILE)]
    golden.write(version / golden.FILE, "wine", {"serving_default": kept, "explain": explained})
    before = json.loads((version / "assets.extra/horngate.json").read_text())
    (folder := tmp_path / "recorded").mkdir()
    traffic(version, folder / "a.tfrecord", [1, 2, 3, 50])
    traffic(version, folder / "b.tfrecord", [1, 2, 3, 50])
    code, out, err = run(capsys, folder, "--version", version, "--rows", 8)
    assert (code, out) == (0, f"{version}\n")
    assert "recorded  6 rows for serving_default" in err
    found = list(recorded.read(version / golden.FILE))
    assert sorted(each.rows for each in found if each.signature == "serving_default") == [1, 2, 3]
    assert [each.request["x"].tolist() for each in found if each.signature == "explain"] == [[[0, 0]]]
    manifest = check_whole(version)
    assert {key: value for key, value in manifest.items() if key != "files"} == {
        key: value for key, value in before.items() if key != "files"
    }
    assert not list(version.parent.glob(".partial*"))


def test_a_version_that_answers_otherwise_keeps_what_it_has(
    version: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The record is named, and by how much it differs; exit code 1."""
    before = (version / golden.FILE).read_bytes()
    traffic(version, tmp_path / "a.tfrecord", [1], wrong=0.2)
    code, _, err = run(capsys, tmp_path / "a.tfrecord", "--version", version)
    assert code == 1
    assert "does not answer as was recorded in record 0" in err
    assert (version / golden.FILE).read_bytes() == before
    golden.write(tmp_path / "a.tfrecord", "wine", {"other": [({"rows": np.zeros((1, 4), "f")}, {"y": np.zeros(1)})]})
    code, _, err = run(capsys, tmp_path / "a.tfrecord", "--version", version)
    assert code == 1
    assert "cannot answer record 0" in err
    check_whole(version)


def test_what_cannot_be_used_is_said(version: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2: no version, no file, no answers, no request that is small enough; 1: a random model."""
    file = tmp_path / "a.tfrecord"
    traffic(version, file, [5])
    empty = tmp_path / "empty.tfrecord"
    empty.write_bytes(framed(b""))
    torn = tmp_path / "torn.tfrecord"
    torn.write_bytes(file.read_bytes()[:-1] + b"?")
    cases: list[tuple[tuple[Any, ...], str, int]] = [
        ((file,), "--version DIR is needed", 2),
        ((file, "--version", version, "--rows", MOST_ROWS + 1), "--rows: a whole number from 1 to 1000", 2),
        ((file, "--version", version, "--rows", 4), "the smallest request in", 2),
        ((file, "--version", tmp_path), "horngate.json that can be read", 2),
        ((empty, "--version", version), "has no request with an answer", 2),
        ((torn, "--version", version), "is damaged at byte 0", 2),
        ((tmp_path / "missing", "--version", version), "No such file", 1),
    ]
    for arguments, said, expected in cases:
        code, _, err = run(capsys, *arguments)
        assert (code, said in err) == (expected, True), err
    manifest = version / "assets.extra/horngate.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "deterministic": False}))
    code, _, err = run(capsys, file, "--version", version)
    assert (code, "can have no recorded answers" in err) == (1, True)


def test_rows_are_drawn_from_all_files_and_the_same_ones_again(version: Path, tmp_path: Path) -> None:
    """Not the first ones: a day is more than its first minute."""
    traffic(version, tmp_path / "a.tfrecord", [1] * 200)
    first = [each.place for each in recorded.choose(tmp_path, 20)]
    assert first == [each.place for each in recorded.choose(tmp_path, 20)]
    assert len(set(first)) == 20
    assert max(int(place.split()[1]) for place in first) > 100
