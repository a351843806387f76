"""The file --config: what it may say, and what it is told where it is wrong."""

from dataclasses import replace
from pathlib import Path

import pytest

from horngate_server.core.errors import SettingsError
from horngate_server.core.settings import Limits, Settings, read
from horngate_server.lifecycle import model_config

SETTINGS = Settings(max_batch_rows=16, queue_rows=64)


def parse(tmp_path: Path, text: str) -> model_config.Config:
    """Read a file with this text."""
    path = tmp_path / "models.toml"
    path.write_text(text)
    return model_config.read(path, SETTINGS)


def test_everything_that_can_be_said(tmp_path: Path) -> None:
    """Versions, labels, a shadow and limits; models that are not named have the defaults."""
    read = parse(
        tmp_path,
        """
        [models.mnist]
        latest = 2
        labels = { stable = 3, canary = 4 }
        shadow = { version = 5, share = 0.5 }
        max_batch_rows = 8
        max_queue_delay = "2ms"
        [models.other]
        versions = "all"
        [models.third]
        versions = [3, 5]
        """,
    )
    mnist = read.of("mnist")
    assert (mnist.latest, dict(mnist.labels), mnist.shadow, mnist.shadow_share) == (
        2,
        {"stable": 3, "canary": 4},
        5,
        0.5,
    )
    assert mnist.limits == replace(SETTINGS.limits, max_batch_rows=8, max_queue_delay_s=0.002)
    assert read.of("other").versions == frozenset()
    assert read.of("third").versions == frozenset({3, 5})
    assert read.of("unnamed") == model_config.ModelConfig(SETTINGS.limits)


def test_how_a_model_is_loaded_and_batched_can_be_said(tmp_path: Path) -> None:
    """Tags, the default signature, batching, and how long and how large a batch may be."""
    limits = parse(
        tmp_path,
        """
        [models.m]
        batching = "whole"
        tags = ["serve", "gpu"]
        signature = "predict"
        target_batch_time = "20ms"
        model_memory = "800MB"
        """,
    ).of("m").limits  # fmt: skip
    assert limits == Limits(
        16, 64, 0.0, target_batch_s=0.02, model_memory_bytes=800_000_000, queue_bytes=SETTINGS.max_request_bytes,
        batching="whole", tags=("serve", "gpu"), signature="predict",
    )  # fmt: skip
    other = parse(tmp_path, "[models.m]").of("m").limits
    assert (other.batching, other.tags, other.signature) == ("auto", (), "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[models.m", "Expected ']' at the end of a table declaration"),
        ("model = 1", "models.toml: model: no such key; expected one of models"),
        ("models = 1", "models: expected a table, came 1"),
        ("[models.m]\nlatest = 0", "models.m.latest: expected a whole number above 0, came 0"),
        ("[models.m]\nlatest = true", "models.m.latest: expected a whole number above 0, came True"),
        ("[models.m]\nlatest = 1\nversions = [1]", "models.m.versions: expected either latest or versions"),
        ("[models.m]\nversions = [1.5]", 'models.m.versions: expected "all" or a list of versions'),
        ("[models.m]\nversions = []", "models.m.versions: expected at least one version"),
        ("[models.m.labels]\n7 = 1", "models.m.labels.7: expected a label that is no number"),
        ("[models.m.labels]\nx = 'a'", "models.m.labels.x: expected a whole number above 0, came 'a'"),
        ("[models.m.shadow]\nshare = 0.5", "models.m.shadow.version: expected the version that computes along"),
        ("[models.m.shadow]\nversion = 1\nshare = 2", "models.m.shadow.share: expected a number above 0 and up to 1"),
        ("[models.m]\nmax_queue_delay = 5", "models.m.max_queue_delay: expected a duration such as"),
        ("[models.m]\nbatching = 'row'", "models.m.batching: expected one of rows, whole, auto, came 'row'"),
        ("[models.m]\nbatching = true", "models.m.batching: expected one of rows, whole, auto, came True"),
        ("[models.m]\nlengths = 'pad'", "models.m.lengths: expected one of padded, apart, auto, came 'pad'"),
        ("[models.m]\ntags = 'serve'", "models.m.tags: expected a list of the tags that a MetaGraph has"),
        ("[models.m]\ntags = []", "models.m.tags: expected a list of the tags that a MetaGraph has"),
        ("[models.m]\nsignature = 1", "models.m.signature: expected a name, came 1"),
        ("[models.m]\nsignature = ''", "models.m.signature: expected a name, came ''"),
        ("[models.m]\ntarget_batch_time = '0ms'", "models.m.target_batch_time: expected a duration from 1ms to 60s"),
        ("[models.m]\nmodel_memory = '0%'", "models.m.model_memory: expected at least 1MiB"),
        ("[models.m]\nqueue_rows = 4", "models.m.queue_rows: expected at least max_batch_rows, 16, came 4"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    """The key, what was expected, what came."""
    with pytest.raises(SettingsError) as wrong:
        parse(tmp_path, text)
    assert said in str(wrong.value)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    """The flag, the path and the system's reason."""
    with pytest.raises(SettingsError, match=r"--config .*nowhere.toml: No such file"):
        model_config.read(tmp_path / "nowhere.toml", SETTINGS)


def test_without_a_file_the_flags_hold() -> None:
    """No file is no error."""
    assert model_config.read(None, SETTINGS).of("any").limits == SETTINGS.limits


@pytest.mark.parametrize(("given", "admin"), [(["--admin"], True), ([], False)])
def test_a_switch_takes_no_value(given: list[str], admin: bool) -> None:
    """As a flag it is there or not; as a variable it says true or false."""
    assert read(given, {}).admin is admin
    assert read([], {"HORNGATE_ADMIN": str(admin)}).admin is admin
    with pytest.raises(SettingsError, match="HORNGATE_ADMIN 'maybe': expected true or false"):
        read([], {"HORNGATE_ADMIN": "maybe"})


def test_administration_reaches_one_process_only() -> None:
    """With several workers the others would not hear of it."""
    with pytest.raises(SettingsError, match="--admin reaches one process"):
        Settings(admin=True, workers=2)
