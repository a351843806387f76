"""The gate: who is not let in, what is too much, and memory that stays bounded. `pytest -s` shows the table."""

import gzip
import resource
import socket
import ssl
import struct
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import numpy as np
import pytest
import trustme

from support.http2 import MODEL_INFER, Http2
from support.in_process import request
from support.pems import write
from support.process import ServerProcess, usage_error
from support.waiting import until

MIB = 1 << 20
GROWTH_MIB = {"fast": 64 + 48, "grpcio": 512}
"""What --max-request-bytes allows, and buffers and pages that are not given back yet. grpcio's core holds messages that
Python has not seen, and only their number bounds it."""
CONNECTIONS = 200
GOOD = request({"images": np.zeros((1, 28, 28), np.uint8)}, model="mnist").SerializeToString()
MUCH = request({"images": np.zeros((6000, 28, 28), np.uint8)}, model="mnist").SerializeToString()
LOAD = "/inference.GRPCInferenceService/RepositoryModelLoad"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"
CHECK = "/grpc.health.v1.Health/Check"
TFJS = "/models/mnist/versions/1/tfjs/model.json"
LOAD_JSON = "/v2/repository/models/mnist/load"
INFER_JSON = "/v2/models/mnist/infer"
Metadata = tuple[tuple[str, str | bytes], ...]


