"""models.toml and the models that there are: promotions that write it, and sections for nobody."""

from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from horngate_server.core.errors import SettingsError
from horngate_server.core.settings import Settings
from horngate_server.lifecycle import config_file
from support.lifecycle_harness import LifecycleHarness, publish

WAIT_S = 20.0
Made = Callable[[str], LifecycleHarness]


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Made]:
    """Makes a lifecycle of mnist's versions 1 and 2 with this file, which promotions may write."""
    made = []

    def make(text: str) -> LifecycleHarness:
        file = tmp_path / "models.toml"
        file.write_text(dedent(text))
        harness = LifecycleHarness(tmp_path / "models", monkeypatch, config=file, write_config=True, admin=True)
        publish(harness.root, 1, name="mnist")
        publish(harness.root, 2, name="mnist")
        harness.lifecycle.begin()
        made.append(harness)
        return harness

    yield make
    for each in made:
        each.lifecycle.stop(WAIT_S)
        assert each.lifecycle.drain(WAIT_S)
        each.lifecycle.close()


def promote(harness: LifecycleHarness, version: int, label: str) -> str:
    """Promote a version of mnist; return what was wrong."""
    error = harness.wish(lambda done: harness.lifecycle.promote("mnist", version, label, done))
    return str(error or "")


def test_a_promotion_writes_its_label_and_keeps_the_rest(written: Made, tmp_path: Path) -> None:
    """Comments, order and other models stay; it counts at once, and when the file is read again."""
    harness = written("""\
        # ours
        [models.mnist]
        latest = 2  # both
        labels = { stable = 1, canary = 2 }  # who answers whom

        [models.wine.labels]
        stable = 7
        """)
    file = tmp_path / "models.toml"
    before = file.read_text()
    assert harness.answers(name="mnist") == "1"
    assert promote(harness, 2, "stable") == ""
    assert harness.answers(name="mnist") == "2"
    assert file.read_text() == before.replace("stable = 1", "stable = 2")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["models", "models.toml"]
    harness.look()
    harness.look()
    assert harness.answers(name="mnist") == "2"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("[models.mnist.labels]\nstable = 1  # the one\n", id="a-table-of-labels"),
        pytest.param("models.mnist.latest = 2\n", id="dotted"),
        pytest.param("[models]\nmnist = { latest = 2 }\r\n", id="inline"),
    ],
)
def test_a_label_is_written_into_any_file(text: str, tmp_path: Path) -> None:
    """However it is laid out; what is read from it afterwards has the label, and the comment behind it stays."""
    file = tmp_path / "models.toml"
    file.write_bytes(text.encode())
    file.chmod(0o640)
    config = config_file.set_label(file, Settings(), "mnist", "stable", 3)
    assert dict(config.of("mnist").labels) == {"stable": 3}
    assert ("# the one" in file.read_text()) == ("# the one" in text)
    assert file.stat().st_mode & 0o777 == 0o640


def test_what_cannot_be_written_moves_no_label(written: Made, tmp_path: Path) -> None:
    """A file that is wrong is not made worse; one in a folder that is not there is said at the start."""
    harness = written("")
    file = tmp_path / "models.toml"
    file.write_text("[models.mnist")
    assert "models.toml is wrong, and nothing is written into it" in promote(harness, 1, "stable")
    assert (file.read_text(), harness.answers(name="mnist")) == ("[models.mnist", "2")
    file.write_text("[models.mnist]\nlatest = 'two'\n")
    assert "/models.toml: models.mnist.latest: expected a whole number" in promote(harness, 1, "stable")
    file.unlink()
    assert "models.toml cannot be written: No such file or directory" in promote(harness, 1, "stable")
    with pytest.raises(SettingsError, match="--write-config: no file can be written in"):
        config_file.check(tmp_path / "no/models.toml")
    with pytest.raises(SettingsError, match="--write-config needs --admin, .* and --config FILE"):
        Settings(write_config=True, admin=True)


def test_a_section_for_nobody_is_said_and_changes_nobody(
    written: Made, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, with the name that was probably meant; whose section was misnamed keeps what it had."""
    harness = written("[models.mnist]\nlabels = { stable = 1 }\n[models.wine]\n")
    assert "models.wine: there is no such model so far; there is mnist" in caplog.text
    (tmp_path / "models.toml").write_text("[models.mnst]\nlabels = { stable = 2 }\n")
    harness.look()
    harness.look()
    assert caplog.text.count("models.mnst: there is no such model so far; did you mean mnist?") == 1
    assert harness.answers(name="mnist") == "1"
    assert "model mnist keeps its configuration, though the file has models.mnst instead" in caplog.text
