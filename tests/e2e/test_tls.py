"""TLS and mutual TLS, with certificates of an authority of the test's own."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import trustme

from horngate_client import Client, TlsConfig
from horngate_client.errors import HorngateError
from support.pems import write
from support.process import ServerProcess, health, usage_error


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