class SecuredServer:
    """A server with all of its gate closed, and what it takes to open them."""

    def __init__(self, server: ServerProcess, folder: Path, tokens: dict[str, str]) -> None:
        self.server = server
        self.folder = folder
        self.tokens = tokens

    def bearer(self, name: str) -> Metadata:
        """The metadata that a client's token travels in."""
        return (("authorization", f"Bearer {self.tokens[name]}"),)

    def headers(self, name: str) -> list[tuple[str, str]]:
        """The same for a caller by hand."""
        return [("authorization", f"Bearer {self.tokens[name]}")]

    def channel(self, client: str | None = "client", authority: str = "ca") -> grpc.Channel:
        """A channel with a client's certificate, or none."""

        def pem(name: str) -> bytes:
            return Path(self.folder, name).read_bytes()

        keys = (pem(f"{client}.key"), pem(f"{client}.pem")) if client else (None, None)
        options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        return grpc.secure_channel(
            self.server.grpc, grpc.ssl_channel_credentials(pem(f"{authority}.pem"), *keys), options
        )

    def ask(
        self,
        metadata: Metadata = (),
        message: bytes = GOOD,
        method: str = MODEL_INFER,
        channel: grpc.Channel | None = None,
        compression: grpc.Compression | None = None,
    ) -> str:
        """Call, and return gRPC's name for what came of it."""
        with ExitStack() as stack:
            if channel is None:
                channel = stack.enter_context(self.channel())
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
            try:
                call(message, metadata=metadata, timeout=10, compression=compression)
            except grpc.RpcError as error:
                code: grpc.StatusCode = error.code()
                return code.name
            return "OK"

    def http2(self) -> Http2:
        """A connection by hand."""
        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        context.load_cert_chain(self.folder / "client.pem", self.folder / "client.key")
        context.set_alpn_protocols(["h2"])
        return Http2(self.server.grpc, context)


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates: an authority's, those that it issued, and a stranger's."""
    ours, other = trustme.CA(), trustme.CA()
    certificates = {
        "server": ours.issue_cert("localhost"),
        "renewed": ours.issue_cert("localhost"),
        "client": ours.issue_cert("caller@example.com"),
        "expired": ours.issue_cert("caller@example.com", not_after=datetime.now(UTC) - timedelta(days=1)),
        "stranger": other.issue_cert("caller@example.com"),
    }
    return write(tmp_path_factory.mktemp("gate"), ours, certificates)


@pytest.fixture(scope="module")
def site(
    trained: Path, transport: str, pems: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SecuredServer]:
    """Mutual TLS, tokens, limits per client, few connections, no reflection."""
    folder = tmp_path_factory.mktemp("site")
    for path in pems.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tokens = {name: token(folder, name) for name in ("alice", "bob")}
    tokens["root"] = token(folder, "root", "--admin")
    flags = [
        "--tls-cert", folder / "server.pem", "--tls-key", folder / "server.key", "--tls-client-ca", folder / "ca.pem",
        "--tokens", folder / "tokens", "--admin", "--reflection", "off", "--max-client-requests", "4",
        "--max-client-bytes", "24MiB", "--max-message-bytes", "8MiB", "--max-request-bytes", "64MiB",
        "--max-connections", CONNECTIONS,
    ]  # fmt: skip
    scratch = tmp_path_factory.mktemp("scratch")
    with ServerProcess(trained.parents[1], scratch, "--transport", transport, *map(str, flags)) as server:
        yield SecuredServer(server, folder, tokens)
        assert server.stop() == 0
        assert not [line for line in server.log if "Traceback" in line or "This is a bug" in line], server.log


def token(folder: Path, name: str, *flags: str) -> str:
    """Make one, as an operator does."""
    command = [sys.executable, "-m", "horngate_server", "token", name, "--file", str(folder / "tokens"), *flags]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


@pytest.fixture(scope="module", autouse=True)
def table(transport: str) -> Iterator[list[str]]:
    """What every row saw."""
    rows: list[str] = []
    TABLES[transport] = rows
    yield rows
    print(f"\n{transport}: what was tried, what it got, how much the server grew")
    print("\n".join(rows))


TABLES: dict[str, list[str]] = {}


def plaintext(site: SecuredServer) -> str:
    """Call without TLS."""
    with grpc.insecure_channel(site.server.grpc) as channel:
        return site.ask(site.bearer("alice"), channel=channel)


def with_certificate(site: SecuredServer, name: str | None) -> str:
    """Call with this certificate."""
    with site.channel(name) as channel:
        return site.ask(site.bearer("alice"), channel=channel)


def reflection(site: SecuredServer) -> str:
    """Ask which methods there are."""
    with site.channel() as channel:
        call: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(REFLECTION)
        try:
            list(call(iter([b""]), metadata=site.bearer("alice"), timeout=10))
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code.name
    return "OK"


def stream_without_a_token(site: SecuredServer) -> str:
    """Open a stream."""
    with site.channel() as channel:
        call: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(STREAM_INFER)
        try:
            list(call(iter([GOOD]), timeout=10))
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code.name
    return "OK"


def bomb(site: SecuredServer) -> str:
    """Send what expands a thousandfold."""
    message = gzip.compress(bytes(1024 * MIB), compresslevel=1)
    body = struct.pack(">BI", 1, len(message)) + message
    with site.http2() as caller:
        ended = caller.call(body, [("grpc-encoding", "gzip"), *site.headers("alice")])
    return grpc_name(ended["grpc-status"])


def many_at_once(site: SecuredServer) -> str:
    """Alice has more in flight than she may; Bob does not notice."""
    with site.channel() as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(MODEL_INFER)
        futures = [call.future(MUCH, metadata=site.bearer("alice"), timeout=20) for _ in range(24)]
        bob = site.ask(site.bearer("bob"))
        codes = {future.code().name for future in futures}
        said = {future.details() for future in futures if future.code().name == "RESOURCE_EXHAUSTED"}
    assert bob == "OK"
    assert codes == {"OK", "RESOURCE_EXHAUSTED"}, said
    assert all("client alice has" in each or "the queue is full" in each for each in said), said
    return "RESOURCE_EXHAUSTED"


def slow_readers(site: SecuredServer) -> str:
    """Ask for much and read nothing, on many connections."""
    body = struct.pack(">BI", 0, len(MUCH)) + MUCH
    with ExitStack() as stack:
        for _ in range(20):
            caller = stack.enter_context(site.http2())
            for _ in range(4):
                caller.send(caller.open(site.headers("alice")), body, end=True)
        until(lambda: site.ask(site.bearer("bob")) == "OK")
    until(lambda: site.ask(site.bearer("alice")) == "OK")  # with the connections, what they held has gone
    return "bounded"


def slow_writers(site: SecuredServer) -> str:
    """Announce much, and send half of it."""
    with ExitStack() as stack:
        for _ in range(20):
            caller = stack.enter_context(site.http2())
            caller.send(caller.open(site.headers("alice")), struct.pack(">BI", 0, 8 * MIB - 10) + bytes(2 * MIB))
        until(lambda: site.ask(site.bearer("bob")) == "OK")
    until(lambda: site.ask(site.bearer("alice")) == "OK")
    return "bounded"


def idle_connections(site: SecuredServer) -> str:
    """Ten thousand that say nothing: who is there goes on, and before long others may come again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 12_000), hard))
    host, port = site.server.grpc.split(":")
    try:
        with site.channel() as channel, ExitStack() as stack:
            assert site.ask(site.bearer("alice"), channel=channel) == "OK"
            for _ in range(min(10_000, hard - 1_000)):
                stack.enter_context(socket.create_connection((host, int(port)), timeout=10))
            assert site.ask(site.bearer("alice"), channel=channel) == "OK"
            until(lambda: site.ask(site.bearer("bob")) == "OK", at_most_s=40)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return "closed"


