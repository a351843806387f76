"""The model root on disk: what is a version, what is not, and what is said of what is not."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from horngate_server.core.errors import ModelError
from horngate_server.lifecycle import folder_hints, repository

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def write(path: Path, content: bytes | str = b"x") -> Path:
    """Write a file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def sealed(path: Path, *more: str, **files: str) -> Path:
    """Write a version whose manifest lists its graph and these files, each with the digest that ``x`` has."""
    write(path / "saved_model.pb")
    listed = {"saved_model.pb": hashlib.sha256(b"x").hexdigest()} | files
    listed |= dict.fromkeys(more, hashlib.sha256(b"x").hexdigest())
    write(path / repository.MANIFEST, json.dumps({"files": listed}))
    return path


@pytest.mark.parametrize(
    "file", ["/etc/hostname", "../2/saved_model.pb", "variables/../../2/saved_model.pb", "", ".", "a\0b", "\ud800"]
)
def test_a_manifest_lists_plain_paths_below_its_version_only(tmp_path: Path, file: str) -> None:
    """What lies elsewhere is not part of the version; the message names the path and what was expected."""
    write(tmp_path / "m/2/saved_model.pb")
    with pytest.raises(ModelError, match="expected plain paths below the version") as refused:
        repository.read(sealed(tmp_path / "m/1", file))
    assert ascii(file) in str(refused.value)


def test_a_listed_file_may_not_be_a_link_out_of_its_version(tmp_path: Path) -> None:
    """Neither itself nor through a folder; a link to a file of the same version is one of its files."""
    outside = write(tmp_path / "elsewhere/weights")
    version = sealed(tmp_path / "m/1", "weights", "also", "linked/weights")
    (version / "weights").symlink_to("saved_model.pb")
    (version / "also").symlink_to(outside)
    with pytest.raises(ModelError, match="lists also, which is a link to .*elsewhere/weights"):
        repository.read(version)
    (version / "also").unlink()
    write(version / "also")
    (version / "linked").symlink_to(outside.parent)
    with pytest.raises(ModelError, match="lists linked/weights, which is a link to .*elsewhere/weights"):
        repository.read(version)
    (version / "linked").unlink()
    write(version / "linked/weights")
    assert repository.read(version).number == 1


def test_a_version_may_itself_be_a_link(tmp_path: Path) -> None:
    """Stores that keep versions elsewhere link to the whole folder."""
    sealed(tmp_path / "store/abc", "saved_model.pb")
    (tmp_path / "m").mkdir()
    (tmp_path / "m/1").symlink_to(tmp_path / "store/abc")
    assert repository.read(tmp_path / "m/1").manifest is not None


@pytest.mark.parametrize("manifest", ["[" * 100_000, "{", '{"files": {"a": 1}}', "[]", b"\xff"])
def test_a_manifest_that_is_none_is_the_models_fault(tmp_path: Path, manifest: str | bytes) -> None:
    """However it is broken, the version is refused with the manifest's path."""
    version = sealed(tmp_path / "m/1")
    write(version / repository.MANIFEST, manifest)
    with pytest.raises(ModelError, match=r"horngate.json (is not JSON|has no .files.)"):
        repository.read(version)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        pytest.param(
            {"saved_model.pb": POINTER}, "saved_model.pb is a Git LFS pointer, .* run `git lfs pull`", id="graph"
        ),
        pytest.param(
            {"saved_model.pb": "x", "variables/variables.data-00000-of-00001": POINTER},
            "variables/variables.data-00000-of-00001 is a Git LFS pointer",
            id="weights",
        ),
        pytest.param({"wine.tflite": "x"}, "it has only wine.tflite: .* is called .*/model.tflite", id="litert"),
        pytest.param(
            {"mnist.keras": "x"}, "it has only mnist.keras; .*horngate-trainer import .*/mnist.keras --name mnist",
            id="keras",
        ),
        pytest.param({"mnist.h5": "x"}, "it has only mnist.h5; .* Keras alone can read it", id="h5"),
        pytest.param(
            {"model.savedmodel/saved_model.pb": "x"}, "that is Triton's layout: .*move what is in model.savedmodel up",
            id="triton",
        ),
        pytest.param({"model.onnx": "x"}, "it has only model.onnx; Horngate serves SavedModels", id="onnx"),
        pytest.param({"saved_model.pbtxt": "x"}, "it has saved_model.pbtxt, the text form", id="text"),
        pytest.param(
            {"mnist/saved_model.pb": "x"}, "mnist/saved_model.pb is one level too low: move what is in mnist up",
            id="too-low",
        ),
        pytest.param({"variables/variables.index": "x"}, "no saved_model.pb and no model.tflite$", id="not-yet-copied"),
    ],
)  # fmt: skip
def test_what_a_version_lacks_is_said_with_what_to_do(tmp_path: Path, files: dict[str, str], said: str) -> None:
    """A pointer of Git LFS, another format, or a folder too many are called by their names."""
    for name, content in files.items():
        write(tmp_path / "m/1" / name, content)
    with pytest.raises(ModelError, match=said):
        repository.read(tmp_path / "m/1")


