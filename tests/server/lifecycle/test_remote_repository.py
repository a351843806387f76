"""An object store as the model root: the rows of docs/object-stores.md, over sockets."""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from horngate_protos import stores
from horngate_server.core.errors import StoreError
from horngate_server.core.settings import Limits
from horngate_server.lifecycle import remote_store, repository
from horngate_server.lifecycle.model_cache import NOTE, ModelCache
from horngate_server.lifecycle.model_config import ModelConfig
from horngate_server.lifecycle.remote_listing import RemoteVersion, versions
from horngate_server.lifecycle.remote_repository import RemoteRepository
from horngate_server.lifecycle.remote_store import RemoteFile, RemoteStore
from horngate_server.lifecycle.version_state import State, VersionState
from support import object_stores
from support.in_process import Clock
from support.lifecycle_harness import publish, seal
from support.object_stores import FaultyProxy, ObjectStore
from support.waiting import until

pytestmark = pytest.mark.slow

TIMEOUT_S = 20.0


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, ObjectStore]]:
    """Both stores, started once."""
    with object_stores.s3() as s3, object_stores.gcs() as gcs:
        yield {"s3": s3, "gcs": gcs}


@pytest.fixture(params=["s3"])
def bucket(
    request: pytest.FixtureRequest, servers: dict[str, ObjectStore], monkeypatch: pytest.MonkeyPatch
) -> ObjectStore:
    """An empty folder in a store, S3's unless a test asks for both."""
    bucket = servers[request.param]
    for name, value in bucket.variables.items():
        monkeypatch.setenv(name, value)
    bucket.connect()
    bucket.delete()
    return bucket


BOTH = pytest.mark.parametrize("bucket", ["s3", "gcs"], indirect=True)