def json(site: SecuredServer, path: str, authorization: str | None = None, body: bytes | None = None) -> str:
    """Ask by HTTP; with a body, by POST."""
    headers = {"authorization": authorization} if authorization else {}
    try:
        request = urllib.request.Request(site.server.http + path, body, headers)
        with urllib.request.urlopen(request, timeout=10) as response:
            return str(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return str(error.code)


def by_hand(site: SecuredServer, target: str, host: str, more: str = "") -> str:
    """Ask by HTTP with any path and Host header; return the status."""
    name, port = site.server.http.removeprefix("http://").split(":")
    with socket.create_connection((name, int(port)), timeout=10) as caller:
        caller.sendall(f"POST {target} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 2\r\n{more}\r\n{{}}".encode())
        return caller.recv(4096).split()[1].decode()


def gauge(site: SecuredServer, name: str) -> float:
    """The value of a metric without labels."""
    with urllib.request.urlopen(f"{site.server.http}/metrics", timeout=10) as response:
        lines = response.read().decode().splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])


def grpc_name(number: str) -> str:
    """Gives a code's name."""
    return next(code.name for code in grpc.StatusCode if str(code.value[0]) == number)


ROWS: list[tuple[str, str, Callable[[SecuredServer], str]]] = [
    ("a good token", "OK", lambda site: site.ask(site.bearer("alice"))),
    ("no token", "UNAUTHENTICATED", lambda site: site.ask()),
    ("a wrong token", "UNAUTHENTICATED", lambda site: site.ask((("authorization", "Bearer hg_nobodys"),))),
    ("the token's hash", "UNAUTHENTICATED", lambda site: site.ask((("authorization", "Bearer " + "0" * 64),))),
    ("another scheme", "UNAUTHENTICATED", lambda site: site.ask((("authorization", "Basic YWxpY2U6"),))),
    ("a stream without a token", "UNAUTHENTICATED", stream_without_a_token),
    ("JSON without a token", "401", lambda site: json(site, "/v2/models/mnist")),
    ("JSON with a token", "200", lambda site: json(site, "/v2/models/mnist", f"Bearer {site.tokens['alice']}")),
    *(
        (f"JSON without a token to {host}", "401", lambda site, host=host: by_hand(site, INFER_JSON, host))
        for host in (f"x{CHECK}?", "x/v2/health/live?", f"x{CHECK}#", "x/livez?", "")
    ),
    ("readiness of a model without a token", "401", lambda site: json(site, "/v2/models/mnist/ready")),
    ("a model's files without a token", "401", lambda site: json(site, TFJS)),
    ("a model's files that it lacks", "404", lambda site: json(site, f"{TFJS}.map", f"Bearer {site.tokens['alice']}")),
    ("the console's page, which says nothing of models", "200", lambda site: json(site, "/")),
    ("a file beside the console's", "404", lambda site: json(site, "/console/..%2fserver.py")),
    ("admin by JSON without a token", "401", lambda site: json(site, LOAD_JSON, body=b"{}")),
    (
        "admin by JSON with a caller's token",
        "403",
        lambda site: json(site, LOAD_JSON, f"Bearer {site.tokens['bob']}", b"{}"),
    ),
    ("admin by JSON and GET", "405", lambda site: json(site, LOAD_JSON, f"Bearer {site.tokens['root']}")),
    ("admin by JSON", "200", lambda site: json(site, LOAD_JSON, f"Bearer {site.tokens['root']}", b"{}")),
    ("a health method as a path", "404", lambda site: json(site, CHECK)),
    ("a path that a redirection would mend", "404", lambda site: json(site, "/v2/")),
    ("liveness by JSON without a token", "200", lambda site: json(site, "/v2/health/live")),
    ("health without a token", "OK", lambda site: site.ask(message=b"", method=CHECK)),
    ("admin without a token", "UNAUTHENTICATED", lambda site: site.ask(method=LOAD, message=b"")),
    ("admin with a caller's token", "PERMISSION_DENIED", lambda site: site.ask(site.bearer("bob"), b"", LOAD)),
    ("admin with an admin's token", "OK", lambda site: site.ask(site.bearer("root"), b"\x12\x05mnist", LOAD)),
    ("reflection, switched off", "UNIMPLEMENTED", reflection),
    ("plaintext to the TLS port", "UNAVAILABLE", plaintext),
    ("no certificate", "UNAVAILABLE", lambda site: with_certificate(site, None)),
    ("an expired certificate", "UNAVAILABLE", lambda site: with_certificate(site, "expired")),
    ("another authority's certificate", "UNAVAILABLE", lambda site: with_certificate(site, "stranger")),
    ("a message of 32 MiB", "RESOURCE_EXHAUSTED", lambda site: site.ask(site.bearer("alice"), bytes(32 * MIB))),
    ("a gigabyte in a megabyte of gzip", "RESOURCE_EXHAUSTED", bomb),
    ("24 x 4.7 MB at once from one client", "RESOURCE_EXHAUSTED", many_at_once),
    ("80 answers that nobody reads", "bounded", slow_readers),
    ("20 requests that never end", "bounded", slow_writers),
    ("10,000 idle connections", "closed", idle_connections),
]


