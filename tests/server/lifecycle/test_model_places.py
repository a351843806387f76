"""What an operator names is served as it stands, wherever a model's versions lie; what cannot be is said at once."""

import json
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from horngate_server.core.errors import SettingsError
from horngate_server.core.settings import Settings
from horngate_server.lifecycle.model_places import ModelPlaces, needs_tensorflow
from horngate_server.services.model_control import ModelControl
from horngate_server.telemetry.metrics import Metrics
from support.lifecycle_harness import LifecycleHarness, publish


def made(path: Path) -> Path:
    """Write a file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def checked(*models: Path, name: tuple[str, ...] = ()) -> ModelPlaces:
    """Return the places of these MODELs, looked at as at the start."""
    places = ModelPlaces(Settings(model=models, name=name))
    places.check()
    return places


@pytest.mark.parametrize(
    ("files", "named", "models"),
    [
        pytest.param(["wine/saved_model.pb"], "wine", {"wine": {1: "wine"}}, id="saved-model"),
        pytest.param(["wine/saved_model.pb"], "wine/saved_model.pb", {"wine": {1: "wine"}}, id="a-folder's-file"),
        pytest.param(["wine/model.tflite"], "wine", {"wine": {1: "wine"}}, id="litert-folder"),
        pytest.param(["wine.tflite"], "wine.tflite", {"wine": {1: "wine.tflite"}}, id="litert-file"),
        pytest.param(["7.tflite"], "7.tflite", {"7": {1: "7.tflite"}}, id="a-file-called-by-a-number"),
        pytest.param(["m/3/model.tflite"], "m/3/model.tflite", {"m": {3: "m/3/model.tflite"}}, id="a-version's-file"),
        pytest.param(["m/3/saved_model.pb"], "m/3", {"m": {3: "m/3"}}, id="a-version"),
        pytest.param(["m/3/saved_model.pb", "m/7/x"], "m", {"m": {3: "m/3", 7: "m/7"}}, id="model-folder"),
        pytest.param(["r/m/1/saved_model.pb", "r/n/2/x"], "r", {"m": {1: "r/m/1"}, "n": {2: "r/n/2"}}, id="root"),
        pytest.param(["r/5/saved_model.pb", "r/m/1/x"], "r", {"m": {1: "r/m/1"}}, id="root-with-a-stray-version"),
    ],
)
def test_a_place_is_what_its_content_says(
    tmp_path: Path, files: list[str], named: str, models: dict[str, dict[int, str]]
) -> None:
    """A SavedModel, a file, a version, a model's folder or a root: as it stands, under its folder's or file's name."""
    for each in files:
        made(tmp_path / each)
    found = {
        name: {number: str(path.relative_to(tmp_path)) for number, path in versions.items()}
        for name, versions in checked(tmp_path / named).look().models.items()
    }
    assert found == models


def test_names_are_given_in_the_models_order(tmp_path: Path) -> None:
    """Several MODELs serve several models; two of one name need names, and a root's models have theirs."""
    one, other = tmp_path / "a/m", tmp_path / "b/m"
    made(one / "saved_model.pb")
    made(other / "1/saved_model.pb")
    with pytest.raises(SettingsError, match="2 models are called m: give each a name, --name A --name B"):
        checked(one, other)
    places = checked(one, other, name=("x", "y"))
    assert places.look().models == {"x": {1: one}, "y": {1: other / "1"}}
    assert checked(one, one, name=("x", "y")).look().models == {"x": {1: one}, "y": {1: one}}
    assert (places.folder_of("x"), places.folder_of("y")) == (one, other)
    with pytest.raises(SettingsError, match="--name z: MODEL .* holds several models"):
        checked(tmp_path / "b", name=("z",))
    with pytest.raises(SettingsError, match="1 --name for 2 MODEL; expected one for each"):
        Settings(model=(one, other), name=("x",))


