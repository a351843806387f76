"""Publication to an object store, over sockets."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import obstore
import pytest

import horngate_trainer
from horngate_trainer import ExportError, cli, publish, settings, upload
from support import object_stores
from support.object_stores import ObjectStore

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    """A store, started once."""
    with object_stores.s3() as store:
        yield store


@pytest.fixture
def bucket(server: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """An empty folder in it."""
    for name, value in server.variables.items():
        monkeypatch.setenv(name, value)
    server.connect()
    server.delete()
    return server


def made(root: Path, weights: bytes = b"weights") -> Path:
    """Publish a version in a local folder, as an export does."""
    with publish.staging(root / "m") as staging:
        (staging.path / "variables").mkdir()
        (staging.path / "variables/data").write_bytes(weights)
        (staging.path / "saved_model.pb").write_bytes(b"graph")
        return staging.publish({"name": "m"})


def listed(bucket: ObjectStore) -> list[str]:
    """Return the objects of all versions."""
    paths = (each["path"] for each in obstore.list(bucket.store).collect())
    return sorted(path for path in paths if ".claims" not in path)


def test_a_version_is_copied_as_the_stores_next_one_with_the_manifest_last(
    bucket: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its manifest says the number that it has there; the graph, without which it is no version, is second to last."""
    order: list[str] = []
    put = obstore.put

    def noted(store: Any, path: str, *rest: Any, **more: Any) -> Any:
        order.append(path)
        return put(store, path, *rest, **more)

    monkeypatch.setattr(obstore, "put", noted)
    assert upload(made(tmp_path), bucket.url) == "s3://bucket/team/models/m/1"
    assert order == [
        "m/.claims/1", "m/1/variables/data", "m/1/saved_model.pb", "m/1/assets.extra/horngate.json",
    ]  # fmt: skip
    assert upload(made(tmp_path / "other", b"others"), bucket.url) == "s3://bucket/team/models/m/2"
    manifest = json.loads(bytes(obstore.get(bucket.store, "m/2/assets.extra/horngate.json").bytes()))
    assert manifest["version"] == 2


def test_what_is_there_already_is_not_copied_again(bucket: ObjectStore, tmp_path: Path) -> None:
    """So that a run that is repeated, as with --resume, does no harm."""
    version = made(tmp_path)
    assert upload(version, bucket.url) == upload(version, bucket.url)
    assert len(listed(bucket)) == 3


def test_a_number_that_somebody_has_claimed_is_not_written_into(bucket: ObjectStore, tmp_path: Path) -> None:
    """Another trainer may have listed the same versions, and be writing; it may have died."""
    bucket.put("m/.claims/1", b"")
    assert upload(made(tmp_path), bucket.url).endswith("/m/2")
    assert not [path for path in listed(bucket) if path.startswith("m/1/")]


def test_once_looks_for_whole_versions_in_the_store(
    bucket: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The newest one's address is the last line; half a version is none."""
    monkeypatch.chdir(tmp_path)
    bucket.put("m/1/assets.extra/horngate.json", b"{}")
    bucket.put("m/2/saved_model.pb", b"half")
    assert cli.main(["--output", bucket.url, "--name", "m", "--once"]) == 0
    assert capsys.readouterr().out == "s3://bucket/team/models/m/1\n"
    assert settings.parse(["--output", bucket.url], {}).folder == Path("models")


def test_an_import_goes_to_the_store_too(
    bucket: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its address there is the last line."""
    (tmp_path / "m.tflite").write_bytes(b"....TFL3")
    importing = SimpleNamespace(run=lambda *_: made(tmp_path))
    monkeypatch.setitem(sys.modules, "horngate_trainer.importing", importing)
    monkeypatch.setattr(horngate_trainer, "importing", importing, raising=False)
    assert cli.main(["import", str(tmp_path / "m.tflite"), "--output", bucket.url]) == 0
    assert capsys.readouterr().out == "s3://bucket/team/models/m/1\n"
    assert "m/1/saved_model.pb" in listed(bucket)


def test_a_store_that_refuses_is_one_line_without_a_secret_and_the_version_is_kept(
    bucket: ObjectStore, tmp_path: Path
) -> None:
    """Nothing of it is a version in the store."""
    version = made(tmp_path)
    object_stores.check_credentials(bucket, wanted=True)
    try:
        with pytest.raises(ExportError) as refused:
            upload(version, bucket.url)
    finally:
        object_stores.check_credentials(bucket, wanted=False)
    assert str(refused.value) == (
        "s3://bucket/team/models: it answers 403 Forbidden (InvalidAccessKeyId): are the variables AWS_* or GOOGLE_* "
        f"right?; the version is in {version}, and horngate_trainer.upload can publish it"
    )
    assert refused.value.__suppress_context__
    assert listed(bucket) == []


def test_a_store_that_cannot_be_used_is_known_before_the_training(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither hours of training nor a download of data come first; without the extra, the command to install it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "obstore", None)
    assert cli.main(["--output", "s3://bucket/models", "--data", "not/there.npz"]) == cli.FAILED
    assert capsys.readouterr().err == "horngate-trainer: s3://bucket/models: pip install 'horngate[remote]' first\n"


@pytest.mark.parametrize("url", ["s3://key:secret@bucket/x", "http://bucket", "models", "s3://b/../x"])
def test_what_is_no_address_is_refused_and_not_repeated(url: str, tmp_path: Path) -> None:
    """It may hold a secret."""
    with pytest.raises(ExportError, match="expected a") as refused:
        upload(made(tmp_path), url)
    assert "secret" not in str(refused.value)