@pytest.mark.parametrize(("what", "expected", "tried"), ROWS, ids=[row[0] for row in ROWS])
def test_what_is_not_let_in(
    site: SecuredServer,
    transport: str,
    table: list[str],
    what: str,
    expected: str,
    tried: Callable[[SecuredServer], str],
) -> None:
    """The right status, a server that goes on serving, and bounded memory."""
    status = Path(f"/proc/{site.server.process.pid}/status")

    def peak_kib() -> int:
        return int(status.read_text().partition("VmHWM:")[2].split()[0])

    status.with_name("clear_refs").write_text("5")
    before = peak_kib()
    got = tried(site)
    grown_mib = (peak_kib() - before) / 1024
    table.append(f"  {what:36} {got:20} {grown_mib:6.1f} MiB")
    assert got == expected
    assert grown_mib < GROWTH_MIB[transport]
    assert site.ask(site.bearer("bob")) == "OK"


def test_tokens_are_rotated_without_a_restart(site: SecuredServer) -> None:
    """Both are good until the old line goes; a typo elsewhere, in the same edit, does not keep it."""
    path = site.folder / "tokens"
    old = site.bearer("bob")
    site.tokens["bob"] = token(site.folder, "bob")
    until(lambda: site.ask(site.bearer("bob")) == "OK")
    assert site.ask(old) == "OK"
    lines = path.read_text().splitlines()
    first = next(line for line in lines if line.startswith("bob"))
    kept = "\n".join(line for line in lines if line != first)
    path.write_text(f"{kept}\nbob and alice\n")
    until(lambda: site.ask(old) == "UNAUTHENTICATED")
    assert site.ask(site.bearer("bob")) == site.ask(site.bearer("alice")) == "OK"
    assert gauge(site, "horngate_tokens_valid") == 0
    until(lambda: any("tokens, line" in line and "expected NAME" in line for line in site.server.log))
    path.write_text(f"{kept}\n")
    until(lambda: gauge(site, "horngate_tokens_valid") == 1)
    assert gauge(site, "horngate_tokens_age_seconds") < 10


