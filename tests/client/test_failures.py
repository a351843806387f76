"""What a client says of a connection that cannot be made, and of parameters that cannot be meant."""

import contextlib
import http.server
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import trustme

import horngate_client
from client.fake_server import FakeServer, serve
from horngate_client import Client, ConversionError, RetryPolicy, TlsConfig, Unauthenticated, Unavailable
from horngate_client.channels import Endpoint
from horngate_client.cli import main
from horngate_client.failures import failure


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Who signs the certificates."""
    return trustme.CA()


@contextlib.contextmanager
def served(authority: trustme.CA, name: str, *, mutual: bool = False) -> Iterator[str]:
    """Serve with TLS under a name, and return the address."""
    issued = authority.issue_cert(name)
    pair = (issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes())
    ca = authority.cert_pem.bytes() if mutual else None
    with serve(FakeServer(), tls=grpc.ssl_server_credentials([pair], ca, mutual)) as server:
        yield server.address


@contextlib.contextmanager
def plain(_: trustme.CA) -> Iterator[str]:
    """Serve without TLS."""
    with serve(FakeServer()) as server:
        yield server.address


@contextlib.contextmanager
def http_port(_: trustme.CA) -> Iterator[str]:
    """Serve HTTP."""
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def nobody(_: trustme.CA) -> Iterator[str]:
    """Return an address at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{probe.getsockname()[1]}"


def with_tls(authority: trustme.CA) -> Any:
    """Serve with TLS, under this machine's address."""
    return served(authority, "127.0.0.1")


def another_name(authority: trustme.CA) -> Any:
    """Serve with a certificate for another name."""
    return served(authority, "other.example")


def mutual_tls(authority: trustme.CA) -> Any:
    """Serve who has a certificate."""
    return served(authority, "127.0.0.1", mutual=True)