@pytest.fixture
def proxy(bucket: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """A proxy that the server comes through, and that the test's own uploads do not."""
    proxy = FaultyProxy(bucket.port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address)
    yield proxy
    proxy.close()


class Remote:
    """A repository over a bucket, whose looks the test takes; without what serves from the local root."""

    def __init__(
        self, bucket: ObjectStore, folder: Path, capacity: int = 1 << 30, timeout_s: float = TIMEOUT_S
    ) -> None:
        self.root = folder / "cache"
        self.published = folder / "made"
        self.bucket = bucket
        self.clock = Clock()
        self.config = ModelConfig(Limits(max_batch_rows=4, queue_rows=16, max_queue_delay_s=0.0))
        self.states: list[VersionState] = []
        self.stopping = threading.Event()
        url = stores.parse(bucket.url)
        assert url is not None
        self.cache = ModelCache(self.root, capacity)
        self.repository = RemoteRepository(
            RemoteStore(url, timeout_s),
            self.cache,
            every_s=0.05,
            config_of=lambda _: self.config,
            states=lambda: self.states,
            clock=self.clock,
            stopping=self.stopping,
        )
        self.cache.open()

    def publish(self, version: int, *, name: str = "m", manifest: bool = True, but: str = "") -> Path:
        """Make a version, and upload it."""
        made = publish(self.published, version, name=name, manifest=manifest)
        self.bucket.upload(made, but=but)
        return made

    def look(self) -> None:
        """Look once, later."""
        self.clock.now += 100
        self.repository.look()

    def there(self, name: str = "m") -> list[int]:
        """Return the versions in the local root, each of which is whole."""
        found = repository.look(self.root).models.get(name, {})
        return sorted(repository.read(path).number for path in found.values())

    def serve(self, version: int, state: State = State.READY, name: str = "m") -> None:
        """Say that a version is in a state."""
        self.states.append(VersionState(name, version, state, "", 0.0))


@pytest.fixture
def remote(bucket: ObjectStore, tmp_path: Path) -> Iterator[Remote]:
    """A repository with an empty cache."""
    remote = Remote(bucket, tmp_path)
    yield remote
    remote.cache.close()


def running(remote: Remote) -> Callable[[], None]:
    """Let the repository look by itself; return what ends it."""
    remote.cache.close()
    remote.repository.start()

    def end() -> None:
        remote.stopping.set()
        remote.repository.stop()
        remote.repository._thread.join(30)
        assert not remote.repository._thread.is_alive()

    return end


@BOTH
def test_versions_are_fetched_whole_by_one_listing_and_only_those_that_are_wanted(remote: Remote) -> None:
    """The newest comes with every file and a note; the one before is not asked for; the next look fetches nothing."""
    remote.publish(1)
    remote.publish(2)
    remote.look()
    assert remote.there() == [2]
    files = {str(file.relative_to(remote.root / "m/2")) for file in (remote.root / "m/2").rglob("*") if file.is_file()}
    assert files == {NOTE, "saved_model.pb", "variables/data", "assets.extra/horngate.json"}
    before = repository.fingerprint(remote.root / "m/2")
    remote.look()
    assert repository.fingerprint(remote.root / "m/2") == before
    remote.publish(3)
    remote.look()
    assert remote.there() == [2, 3]
    assert not list(remote.root.glob(".partial-*"))


def test_what_is_fetched_is_asked_for_once_with_its_tag_the_manifest_first(proxy: FaultyProxy, remote: Remote) -> None:
    """A look is one listing; a version's files are read once each."""
    remote.publish(1)
    remote.look()
    remote.look()
    listings = [path for path in proxy.asked if "list-type=2" in path]
    assert len(listings) == 2
    objects = [path.rpartition("/m/1/")[2] for path in proxy.asked if "list-type" not in path]
    assert objects[0] == "assets.extra/horngate.json"
    assert sorted(objects[1:]) == ["saved_model.pb", "variables/data"]


def test_a_large_object_comes_in_pieces(bucket: ObjectStore, remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a request of its own, and has the whole timeout."""
    monkeypatch.setattr(remote_store, "PIECE_BYTES", 1000)
    made = publish(remote.published, 1, manifest=False)
    (made / "variables/data").write_bytes(bytes(range(256)) * 10)
    seal(made)
    bucket.upload(made)
    remote.look()
    assert (remote.root / "m/1/variables/data").read_bytes() == bytes(range(256)) * 10


def test_a_store_that_cannot_be_reached_is_a_warning_and_the_cache_serves(
    remote: Remote, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """A restart without the store waits for nothing where the cache has versions; one line tells, once a minute."""
    remote.publish(1)
    remote.look()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    again = Remote(remote.bucket, tmp_path)
    end = running(again)
    again.repository.wait_begun()
    until(lambda: "cannot be reached" in caplog.text)
    until(lambda: again.repository._warnings._kinds["look"].left_out > 1)
    end()
    assert again.there() == [1]
    assert [each.levelname for each in caplog.records if "cannot be reached" in each.message] == ["WARNING"]
    assert (
        "s3://bucket/team/models: it cannot be reached, or does not answer in time; what serves goes on" in caplog.text
    )


def test_a_store_that_does_not_answer_holds_up_nobody_for_long(
    bucket: ObjectStore, proxy: FaultyProxy, remote: Remote, tmp_path: Path
) -> None:
    """A request ends after its timeout; a store that answers again is taken from again."""
    remote.publish(1)
    proxy.fault = lambda _: "hang"
    hasty = Remote(bucket, tmp_path, timeout_s=0.3)
    with pytest.raises(StoreError, match="does not answer in time"):
        hasty.look()
    hasty.cache.close()
    proxy.let_go.set()
    proxy.fault = lambda _: None
    remote.look()
    assert remote.there() == [1]


def test_a_store_that_fails_is_asked_again_and_then_a_warning(
    proxy: FaultyProxy, remote: Remote, caplog: pytest.LogCaptureFixture
) -> None:
    """A listing that fails changes nothing; an object that fails leaves its version for the next look."""
    remote.publish(1)
    proxy.fault = lambda path: 503 if "list-type" in path else None
    with pytest.raises(StoreError, match="it answers 503"):
        remote.look()
    assert len(proxy.asked) > 1
    proxy.fault = lambda path: 503 if "variables" in path else None
    remote.look()
    assert "model m version 1 of s3://bucket/team/models is not taken" in caplog.text
    assert "variables/data: it answers 503" in caplog.text
    assert remote.there() == []
    proxy.fault = lambda _: None
    remote.look()
    assert remote.there() == [1]


def test_a_version_that_fails_again_and_again_is_asked_for_less_often(proxy: FaultyProxy, remote: Remote) -> None:
    """Fetching the rest of it in vain costs, too; it is taken within 32 looks once it can be."""
    remote.publish(1)
    proxy.fault = lambda path: 403 if path.endswith("variables/data") else None
    tried = []
    for look in range(1, 20):
        remote.look()
        if any("variables" in path for path in proxy.asked):
            tried.append(look)
        proxy.asked.clear()
    assert tried == [1, 2, 4, 8, 16]
    proxy.fault = lambda _: None
    remote.repository.look_now()
    remote.look()
    assert remote.there() == [1]


def test_wrong_credentials_are_one_line_without_a_secret(remote: Remote, caplog: pytest.LogCaptureFixture) -> None:
    """It says which variables to look at; neither a key nor what was signed is in the error or its causes."""
    remote.publish(1)
    object_stores.check_credentials(remote.bucket, wanted=True)
    try:
        with pytest.raises(StoreError) as refused:
            remote.look()
        end = running(remote)
        until(lambda: "AWS_*" in caplog.text)
        end()
    finally:
        object_stores.check_credentials(remote.bucket, wanted=False)
    assert str(refused.value) == (
        "s3://bucket/team/models: it answers 403 Forbidden (InvalidAccessKeyId): "
        "are the variables AWS_* or GOOGLE_* right?"
    )
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__
    assert object_stores.KEY not in caplog.text
    assert object_stores.SECRET not in caplog.text
    (line,) = [each.message for each in caplog.records if "AWS_*" in each.message]
    assert "\n" not in line


@BOTH
def test_half_a_version_is_not_taken_and_an_older_one_is(remote: Remote, caplog: pytest.LogCaptureFixture) -> None:
    """It lacks a listed file, or the graph; nothing new for two looks is a warning. Once it is whole, it is taken."""
    remote.publish(1)
    made = remote.publish(2, but="data")
    remote.bucket.put("m/3/variables/data", b"x")
    remote.look()
    assert remote.there() == [1]
    assert not caplog.records
    remote.look()
    assert "half written: it lacks 'variables/data', which its manifest lists" in caplog.text
    assert "half written: it has none of saved_model.pb, model.tflite yet" in caplog.text
    remote.bucket.put("m/2/variables/data", (made / "variables/data").read_bytes())
    remote.look()
    assert remote.there() == [1, 2]


@BOTH
def test_a_version_without_a_manifest_is_taken_once_two_looks_find_it_the_same(
    remote: Remote, caplog: pytest.LogCaptureFixture
) -> None:
    """It may be somebody's who is still writing; that is no warning. Folders' markers are no files."""
    caplog.set_level(logging.INFO)
    remote.publish(1, manifest=False)
    remote.look()
    remote.bucket.put("m/1/variables/more", b"still writing")
    remote.look()
    assert remote.there() == []
    remote.look()
    assert remote.there() == [1]
    assert (remote.root / "m/1/variables/more").read_bytes() == b"still writing"
    (line,) = [each for each in caplog.records if "has no manifest" in each.message][:1]
    assert line.levelname == "INFO"


def test_a_first_version_without_a_manifest_is_there_after_one_short_pause(remote: Remote) -> None:
    """A server that starts with an empty cache does not wait for a whole interval."""
    remote.publish(1, manifest=False)
    end = running(remote)
    remote.repository.wait_begun()
    end()
    assert remote.there() == [1]


def test_a_damaged_version_is_not_taken_and_not_fetched_again_before_it_changes(
    proxy: FaultyProxy, remote: Remote, caplog: pytest.LogCaptureFixture
) -> None:
    """Its SHA-256 differs: an older one is served; a signal has it tried again, and so has a change."""
    remote.publish(1)
    remote.publish(2)
    proxy.fault = lambda path: "flip" if path.endswith("2/variables/data") else None
    remote.look()
    assert remote.there() == [1]
    assert "version 2 of s3://bucket/team/models is damaged" in caplog.text
    assert "its SHA-256 differs" in caplog.text
    asked = len(proxy.asked)
    remote.look()
    assert len(proxy.asked) == asked + 1
    proxy.fault = lambda _: None
    remote.repository.look_now()
    remote.look()
    assert remote.there() == [1, 2]


def test_a_body_that_is_cut_short_is_no_file(proxy: FaultyProxy, remote: Remote) -> None:
    """Nothing of it is left, and the next look fetches it."""
    remote.publish(1)
    proxy.fault = lambda path: "cut" if path.endswith("variables/data") else None
    remote.look()
    assert remote.there() == []
    assert not list(remote.root.iterdir())
    proxy.fault = lambda _: None
    remote.look()
    assert remote.there() == [1]


@BOTH
def test_a_version_that_is_overwritten_is_fetched_anew_as_a_whole(remote: Remote) -> None:
    """Between the writer's objects the old copy stays: its manifest and the new files do not fit."""
    remote.publish(1)
    remote.look()
    (made := remote.published / "m/1").joinpath("variables/data").write_bytes(b"other weights")
    remote.bucket.put("m/1/variables/data", b"other weights")
    remote.look()
    assert (remote.root / "m/1/variables/data").read_bytes() == b"weights of 1"
    seal(made)
    remote.bucket.put("m/1/assets.extra/horngate.json", (made / "assets.extra/horngate.json").read_bytes())
    remote.look()
    assert remote.there() == [1]
    assert (remote.root / "m/1/variables/data").read_bytes() == b"other weights"


@BOTH
def test_an_object_that_changes_after_the_listing_is_not_mixed_in(remote: Remote, bucket: ObjectStore) -> None:
    """It is read under the tag that was listed."""
    bucket.put("x", b"before")
    (file,) = remote.repository._store.listing()
    bucket.put("x", b"behind")
    with pytest.raises(StoreError, match="changed while it was read"):
        list(remote.repository._store.read(file))


@BOTH
def test_a_deleted_version_goes_as_a_deleted_folder_does_after_two_looks(remote: Remote) -> None:
    """One listing that lacks it may be wrong."""
    remote.publish(1)
    remote.look()
    remote.publish(2)
    remote.look()
    remote.bucket.delete("m/2")
    remote.look()
    assert remote.there() == [1, 2]
    remote.look()
    assert remote.there() == [1]


def test_a_listing_of_nothing_at_all_empties_no_cache(remote: Remote, caplog: pytest.LogCaptureFixture) -> None:
    """More likely than that all models were deleted is another prefix, or a store that is wrong."""
    remote.publish(1)
    remote.look()
    remote.bucket.delete()
    for _ in range(3):
        remote.look()
    assert remote.there() == [1]
    assert "s3://bucket/team/models has no <name>/<integer version>/; the 1 in the cache stay" in caplog.text


def test_names_that_climb_out_of_the_cache_are_not_followed(
    remote: Remote, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Listed by a manifest they are never there; in a listing nothing of it is believed; nothing is written outside."""
    evil = publish(remote.published, 1, manifest=False)
    (evil / "assets.extra").mkdir()
    (evil / "assets.extra/horngate.json").write_text(json.dumps({"files": {"../../../evil": "00"}}))
    remote.bucket.upload(evil)
    remote.look()
    remote.look()
    assert "it lacks '../../../evil', which its manifest lists" in caplog.text
    object_stores.put_as_anybody(remote.bucket.port, "evil", "team/models/m/2/../../../evil")
    climbing = Remote(ObjectStore("s3://evil/team/models", {}, 0), tmp_path)
    with pytest.raises(StoreError, match=r"it lists '.*\.\./evil', which is no plain path below the prefix"):
        climbing.look()
    climbing.cache.close()
    assert not list(tmp_path.rglob("evil"))
    assert remote.there() == []
    odd = [RemoteFile("m/1/../../x", 1, "t"), RemoteFile(".m/1/x", 1, "t"), RemoteFile("m/1", 1, "t")]
    assert versions([*odd, RemoteFile("m/x/y", 1, "t"), RemoteFile("m/1/\0", 1, "t")]) == {}


def test_folders_markers_and_other_spellings_of_a_number_are_no_files_and_no_versions() -> None:
    """An empty object where others are below is a folder; "7" wins over "007"."""
    listed = [
        RemoteFile("m/007/a", 1, "t"), RemoteFile("m/7/variables", 0, "t"), RemoteFile("m/7/variables/data", 1, "t")
    ]  # fmt: skip
    assert versions(listed) == {("m", 7): RemoteVersion("m", 7, {"variables/data": listed[2]})}


def test_what_serves_never_leaves_the_cache_for_what_does_not_fit(
    bucket: ObjectStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Old versions leave first; one that is too large beside what serves is not fetched, and the warning says why."""
    made = Remote(bucket, tmp_path / "measure").publish(1)
    size = sum(file.stat().st_size for file in made.rglob("*") if file.is_file())
    remote = Remote(bucket, tmp_path, capacity=2 * size + 10)
    remote.look()
    remote.publish(2)
    remote.look()
    remote.serve(2)
    remote.publish(3)
    remote.look()
    assert remote.there() == [2, 3]
    remote.serve(3)
    remote.publish(4)
    remote.look()
    assert remote.there() == [2, 3]
    assert "beside what serves there is no room for it in --model-cache-bytes" in caplog.text
    remote.states.pop(0)
    remote.look()
    assert remote.there() == [3, 4]
    remote.publish(1, name="another")
    remote.look()
    assert remote.there("another") == []
    assert remote.there() == [3, 4]


def test_a_version_that_was_refused_has_an_older_one_fetched(remote: Remote) -> None:
    """As in a local root, where that one would be there already."""
    remote.publish(1)
    remote.publish(2)
    remote.look()
    remote.serve(2, State.FAILED)
    remote.look()
    assert remote.there() == [1, 2]


def test_one_process_fetches_for_all_that_share_the_cache(remote: Remote, tmp_path: Path) -> None:
    """Another waits for its first look; what a process left that was killed is removed; the next one takes over."""
    remote.publish(1)
    (remote.root / ".partial-dead/m").mkdir(parents=True)
    other = Remote(remote.bucket, tmp_path)
    begun = threading.Event()

    def follow() -> None:
        with other.cache.owned() as ours:
            assert not ours
        begun.set()

    thread = threading.Thread(target=follow)
    with remote.cache.owned() as ours:
        assert ours
        assert not (remote.root / ".partial-dead").exists()
        thread.start()
        remote.look()
        assert not begun.is_set()
    thread.join(30)
    assert begun.is_set()
    with other.cache.owned() as theirs, remote.cache.owned() as ours:
        assert (theirs, ours) == (False, True)
    remote.cache.close()
    with other.cache.owned() as theirs:
        assert theirs
    other.cache.close()


def test_a_cache_that_cannot_be_written_to_is_said_before_anything_starts(tmp_path: Path) -> None:
    """The flag is named."""
    (tmp_path / "file").write_text("")
    with pytest.raises(Exception, match=r"--model-cache: .*file/cache cannot be written: Not a directory"):
        ModelCache(tmp_path / "file/cache", 1).open()


def test_the_end_does_not_wait_for_a_fetch(proxy: FaultyProxy, remote: Remote) -> None:
    """A fetch under way is given up, and nothing of it is left."""
    remote.publish(1)
    stopped: list[Any] = []

    def fault(path: str) -> None:
        if path.endswith("variables/data"):
            remote.stopping.set()
            stopped.append(path)

    proxy.fault = fault
    end = running(remote)
    until(lambda: bool(stopped))
    end()
    assert not list(remote.root.iterdir())