@pytest.mark.parametrize("change", ["emptied", "deleted"])
def test_a_file_of_tokens_that_is_gone_lets_nobody_in(site: SecuredServer, change: str) -> None:
    """Not even who was in before: an open stream ends with its next message. Health is answered all the same."""
    path = site.folder / "tokens"
    whole = path.read_text()
    more = threading.Event()

    def messages() -> Iterator[bytes]:
        yield GOOD
        assert more.wait(60)
        yield GOOD

    with site.channel() as channel:
        call: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(STREAM_INFER)
        answers = call(messages(), metadata=site.bearer("alice"), timeout=60)
        assert next(answers)
        try:
            if change == "emptied":
                path.write_text("")
            else:
                path.unlink()
            until(lambda: site.ask(site.bearer("bob")) == "UNAUTHENTICATED")
            more.set()
            with pytest.raises(grpc.RpcError) as refused:
                next(answers)
            assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
            assert json(site, "/v2/models/mnist", f"Bearer {site.tokens['alice']}") == "401"
            assert site.ask(message=b"", method=CHECK) == "OK"
            assert gauge(site, "horngate_tokens_valid") == 0
        finally:
            more.set()
            path.write_text(whole)
    until(lambda: site.ask(site.bearer("bob")) == "OK")


def test_who_may_ask_for_health_alone_is_not_told_the_models(site: SecuredServer) -> None:
    """A name that there is not is NOT_FOUND, and the sentence has no other one."""
    with site.channel() as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(CHECK)
        with pytest.raises(grpc.RpcError) as refused:
            call(b"\x0a\x04nope", timeout=10)
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    assert "nope" in str(refused.value.details())
    assert "mnist" not in str(refused.value.details())


def test_a_renewed_certificate_is_used_and_a_broken_one_is_not(site: SecuredServer) -> None:
    """New connections get it; connections that are there go on; a key of another certificate changes nothing."""
    host, port = site.server.grpc.split(":")
    context = ssl.create_default_context(cafile=str(site.folder / "ca.pem"))
    context.load_cert_chain(site.folder / "client.pem", site.folder / "client.key")
    context.set_alpn_protocols(["h2"])

    def served() -> str:
        with (
            socket.create_connection((host, int(port)), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            der = secure.getpeercert(binary_form=True)
            assert der
            return ssl.DER_cert_to_PEM_cert(der)

    def leaf(name: str) -> str:
        return ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert((site.folder / f"{name}.pem").read_text()))

    old = leaf("server")
    assert served() == old
    with site.channel() as channel:
        assert site.ask(site.bearer("alice"), channel=channel) == "OK"
        (site.folder / "server.pem").write_bytes((site.folder / "renewed.pem").read_bytes())
        until(lambda: bool(served()) and any("the certificate from before stays" in line for line in site.server.log))
        assert served() == old  # its key has not come yet
        (site.folder / "server.key").write_bytes((site.folder / "renewed.key").read_bytes())
        until(lambda: served() == leaf("renewed"))
        assert site.ask(site.bearer("alice"), channel=channel) == "OK"


def test_refusals_are_counted(site: SecuredServer) -> None:
    """An operator sees somebody trying tokens."""
    with urllib.request.urlopen(f"{site.server.http}/metrics", timeout=10) as response:
        text = response.read().decode()
    for reason in ("unauthenticated", "forbidden", "client_limit"):
        assert f'horngate_refused_total{{reason="{reason}"}}' in text
        assert any(f"({reason})" in line and "refused" in line for line in site.server.log)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        pytest.param(["--tokens", "none"], "--tokens none", id="no-file"),
        pytest.param(["--tokens", "secret"], "line 1: expected NAME sha256:", id="a-token-itself"),
        pytest.param(["--tokens", "empty"], "no tokens in it", id="empty"),
        pytest.param(["--admin", "--host", "0.0.0.0"], "needs --tokens FILE", id="open-admin"),
        pytest.param(
            ["--tls-cert", "server.pem", "--tls-key", "client.key"], "expected a certificate, its key", id="key"
        ),
    ],
)
def test_doors_that_cannot_close_are_wrong_usage(pems: Path, flags: list[str], said: str) -> None:
    """Nothing starts with less protection than was asked for, and no secret gets into a log."""
    (pems / "secret").write_text("hg_averysecrettoken\n")
    (pems / "empty").write_text("# nobody\n")
    stderr = usage_error(pems, *flags)
    assert said in stderr
    assert "averysecret" not in stderr