@pytest.mark.parametrize(
    ("file", "named", "said"),
    [
        ("wine.keras", "wine.keras", r"`horngate-trainer import \S+/wine.keras --name wine`"),
        ("wine.h5", "wine.h5", r"`horngate-trainer import \S+/wine.h5 --name wine`"),
        ("m/wine.keras", "m", r"it has only wine.keras; .*`horngate-trainer import \S+/m/wine.keras --name wine`"),
        ("m/v1/saved_model.pb", "m", "v1 is no version: expected a whole number"),
        ("m/1/model.savedmodel/saved_model.pb", "m/1", "that is Triton's layout"),
        ("model.zip", "model.zip", "expected a SavedModel's folder"),
        ("m/notes.txt", "m", "nothing there can be served; expected a SavedModel's folder"),
        ("m/notes.txt", "n", "No such file or directory; expected a SavedModel's folder"),
    ],
)
def test_what_cannot_be_served_is_said_before_anything_starts(tmp_path: Path, file: str, named: str, said: str) -> None:
    """With what lies there, what was expected, and the command that helps."""
    made(tmp_path / file)
    with pytest.raises(SettingsError, match=said):
        checked(tmp_path / named)


def test_a_root_may_be_filled_later(tmp_path: Path) -> None:
    """An empty ``--models`` waits; what comes first says what it is, and it stays that."""
    places = ModelPlaces(Settings(models=tmp_path / "wine"))
    (tmp_path / "wine").mkdir()
    places.check()
    assert not places.look().models
    made(tmp_path / "wine/1/saved_model.pb")
    assert set(places.look().models) == {"wine"}
    made(tmp_path / "wine/backup/1/saved_model.pb")  # by itself, this would be a root
    assert set(places.look().models) == {"wine"}


def test_new_versions_of_a_models_folder_are_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of a root are; and what is no version is in the picture with the reason."""
    publish(tmp_path, 1)
    harness = LifecycleHarness(tmp_path / "m", monkeypatch)
    harness.lifecycle.begin()
    assert harness.answers() == "1"
    publish(tmp_path, 2)
    made(tmp_path / "m/v3/saved_model.pb")
    harness.look()
    assert harness.answers() == "2"
    picture = json.loads(ModelControl(harness.lifecycle, Metrics(CollectorRegistry()), harness.clock).json())
    [ignored] = [each for each in picture if each["state"] == "ignored"]
    assert (ignored["name"], ignored["version"]) == (str(tmp_path / "m/v3"), None)
    assert ignored["reason"].startswith("it is no version: expected a whole number")
    assert harness.lifecycle.places.folder_of("m") == tmp_path / "m"


@pytest.mark.parametrize(
    ("files", "settings", "needed"),
    [
        pytest.param(["m/1/saved_model.pb"], {}, True, id="a-savedmodel"),
        pytest.param(["m/1/model.tflite"], {}, False, id="a-litert-file"),
        pytest.param(["m/1/model.tflite", "n/2/saved_model.pb"], {}, True, id="one-of-two"),
        pytest.param(["m/1/saved_model.pb"], {"engine": "litert"}, False, id="litert-asked-for"),
        pytest.param(["m/1/saved_model.pb"], {"config": Path("models.toml")}, False, id="who-knows"),
        pytest.param([], {}, False, id="nothing"),
    ],
)
def test_tensorflows_library_is_loaded_early_where_it_is_sure_to_be_needed(
    tmp_path: Path, files: list[str], settings: dict[str, object], needed: bool
) -> None:
    """What is served by LiteRT alone costs neither its time nor its memory; a folder that is not there is no error."""
    for each in files:
        made(tmp_path / "root" / each)
    assert needs_tensorflow(Settings(models=tmp_path / "root", **settings)) is needed  # type: ignore[arg-type]


def test_a_version_that_cannot_be_looked_into_needs_no_library_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it cannot is said by who loads it: the start goes on."""
    made(tmp_path / "m/1/saved_model.pb")

    def refused(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    settings = Settings(models=tmp_path)
    assert needs_tensorflow(settings)
    monkeypatch.setattr(Path, "is_file", refused)
    assert not needs_tensorflow(settings)