@pytest.mark.parametrize(
    ("at", "options", "said", "lasting"),
    [
        pytest.param(with_tls, {"tls": True}, "not trusted here .*TlsConfig.*--tls-ca", True, id="untrusted"),
        pytest.param(another_name, {"ca": True}, "for another name", True, id="another-name"),
        pytest.param(plain, {"tls": True}, "speaks no TLS: leave out tls", True, id="tls-to-plaintext"),
        pytest.param(with_tls, {}, "does it speak TLS", False, id="plaintext-to-tls"),
        pytest.param(mutual_tls, {"ca": True}, "want our certificate", False, id="no-certificate"),
        pytest.param(http_port, {}, "HTTP answers there, not gRPC", True, id="http-port"),
        pytest.param(nobody, {}, "nothing listens there", False, id="nobody"),
    ],
)
def test_the_cause_of_a_failed_connection_is_named(
    authority: trustme.CA, tmp_path: Path, at: Callable[[trustme.CA], Any], options: Any, said: str, lasting: bool
) -> None:
    """What time does not cure fails at once, however much there is."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    if options.pop("ca", False):
        options["tls"] = TlsConfig(ca=tmp_path / "ca.pem")
    retry = None if lasting else RetryPolicy(attempts=1)
    with at(authority) as address, Client(address, timeout=100, retry=retry, **options) as client:
        with pytest.raises(Unavailable, match=said) as caught:
            client.server()
        assert (caught.value.lasting, caught.value.attempts) == (lasting, 1)
        if lasting:
            with pytest.raises(Unavailable, match=said):
                client.ready()  # False would hide it for ever


def test_a_name_that_is_not_known_fails_at_once_where_the_tries_are_counted() -> None:
    """With what the system says of it."""
    once = RetryPolicy(attempts=1)
    with (
        Client("no.such.host.invalid", timeout=100, retry=once) as client,
        pytest.raises(Unavailable, match="cannot be looked up"),
    ):
        client.server()


def test_at_localhost_nobody_is_said_to_listen_only_where_nobody_does(server: FakeServer) -> None:
    """Of its two addresses gRPC tells what either of them said."""
    refused = grpc.aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(),
        "connections to all backends failing; last error: UNKNOWN: ipv6:%5B::1%5D:1: Connection refused",
    )  # fmt: skip
    endpoint = Endpoint.of("localhost:1", tls=False, token=None, allow_plaintext_token=False)
    with nobody(trustme.CA()) as address:
        for at, said in (
            (server.address, f"something listens at {server.address}"),
            (address, "nothing listens there"),
        ):
            assert said in str(failure(refused, at.replace("127.0.0.1", "localhost"), "ServerReady", endpoint))


def test_a_missing_token_is_told_from_a_wrong_one(server: FakeServer) -> None:
    """The first is said to be missing, and where it can be given."""
    server.token = "right"
    with Client(server.address) as client, pytest.raises(Unauthenticated, match="no token was sent .*HORNGATE_TOKEN"):
        client.server()
    with Client(server.address, token="wrong") as client, pytest.raises(Unauthenticated) as caught:
        client.server()
    assert "no token was sent" not in str(caught.value)


def test_a_proxy_is_named_where_there_may_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for this machine, nor for hosts that no_proxy excepts, nor for addresses that we looked up ourselves."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "near.example")
    addresses = ("far.example:1", "near.example:1", "127.0.0.1:1")
    endpoint = Endpoint.of(addresses, tls=False, token=None, allow_plaintext_token=False)
    found = [endpoint.proxy_of(address) for address in (*addresses, "10.0.0.9:1")]
    assert found == ["http_proxy", None, None, None]


def test_status_says_the_cause_and_does_not_wait(capsys: Any) -> None:
    """Exit code 1, long before the timeout."""
    with nobody(trustme.CA()) as address:
        assert main(["--server", address, "--timeout", "100s", "status"]) == 1
    assert "error     " in (out := capsys.readouterr().out)
    assert "nothing listens there" in out


ours: Any = horngate_client
"""Without its types."""
IMAGE = np.zeros((28, 28), np.uint8)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: ours.Client(version=9), 'version is text, such as "9", or a label; got 9 \\(int\\)'),
        (lambda: ours.Client(model=None), "model is text"),
        (lambda: ours.Client(["a", 1]), "servers is a list of texts"),
        (lambda: ours.Client(8001), "servers is"),
        (lambda: ours.Client(timeout="5s"), "timeout is a number, such as 5, which is seconds; got '5s' \\(str\\)"),
        (lambda: ours.Client(timeout=True), "timeout is a number"),
        (lambda: ours.Client(rows_per_request=1.5), "rows_per_request is a whole number"),
        (lambda: ours.Client(in_flight="8"), "in_flight is a whole number"),
        (lambda: ours.Client(retry=3), "retry is a RetryPolicy"),
        (lambda: ours.Client(tls="yes"), "tls is True, False or a TlsConfig"),
        (lambda: ours.Client(token=b"t"), "token is text"),
        (lambda: ours.Client(bulk="no"), "bulk is True or False"),
        (lambda: ours.AsyncClient(version=9), "version is text"),
        (lambda: ours.TlsConfig(ca=b"ca.pem"), "ca is the path of a file"),
        (lambda: ours.TlsConfig(server_name=1), "server_name is text"),
        (lambda: ours.RetryPolicy(attempts="3"), "attempts is a whole number"),
        (lambda: ours.RetryPolicy(share=None), "share is a number"),
        (lambda: ours.RetryPolicy(budget=1), "budget is a RetryBudget"),
        (lambda: ours.RetryBudget(burst="5"), "burst is a number"),
        (lambda: ours.Explanation(*[np.zeros(0)] * 6, "1").to_image(scale=1.5), "scale is a whole number"),
        (lambda: ours.Client().predict(IMAGE, timeout="5s"), "timeout is a number"),
        (lambda: ours.Client().predict(IMAGE, resize="no"), "resize is True or False"),
        (lambda: ours.Client().explain(IMAGE, invert=1), "invert is True or False"),
        (lambda: ours.Client().infer(IMAGE), r'as in infer\({"x": array}\); .*got an array, uint8 \[28, 28\]'),
        (lambda: ours.Client().infer({1: IMAGE}), "the name of an input is text"),
        (lambda: ours.Client().infer({}, outputs="classes"), r"outputs is a list of texts, .*got 'classes' \(str\)"),
        (lambda: ours.Client().infer({}, signature=None), "signature is text"),
        (lambda: ours.Client().model(refresh=1), "refresh is True or False"),
        (lambda: ours.Client().promote(5), "version is text"),
        (lambda: ours.Client().promote("5", label=None), "label is text"),
    ],
)
def test_a_parameter_of_the_wrong_type_is_refused_in_words(wrong: Callable[[], Any], said: str) -> None:
    """What was expected and what came, before anything is tried."""
    with pytest.raises(ConversionError, match=said):
        wrong()


@pytest.mark.parametrize("module", ["grpc", "numpy"])
def test_ctrl_c_is_quiet_while_the_command_is_still_imported(module: str) -> None:
    """Exit code 130 and not a word."""
    code = f"""
import os, signal, sys
class Interrupting:
    def find_spec(self, name, *_):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
from horngate_client.cli import main
sys.exit(main(["status"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