def test_a_listed_file_that_is_a_pointer_is_called_one(tmp_path: Path) -> None:
    """Rather than a file whose SHA-256 differs."""
    version = sealed(tmp_path / "m/1", "assets/vocabulary")
    write(version / "assets/vocabulary", POINTER)
    with pytest.raises(ModelError, match="assets/vocabulary is a Git LFS pointer"):
        repository.read(version)


@pytest.mark.parametrize(
    ("file", "at", "said"),
    [
        ("saved_model.pb", "", "is a SavedModel itself: its saved_model.pb is two levels too high"),
        ("m/saved_model.pb", "m", "its saved_model.pb is one level too high: expected .*/m/<integer version>/"),
        ("7/saved_model.pb", "7", "is --models the folder of one model\\?"),
        ("m/v1/saved_model.pb", "m", "v1 is no version: expected a whole number"),
        ("m/x/1/saved_model.pb", "m", "x/1/saved_model.pb is too low"),
        ("m/mnist.keras", "m", "it has only mnist.keras"),
        ("model.tflite", "", "is a model for LiteRT itself: its model.tflite is two levels too high"),
        ("wine.keras", "wine.keras", "`horngate-trainer import .*/wine.keras --name wine`"),
        ("proper/v2/saved_model.pb", "proper/v2", "it is no version: expected a whole number"),
        ("m/config.pbtxt", "m", "it has Triton's config.pbtxt and no version"),
        ("m/model.tflite", "m", "its model.tflite is one level too high: expected .*/m/<integer version>/model.tflite"),
    ],
)
def test_what_lies_at_the_wrong_level_is_named(tmp_path: Path, file: str, at: str, said: str) -> None:
    """With the place where it was expected; a proper model beside it is found all the same."""
    write(tmp_path / file)
    write(tmp_path / "proper/1/saved_model.pb")
    found = repository.look(tmp_path)
    assert set(found.models) == {"proper"}
    [(path, reason)] = found.ignored.items()
    assert path == tmp_path / at
    assert re.search(said, reason)


def test_two_folders_of_one_version_are_said(tmp_path: Path) -> None:
    """The plainer name counts."""
    write(tmp_path / "m/7/saved_model.pb")
    write(tmp_path / "m/007/saved_model.pb")
    found = repository.look(tmp_path)
    assert found.models == {"m": {7: tmp_path / "m/7"}}
    assert found.ignored == {tmp_path / "m/007": "version 7 is there already, as 7"}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda path: (path / "saved_model.pb").chmod(0o600), id="permissions"),
        pytest.param(lambda path: (path / "saved_model.pb").write_bytes(b"yy"), id="content"),
        pytest.param(lambda path: write(path / "variables/more"), id="a-file-more"),
        pytest.param(lambda path: (path / "linked").symlink_to(path.parent), id="a-link"),
    ],
)
def test_a_version_is_looked_at_anew_after_any_change(tmp_path: Path, change: Callable[[Path], object]) -> None:
    """Contents, permissions, files and links: what kept a version from being loaded may be gone."""
    path = sealed(tmp_path / "m/1")
    (path / "saved_model.pb").chmod(0o644)
    before = repository.fingerprint(path)
    assert before == repository.fingerprint(path)
    change(path)
    assert repository.fingerprint(path) != before


def test_missing_weights_are_told_from_a_model_without_any(tmp_path: Path) -> None:
    """A graph that has no variables needs none; one that has some needs the index and the data."""
    write(tmp_path / "saved_model.pb", b"a frozen graph")
    assert not folder_hints.about_variables(tmp_path)
    write(tmp_path / "saved_model.pb", b"a graph with VarHandleOp")
    assert "variables/variables.index is not there" in folder_hints.about_variables(tmp_path)
    write(tmp_path / "variables/variables.index")
    assert "variables/variables.data-* is not there" in folder_hints.about_variables(tmp_path)
    write(tmp_path / "variables/variables.data-00000-of-00001")
    assert not folder_hints.about_variables(tmp_path)
    write(tmp_path / "empty/saved_model.pb", b"")
    assert not folder_hints.about_variables(tmp_path / "empty")


def test_a_number_beyond_64_bits_is_refused_by_name(tmp_path: Path) -> None:
    """`inspect` says the same as the server: it is no version."""
    write(tmp_path / "m/20261126035230123456/saved_model.pb")
    with pytest.raises(ModelError, match="20261126035230123456 is no version: expected a whole number up to 92"):
        repository.read(tmp_path / "m/20261126035230123456")
