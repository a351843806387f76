"""Trainers as an operator has them: several at once, killed at any moment, started again."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from horngate_trainer import publish
from support.trainings import Trainers
from support.versions import check_whole

pytestmark = pytest.mark.slow

GRAPH, WEIGHTS = "saved_model.pb", "variables/variables.data-00000-of-00001"
RECORDED = "assets.extra/tf_serving_warmup_requests"


def versions(root: Path) -> list[Path]:
    """Return what a server would take for versions; all are whole."""
    found = sorted((root / "mnist" / str(number) for number in publish.versions(root / "mnist")), key=str)
    for version in found:
        check_whole(version)
    return found


def rest(root: Path) -> list[str]:
    """Return what lies in the model's folder beside versions."""
    return sorted(path.name for path in (root / "mnist").iterdir() if not path.name.isdigit())


def test_nine_trainers_of_one_name_publish_nine_versions(trainers: Trainers, tmp_path: Path, write_data: Any) -> None:
    """Each says which is its own, none takes anything from another, and nothing is left behind."""
    flags = ["--data", write_data(), "--epochs", 3]
    ended = trainers(*[(tmp_path / "m", [*flags, "--seed", seed], None) for seed in range(9)])
    assert [each["code"] for each in ended] == [0] * 9, [each["err"] for each in ended]
    printed = {each["out"].strip() for each in ended}
    assert printed == {str(version) for version in versions(tmp_path / "m")}
    assert len(printed) == 9
    for seed, each in enumerate(ended):
        assert check_whole(Path(each["out"].strip()))["training"]["seed"] == seed
    assert rest(tmp_path / "m") == []


@pytest.mark.timeout(150)
def test_a_trainer_killed_at_any_stage_ends_in_one_version_when_it_is_resumed(
    trainers: Trainers, tmp_path: Path, write_data: Any
) -> None:
    """Before every single change of the disk: never half a version, never a second one, and the same bytes at last."""
    flags = ["--data", write_data(), "--epochs", 2, "--seed", 3]
    ((whole,),) = [trainers((tmp_path / "whole", flags, None))]
    assert whole["code"] == 0, whole["err"]
    (reference,) = versions(tmp_path / "whole")
    stages, alive = 0, True
    while alive:
        batch = range(stages + 1, stages + 5)
        roots = {number: tmp_path / str(number) for number in batch}
        killed = trainers(*[(roots[number], flags, number) for number in batch])
        resumed = trainers(*[(roots[number], [*flags, "--resume"], None) for number in batch])
        for number, first, second in zip(batch, killed, resumed, strict=True):
            assert first["code"] in {-9, 0}, first["err"]
            assert second["code"] == 0, second["err"]
            (version,) = versions(roots[number])
            assert second["out"] == f"{version}\n"
            for file in (GRAPH, WEIGHTS, RECORDED):
                assert (version / file).read_bytes() == (reference / file).read_bytes(), (number, file)
            assert rest(roots[number]) == []
            alive = alive and first["code"] == -9
            stages += first["code"] == -9
    assert stages >= 12


def test_a_finished_training_is_not_published_again(trainers: Trainers, tmp_path: Path, write_data: Any) -> None:
    """--resume prints the version that there is; other settings, or no --resume, make another."""
    flags = ["--data", write_data(), "--epochs", 2, "--seed", 3]
    root = tmp_path / "m"
    (first,) = trainers((root, flags, None))
    (again,) = trainers((root, [*flags, "--resume"], None))
    assert (again["code"], again["out"]) == (0, first["out"])
    assert "this training is finished, and its version is published" in again["err"]
    (other,) = trainers((root, ["--data", flags[1], "--epochs", 3, "--seed", 3, "--resume"], None))
    (anew,) = trainers((root, flags, None))
    assert [other["out"], anew["out"]] == [f"{root}/mnist/2\n", f"{root}/mnist/3\n"]


def test_a_resumed_training_publishes_the_bytes_of_an_uninterrupted_one(
    trainers: Trainers, tmp_path: Path, write_data: Any
) -> None:
    """With the real fit: graph, weights and recorded answers; only the manifest tells of dates and names."""
    flags = ["--data", write_data(), "--epochs", 4, "--seed", 3]
    whole, killed = trainers((tmp_path / "whole", flags, None), (tmp_path / "m", flags, 5), quick=False)
    assert (whole["code"], killed["code"]) == (0, -9), (whole["err"], killed["err"])
    (resumed,) = trainers((tmp_path / "m", [*flags, "--resume"], None), quick=False)
    assert resumed["code"] == 0, resumed["err"]
    assert "resuming after epoch" in resumed["err"]
    ((expected,), (got,)) = versions(tmp_path / "whole"), versions(tmp_path / "m")
    files = {path.relative_to(got) for path in got.rglob("*") if path.is_file()}
    assert files == {path.relative_to(expected) for path in expected.rglob("*") if path.is_file()}
    differing = {str(file) for file in files if (got / file).read_bytes() != (expected / file).read_bytes()}
    assert differing == {"assets.extra/horngate.json"}


def test_a_damaged_checkpoint_is_an_error_with_exit_code_1(trainers: Trainers, tmp_path: Path, write_data: Any) -> None:
    """Both states damaged: no traceback, and the way out. One damaged: the other is used, and that is said."""
    flags = ["--data", write_data(), "--epochs", 5, "--seed", 3]
    root = tmp_path / "m"
    (killed,) = trainers((root, flags, 7))
    assert killed["code"] == -9
    ((folder,),) = [list((root / "mnist/.training").iterdir())]
    whole = (folder / "previous.npz").read_bytes()
    for file in folder.iterdir():
        file.write_bytes(whole[: len(whole) // 2])
    (refused,) = trainers((root, [*flags, "--resume"], None))
    assert refused["code"] == 1
    assert "is damaged" in refused["err"].splitlines()[-1]
    assert "train without --resume" in refused["err"].splitlines()[-1]
    assert "Traceback" not in refused["err"]
    (folder / "previous.npz").write_bytes(whole)
    (resumed,) = trainers((root, [*flags, "--resume"], None))
    assert resumed["code"] == 0, resumed["err"]
    assert "is damaged" in resumed["err"]
    assert "going on from the one before it" in resumed["err"]


def test_a_version_is_as_readable_as_the_umask_says_and_unfinished_ones_are_nobodys(tmp_path: Path) -> None:
    """A server of another user reads what was published; while it is written, nobody else can put anything there."""
    with publish.staging(tmp_path / "m") as staging:
        (private,) = (tmp_path / "m").iterdir()
        assert private.stat().st_mode & 0o777 == 0o700
        (staging.path / "file").write_text("")
        version = staging.publish({})
    made = tmp_path / "made"
    made.mkdir()
    assert version.stat().st_mode == made.stat().st_mode


def test_numbers_beyond_64_bits_are_no_versions(tmp_path: Path) -> None:
    """No protocol could name them: the next version counts from the others."""
    for name in ("20261126035230123456", "7"):
        (tmp_path / "m" / name).mkdir(parents=True)
    with publish.staging(tmp_path / "m") as staging:
        assert staging.publish({}).name == "8"
    (tmp_path / "m" / str(np.iinfo(np.int64).max)).mkdir()
    with publish.staging(tmp_path / "m") as staging, pytest.raises(OSError, match="there can be none above it"):
        staging.publish({})
