"""TLS and mutual TLS, with certificates of an authority of the test's own."""

import os
import re
import shutil
import signal
import stat
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import trustme

from horngate_client import Client, TlsConfig
from horngate_client.errors import HorngateError
from support.pems import write
from support.process import ServerProcess, children, health, usage_error
from support.waiting import until


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ca.pem, server.pem, server.key, client.pem and client.key."""
    authority = trustme.CA()
    certificates = {
        "server": authority.issue_cert("localhost", "127.0.0.1"),
        "client": authority.issue_cert("someone@example.com"),
    }
    return write(tmp_path_factory.mktemp("pems"), authority, certificates)


@pytest.fixture(scope="module", params=["tls", "mutual"])
def server(
    request: pytest.FixtureRequest, trained: Path, transport: str, pems: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ServerProcess, bool]]:
    """A server with TLS, and whether it asks for the client's certificate."""
    mutual = request.param == "mutual"
    flags = ["--tls-cert", pems / "server.pem", "--tls-key", pems / "server.key"]
    flags += ["--tls-client-ca", pems / "ca.pem"] if mutual else []
    with ServerProcess(
        trained.parents[1], tmp_path_factory.mktemp("tls"), "--transport", transport, *map(str, flags)
    ) as running:
        yield running, mutual


def test_a_client_that_trusts_the_authority_is_answered(server: tuple[ServerProcess, bool], pems: Path) -> None:
    """With its own certificate where the server wants one."""
    running, _ = server
    config = TlsConfig(ca=pems / "ca.pem", cert=pems / "client.pem", key=pems / "client.key")
    with Client(running.grpc, tls=config) as client:
        assert len(client.predict(np.zeros((3, 28, 28), np.uint8)).classes) == 3


def test_a_client_without_a_certificate_is_let_in_only_where_none_is_asked_for(
    server: tuple[ServerProcess, bool], pems: Path
) -> None:
    """Mutual TLS keeps strangers out before they can send anything."""
    running, mutual = server
    with Client(running.grpc, tls=TlsConfig(ca=pems / "ca.pem"), timeout=3) as client:
        if mutual:
            with pytest.raises(HorngateError):
                client.predict(np.zeros((1, 28, 28), np.uint8))
        else:
            assert len(client.predict(np.zeros((1, 28, 28), np.uint8)).classes) == 1


def test_health_needs_no_certificate(server: tuple[ServerProcess, bool], pems: Path) -> None:
    """Where the variables ask for TLS, the HTTP port is asked, whether or not callers need certificates."""
    running, _ = server
    port = running.http.rpartition(":")[2]
    files = {"tls_cert": pems / "server.pem", "tls_key": pems / "server.key"}
    assert health(http_port=port, **files) == 0
    assert health(http_port=1, **files) == 1


def test_plaintext_is_not_answered(server: tuple[ServerProcess, bool]) -> None:
    """A port that speaks TLS speaks nothing else."""
    running, _ = server
    with grpc.insecure_channel(running.grpc) as channel:
        live: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/inference.GRPCInferenceService/ServerLive"
        )
        with pytest.raises(grpc.RpcError) as failed:
            live(b"", timeout=3)
    assert failed.value.code() == grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        pytest.param(["--tls-cert", "server.pem"], "--tls-cert and --tls-key come together", id="no-key"),
        pytest.param(["--tls-client-ca", "ca.pem"], "--tls-client-ca needs both", id="no-certificate"),
        pytest.param(["--tls-cert", "server.pem", "--tls-key", "no.key"], "no file no.key", id="no-file"),
    ],
)
def test_tls_that_cannot_work_is_wrong_usage(pems: Path, flags: list[str], said: str) -> None:
    """Half a configuration is refused before anything starts."""
    stderr = usage_error(pems, *flags)
    assert said in stderr


def leaks(folder: Path, secret: bytes) -> list[Path]:
    """The files below a folder that have the secret in them."""
    return [path for path in folder.rglob("*") if path.is_file() and secret in path.read_bytes()]


def workers_up(server: ServerProcess) -> int:
    """How many workers answer."""
    with urllib.request.urlopen(f"{server.http}/metrics", timeout=20) as response:
        return len(re.findall(r"(?m)^horngate_worker_up\{.*\} 1\.0$", response.read().decode()))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_no_private_key_is_on_a_disk(
    trained: Path, transport: str, pems: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    """Not while it is served with, nor after workers or the whole server were killed; and folders are closed to others.

    Nobody can take the folder's name before the server does: it is not known beforehand.
    """
    temporary = Path(tempfile.mkdtemp())  # tmp_path would make paths too long for sockets
    monkeypatch.setenv("TMPDIR", str(temporary))
    flags = ["--transport", transport, "--workers", workers, "--tls-cert", pems / "server.pem"]
    flags += ["--tls-key", pems / "server.key", "--tls-client-ca", pems / "ca.pem"]
    secret = (pems / "server.key").read_bytes().splitlines()[1]
    with ServerProcess(trained.parents[1], tmp_path, *map(str, flags)) as server:
        config = TlsConfig(ca=pems / "ca.pem", cert=pems / "client.pem", key=pems / "client.key")
        with Client(server.grpc, tls=config) as client:
            assert len(client.predict(np.zeros((1, 28, 28), np.uint8)).classes) == 1
        assert leaks(temporary, secret) == []
        for folder in temporary.iterdir():
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert str(server.process.pid) not in folder.name
        if workers == "2":
            for number in children(server.process.pid):
                os.kill(number, signal.SIGKILL)
            server.wait_for("crashed: killed by SIGKILL")
            until(lambda: workers_up(server) == 2)
            with Client(server.grpc, tls=config) as client:
                assert len(client.predict(np.zeros((1, 28, 28), np.uint8)).classes) == 1
            assert server.stop() == 0
            assert list(temporary.iterdir()) == []
        else:
            server.process.kill()
            server.process.wait()
    assert leaks(temporary, secret) == []
    shutil.rmtree(temporary)
