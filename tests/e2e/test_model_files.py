"""A version's files for TF.js on the HTTP port: what is listed and loaded, to those who may, and nothing else."""

import hashlib
import http.client
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from horngate_server.transports.access.tokens import add
from support.process import ServerProcess

WEIGHTS = "group1-shard1of1.bin"
BASE = "/models/mnist/versions/1/tfjs"


@pytest.fixture(scope="module", params=["1", "2"], ids=["one-process", "two-workers"])
def server(
    trained: Path, transport: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server of versions 1, with files for TF.js, and 2, which is not loaded; alone and with workers."""
    folder = tmp_path_factory.mktemp("files")
    shutil.copytree(trained.parents[1], folder / "models")
    shutil.copytree(trained, folder / "models/mnist/2")
    (folder / "config.toml").write_text("[models.mnist]\nversions = [1]\n")
    flags = ["--transport", transport, "--workers", request.param, "--config", str(folder / "config.toml")]
    with ServerProcess(folder / "models", folder, *flags) as running:
        running.version = folder / "models/mnist/1"  # type: ignore[attr-defined]
        yield running
        assert running.stop() == 0
        assert not [line for line in running.log if " error " in line or "Traceback" in line]


def get(server: ServerProcess, path: str, method: str = "GET", **headers: str) -> tuple[int, Any, bytes]:
    """Ask for a path as it stands here, with nothing made canonical."""
    connection = http.client.HTTPConnection(urlsplit(server.http).netloc, timeout=30)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def test_a_listed_file_comes_whole_and_is_asked_for_again_by_its_digest(server: ServerProcess, trained: Path) -> None:
    """The bytes of the version; an ETag of their SHA-256; 304 to who has them; HEAD has the headers alone."""
    for name, kind in (("model.json", "application/json"), (WEIGHTS, "application/octet-stream")):
        content = (trained / "assets.extra/tfjs" / name).read_bytes()
        status, headers, body = get(server, f"{BASE}/{name}")
        assert (status, body) == (200, content)
        assert headers["etag"] == f'"{hashlib.sha256(content).hexdigest()}"'
        assert (headers["content-type"], headers["content-length"]) == (kind, str(len(content)))
        assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-cache", "nosniff")
        assert "access-control-allow-origin" not in headers
        for known in (headers["etag"], f'"other", W/{headers["etag"]}', "*"):
            status, again, body = get(server, f"{BASE}/{name}", if_none_match=known)
            assert (status, again["etag"], body) == (304, headers["etag"], b"")
        assert get(server, f"{BASE}/{name}", if_none_match='"other"')[0] == 200
        status, again, body = get(server, f"{BASE}/{name}", "HEAD")
        assert (status, again["content-length"], body) == (200, str(len(content)), b"")


@pytest.mark.parametrize(
    "path",
    [
        f"{BASE}/", f"{BASE}/no.bin", f"{BASE}/../horngate.json", f"{BASE}/%2e%2e/horngate.json",
        f"{BASE}/..%2fhorngate.json", f"{BASE}/..%5chorngate.json", f"{BASE}/%2e%2e/%2e%2e/saved_model.pb",
        f"{BASE}//model.json", f"{BASE}/./model.json", f"{BASE}/model.json%00", f"{BASE}//etc/passwd",
        f"{BASE}/../../../2/tfjs/model.json", f"{BASE}/%2fetc%2fpasswd", f"{BASE}/model.json/", f"{BASE}/MODEL.JSON",
        "/models/mnist/versions/2/tfjs/model.json", "/models/mnist/versions/01/tfjs/model.json",
        "/models/mnist/versions/stable/tfjs/model.json", "/models/mnist/versions/../tfjs/model.json",
        "/models/nope/versions/1/tfjs/model.json", "/models/../versions/1/tfjs/model.json",
        "/models/mnist/versions/1/horngate.json", "/models/", "/models/mnist/1/saved_model.pb",
    ],
)  # fmt: skip
def test_what_is_not_listed_is_not_there(server: ServerProcess, path: str) -> None:
    """Names that lead elsewhere, other versions, labels, other files: 404, as JSON that says what is there."""
    status, _, body = get(server, path)
    assert status == 404
    assert json.loads(body)["error"]


def test_only_reading_is_allowed_and_without_a_body(server: ServerProcess) -> None:
    """Other methods are refused, and so is a body."""
    assert get(server, f"{BASE}/model.json", "POST")[0] == 405
    assert get(server, f"{BASE}/model.json", content_length="5")[0] == 400


@pytest.mark.parametrize("how", ["changed", "linked", "folder linked", "gone"])
def test_a_file_that_is_not_what_was_loaded_is_not_served(server: ServerProcess, how: str, tmp_path: Path) -> None:
    """Other bytes, a link to the same bytes, a folder that is a link, nothing: 503, and never what it leads to."""
    version = server.version  # type: ignore[attr-defined]
    folder = version / "assets.extra/tfjs"
    shutil.move(folder, tmp_path / "tfjs")
    shutil.copytree(tmp_path / "tfjs", tmp_path / "same")
    try:
        if how == "folder linked":
            folder.symlink_to(tmp_path / "same")
        else:
            shutil.copytree(tmp_path / "same", folder)
            (folder / WEIGHTS).unlink()
        if how == "linked":
            (folder / WEIGHTS).symlink_to(tmp_path / "same" / WEIGHTS)
        if how == "changed":
            (folder / WEIGHTS).write_bytes(b"secret")
        status, _, body = get(server, f"{BASE}/{WEIGHTS}")
        assert status in {404, 503}  # 404 once the server has seen that the version changed
        assert b"secret" not in body
    finally:
        folder.unlink() if folder.is_symlink() else shutil.rmtree(folder)
        shutil.move(tmp_path / "tfjs", folder)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_who_may_not_predict_gets_no_model(trained: Path, workers: str, tmp_path: Path) -> None:
    """The rules of /v2: 401 without a token or with a wrong one, whether the file is there or not."""
    tokens = tmp_path / "tokens"
    token = add(tokens, "alice", admin=False)
    with ServerProcess(trained.parents[1], tmp_path, "--tokens", str(tokens), "--workers", workers) as server:
        for path in (f"{BASE}/model.json", f"{BASE}/no.bin", "/models/nope/versions/1/tfjs/model.json"):
            assert get(server, path)[0] == 401
            assert get(server, path, authorization="Bearer hg_nobodys")[0] == 401
        assert get(server, f"{BASE}/model.json", authorization=f"Bearer {token}")[0] == 200
        assert server.stop() == 0
