"""gRPC-Web on a port of its own: what a page in Chromium gets, and what HTTP alone shows of it."""

import re
import shutil
import socket
import ssl
import struct
import subprocess
import threading
from base64 import b64decode, b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import trustme
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from playwright.sync_api import Page, sync_playwright

import horngate_protos
from horngate_client import Client
from horngate_protos.open_inference_pb2 import ModelInferResponse
from horngate_server.core.methods import CHECK, INFER, WATCH
from horngate_server.transports.access import tokens
from horngate_server.transports.pyvoy import envoy
from support.in_process import request
from support.pems import write
from support.process import ServerProcess, usage_error
from support.waiting import until

WHY_NOT = envoy.why_not()
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
WEB = "application/grpc-web+proto"
TEXT = "application/grpc-web-text+proto"
ELSEWHERE = "https://elsewhere.example"
TRAILERS = 0x80
MIB = 1 << 20
SLACK_MIB = 48
"""What a process may grow by besides the requests themselves: buffers, pages not yet given back."""
CONNECTIONS = 40
IMAGES = 2500
"""Their probabilities are more than one piece of an answer."""


def frame(message: bytes) -> bytes:
    """Put the prefix in front of a message."""
    return struct.pack(">BI", 0, len(message)) + message


GOOD = request({"images": np.zeros((1, 28, 28), np.uint8)}, model="mnist").SerializeToString()


class WebServer(ServerProcess):
    """A server with a port for gRPC-Web."""

    def __init__(self, models: Path, scratch: Path, *flags: str, scheme: str = "http") -> None:
        super().__init__(models, scratch, "--transport", "fast", "--grpc-web-port", "0", *flags)
        self._scheme = scheme

    @property
    def web(self) -> str:
        """The port's address, which the banner says."""
        ports = [re.search(rf"grpc-web +{self._scheme}://127\.0\.0\.1:(\d+), for pages of", line) for line in self.log]
        [port] = [match[1] for match in ports if match]
        return f"{self._scheme}://localhost:{port}"


class Guarded(WebServer):
    """One with tokens and small limits, for pages of one origin."""

    def __init__(self, models: Path, scratch: Path, origin: str) -> None:
        file = scratch / "tokens"
        self.token = tokens.add(file, "alice", admin=False)
        flags = [
            "--engine", "tensorflow", "--tokens", str(file),
            "--max-message-bytes", "8MiB", "--max-request-bytes", "64MiB", "--max-connections", str(CONNECTIONS),
            "--grpc-web-origins", f"https://a.example,{origin}",
        ]  # fmt: skip
        super().__init__(models, scratch, *flags)


@pytest.fixture(scope="module")
def images(mnist: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The first test images."""
    return mnist[0][:IMAGES]


@pytest.fixture(scope="module")
def site(images: np.ndarray) -> Iterator[dict[str, tuple[str, bytes]]]:
    """Somebody's own web site: its pages by path, and under "origin" its origin."""
    pages = {
        "/": ("text/html", b"<!doctype html><title>a page</title>"),
        "/images": ("application/octet-stream", images.tobytes()),
        "/contract.binpb": ("application/octet-stream", contract()),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, body = pages.get(self.path, ("text/plain", b""))
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        pages["origin"] = (f"http://127.0.0.1:{listening.server_port}", b"")
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield pages
        listening.shutdown()
        thread.join()


def contract() -> bytes:
    """What of the project's .proto files a page needs, and the file of grpc.health.v1."""
    files = FileDescriptorSet.FromString(Path(horngate_protos.__file__).with_name("contract.binpb").read_bytes())
    health_pb2.DESCRIPTOR.CopyToProto(files.file.add())
    return files.SerializeToString()


@pytest.fixture(scope="module")
def server(
    trained: Path, site: dict[str, tuple[str, bytes]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    """A server for the site's pages."""
    with Guarded(trained.parents[1], tmp_path_factory.mktemp("web"), site["origin"][0]) as running:
        yield running
        assert running.stop() == 0
        assert not [line for line in running.log if " error " in line or "Traceback" in line], "\n".join(running.log)


@pytest.fixture(scope="module")
def http(server: Guarded) -> Iterator[httpx.Client]:
    """Somebody who calls without a browser, over HTTP/1.1."""
    with httpx.Client(base_url=server.web, timeout=10) as client:
        yield client


def call(
    http: httpx.Client, method: str = INFER, message: bytes = GOOD, body: bytes | None = None, **headers: str
) -> tuple[list[bytes], str]:
    """Call; return the messages of the answer, and its status, wherever that is."""
    named = {
        "content-type": WEB,
        "accept": headers.get("content_type", WEB),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    answer = http.post(method, content=frame(message) if body is None else body, headers=named)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == named["content-type"]
    if "grpc-status" in answer.headers:
        assert not answer.content
        return [], answer.headers["grpc-status"]
    content = answer.content
    if named["content-type"] == TEXT:
        content = b"".join(map(b64decode, re.findall(rb"[^=]+=*", content)))
    return unframed(content)


def unframed(content: bytes) -> tuple[list[bytes], str]:
    """Return the messages of a body, and the status in the frame that ends it."""
    messages: list[bytes] = []
    while content:
        flag, length = struct.unpack(">BI", content[:5])
        piece, content = content[5 : 5 + length], content[5 + length :]
        if flag == TRAILERS:
            assert not content
            return messages, piece.decode().partition("grpc-status:")[2].split("\r\n")[0]
        messages.append(piece)
    raise AssertionError("no trailers")


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
@pytest.mark.parametrize("content_type", [WEB, TEXT])
def test_an_answer_is_a_frame_and_its_trailers_are_another(server: Guarded, content_type: str, http2: bool) -> None:
    """In bytes or in base64, over HTTP/1.1 or HTTP/2: the message, then grpc-status 0."""
    body = frame(GOOD) if content_type == WEB else b64encode(frame(GOOD))
    with httpx.Client(base_url=server.web, http1=not http2, http2=http2, timeout=10) as http:
        [message], status = call(http, body=body, content_type=content_type, authorization=f"Bearer {server.token}")
    assert status == "0"
    assert ModelInferResponse.FromString(message).model_name == "mnist"


def test_the_same_tokens_let_the_same_callers_in(server: Guarded, http: httpx.Client) -> None:
    """Without one UNAUTHENTICATED, in a header; health is open to everyone; administration is for administrators."""
    assert call(http) == ([], "16")
    assert call(http, authorization="Bearer hg_nobodys") == ([], "16")
    assert call(http, authorization=f"Bearer {server.token}")[1] == "0"
    [message], status = call(http, CHECK, HealthCheckRequest(service="mnist").SerializeToString())
    assert (HealthCheckResponse.FromString(message).status, status) == (HealthCheckResponse.SERVING, "0")
    load = "/inference.GRPCInferenceService/RepositoryModelLoad"
    assert call(http, load, b"", authorization=f"Bearer {server.token}")[1] == "7"


def test_the_same_limits_hold_and_broken_frames_are_refused(server: Guarded, http: httpx.Client) -> None:
    """A message over --max-message-bytes is RESOURCE_EXHAUSTED, half a frame INVALID_ARGUMENT, a late call late."""
    token = f"Bearer {server.token}"
    assert call(http, message=bytes(9 * MIB), authorization=token)[1] == "8"
    assert call(http, body=frame(GOOD)[:-1], authorization=token)[1] == "3"
    assert call(http, body=b"", authorization=token)[1] == "3"
    assert call(http, authorization=token, grpc_timeout="1n")[1] == "4"
    assert call(http, "/inference.GRPCInferenceService/Nope", authorization=token)[1] == "12"
    assert call(http, authorization=token)[1] == "0"


def test_a_deadline_ends_a_call_as_grpc_web_whatever_it_waits_for(server: Guarded, http: httpx.Client) -> None:
    """Of calls that are hardly in time each is answered or late, whole; one whose body does not end is late."""
    token = f"Bearer {server.token}"

    def hardly_in_time(number: int) -> str:
        return call(http, authorization=token, grpc_timeout=f"{number % 40}00u")[1]

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(hardly_in_time, range(800))) == {"0", "4"}
    head = f"POST {INFER} HTTP/1.1\r\nhost: x\r\ncontent-type: {WEB}\r\nauthorization: {token}\r\n"
    with socket.create_connection(("127.0.0.1", int(server.web.rpartition(":")[2])), timeout=10) as caller:
        caller.sendall(f"{head}grpc-timeout: 200m\r\ncontent-length: 1000\r\n\r\n".encode() + frame(GOOD)[:500])
        heard = caller.recv(4096)
    assert heard.startswith(b"HTTP/1.1 200 ")
    assert b"\r\ngrpc-status: 4\r\n" in heard


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/grpc-websocket", ""])
def test_another_content_type_is_415(server: Guarded, http: httpx.Client, content_type: str) -> None:
    """Those among them that a browser sends to anyone without asking."""
    headers = {"content-type": content_type, "authorization": f"Bearer {server.token}"}
    assert http.post(INFER, content=frame(GOOD), headers=headers).status_code == 415


def test_pages_of_named_origins_may_call_and_no_others(server: Guarded, http: httpx.Client) -> None:
    """A named origin's preflight is granted, without cookies; another one's, and its calls with a token, are 403."""
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "content-type,authorization"}
    granted = http.options(INFER, headers={"origin": "https://a.example", **asks})
    assert granted.status_code == 200
    assert granted.headers["access-control-allow-origin"] == "https://a.example"
    assert granted.headers["access-control-allow-methods"] == "POST"
    assert {"authorization", "content-type", "x-grpc-web"} <= set(
        granted.headers["access-control-allow-headers"].split(",")
    )
    assert "access-control-allow-credentials" not in granted.headers
    token = {"content-type": WEB, "authorization": f"Bearer {server.token}"}
    answered = http.post(INFER, content=frame(GOOD), headers={"origin": "https://a.example", **token})
    assert (answered.status_code, answered.headers["access-control-allow-origin"]) == (200, "https://a.example")
    assert "grpc-message" in answered.headers["access-control-expose-headers"]
    for origin in (ELSEWHERE, "https://a.example.evil", "http://a.example", "null", ""):
        assert http.options(INFER, headers={"origin": origin, **asks}).status_code == 403
        refused = http.post(INFER, content=frame(GOOD), headers={"origin": origin, **token})
        assert (refused.status_code, refused.text) == (403, "the page's origin is not one of --grpc-web-origins\n")
        assert "access-control-allow-origin" not in refused.headers


def test_nothing_but_calls_goes_over_http_1(server: Guarded, http: httpx.Client) -> None:
    """No upgrade, for named origins either, and no request whose end could be read in two ways."""
    named = {"origin": "https://a.example"}
    upgrade = http.get(INFER, headers={"connection": "upgrade", "upgrade": "websocket", **named})
    assert (upgrade.status_code, upgrade.text) == (403, "")
    both = "transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n"
    with socket.create_connection(("127.0.0.1", int(server.web.rpartition(":")[2])), timeout=10) as caller:
        caller.sendall(f"POST {INFER} HTTP/1.1\r\nhost: x\r\ncontent-type: {WEB}\r\n{both}".encode())
        heard = b"".join(iter(lambda: caller.recv(4096), b""))
    assert heard.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in heard


def test_callers_that_never_finish_cannot_fill_the_memory(server: Guarded, http: httpx.Client) -> None:
    """Thirty by HTTP/1.1, which has no window, with nearly 8 MiB each: what is held is within --max-request-bytes."""
    token = f"Bearer {server.token}"
    size = 8 * MIB - 1000
    head = (
        f"POST {INFER} HTTP/1.1\r\nhost: x\r\ncontent-type: {WEB}\r\nauthorization: {token}\r\n"
        f"content-length: {size + 5}\r\n\r\n"
    )
    before = peak_kib(server, reset=True)

    def send(caller: socket.socket) -> None:
        with suppress(OSError):  # it is refused meanwhile
            caller.sendall(head.encode() + struct.pack(">BI", 0, size) + bytes(size - 10))

    with ExitStack() as callers, ThreadPoolExecutor(30) as threads:
        address = ("127.0.0.1", int(server.web.rpartition(":")[2]))
        list(threads.map(send, [callers.enter_context(socket.create_connection(address, 10)) for _ in range(30)]))
        assert call(http, CHECK, b"")[1] == "0"
    assert peak_kib(server) - before < (64 + SLACK_MIB) * 1024
    until(lambda: call(http, authorization=token)[1] == "0")


def peak_kib(server: Guarded, *, reset: bool = False) -> int:
    """The most memory that the server has held, since it was asked to begin anew."""
    status = Path(f"/proc/{server.process.pid}/status")
    if reset:
        status.with_name("clear_refs").write_text("5")
    return int(status.read_text().partition("VmHWM:")[2].split()[0])


def test_connections_to_both_ports_count_together(server: Guarded) -> None:
    """Of idle ones to the one port, so many that there is no room: either port closes the next one at once."""
    web, main = int(server.web.rpartition(":")[2]), int(server.grpc.rpartition(":")[2])
    with ExitStack() as idle:

        def refused(port: int) -> bool:
            caller = idle.enter_context(socket.create_connection(("127.0.0.1", port), timeout=0.5))
            try:
                return caller.recv(1) == b""
            except TimeoutError:  # it took the place of one from before, and keeps it
                return False
            except ConnectionResetError:
                return True

        for _ in range(CONNECTIONS):
            idle.enter_context(socket.create_connection(("127.0.0.1", web)))
        until(lambda: refused(main))
        until(lambda: refused(web))
    until(lambda: answered(server))


def answered(server: Guarded) -> bool:
    """Whether there is room for a caller by gRPC again."""
    with grpc.insecure_channel(server.grpc, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(CHECK)
        try:
            return bool(check(b"", timeout=5))
        except grpc.RpcError:
            return False


@pytest.fixture(scope="module")
def page(site: dict[str, tuple[str, bytes]], grpc_web_client: Path) -> Iterator[Page]:
    """Chromium, at the site, whose page has connect-web."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    bundle = ["node_modules/.bin/esbuild", "page.js", "--bundle", "--format=esm", "--outfile=bundle.js"]
    subprocess.run(bundle, cwd=grpc_web_client, check=True, capture_output=True, timeout=60)
    site["/page.js"] = ("text/javascript", (grpc_web_client / "bundle.js").read_bytes())
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            page = browser.new_page()
            page.goto(site["origin"][0])
            yield page
        finally:
            browser.close()


def ask(page: Page, function: str, *arguments: str) -> Any:
    """Call one of the page's functions."""
    return page.evaluate(
        "async ([name, given]) => (await import('/page.js'))[name](...given)", [function, list(arguments)]
    )


def test_a_page_is_told_of_the_model_and_gets_its_probabilities(
    page: Page, server: Guarded, images: np.ndarray
) -> None:
    """Metadata; and for 2,500 images, which are more than one piece, bit for bit what a caller by gRPC gets."""
    assert ask(page, "metadata", server.web, server.token) == {
        "name": "mnist",
        "inputs": [["images", "UINT8", [-1, 28, 28]]],
    }
    with Client(server.grpc, token=server.token) as client:
        expected = client.infer({"images": images})["probabilities"]
    got = np.array(ask(page, "infer", server.web, server.token), np.float32).reshape(-1, 10)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_a_page_gets_an_errors_code_and_its_words(page: Page, server: Guarded) -> None:
    """What is wrong, as every other caller is told."""
    assert ask(page, "failure", server.web, server.token) == ["NotFound", "no model 'nope'; expected one of ['mnist']"]
    code, words = ask(page, "failure", server.web, "")
    assert (code, "authorization: Bearer TOKEN" in words) == ("Unauthenticated", True)


def test_a_page_watches_health(page: Page, server: Guarded) -> None:
    """A stream of answers: the first says that the model serves."""
    assert ask(page, "watch", server.web) == HealthCheckResponse.SERVING


def test_a_page_of_an_unnamed_origin_is_kept_out(
    page: Page, site: dict[str, tuple[str, bytes]], server: Guarded
) -> None:
    """The same site by another name is another origin: the browser sends nothing after its preflight is refused."""
    page.goto(site["origin"][0].replace("127.0.0.1", "localhost"))
    try:
        code, words = ask(page, "failure", server.web, server.token)
    finally:
        page.goto(site["origin"][0])
    assert (code, words) == ("Unknown", "Failed to fetch")


def test_workers_share_the_port_and_streams_end_with_the_server(trained: Path, tmp_path: Path) -> None:
    """Two workers answer on it; an open stream holds up no end, and gets its status."""
    with WebServer(trained.parents[1], tmp_path, "--workers", "2") as server:
        for _ in range(12):
            with httpx.Client(base_url=server.web, timeout=10) as http:
                assert call(http)[1] == "0"
        with (
            httpx.Client(base_url=server.web, timeout=20) as http,
            http.stream("POST", WATCH, content=frame(b""), headers={"content-type": WEB}) as watched,
        ):
            pieces = watched.iter_raw()
            content = next(pieces)
            assert server.stop() == 0
            messages, status = unframed(content + b"".join(pieces))
        assert HealthCheckResponse.FromString(messages[0]).status == HealthCheckResponse.SERVING
        assert status == "14"


def test_tls_is_the_main_ports(trained: Path, tmp_path: Path) -> None:
    """The same certificates, the callers' too, for HTTP/1.1 and HTTP/2, and no plain text."""
    authority = trustme.CA()
    names = {"server": "localhost", "client": "caller@example.com"}
    pems = write(tmp_path, authority, {name: authority.issue_cert(of) for name, of in names.items()})
    flags = {"--tls-cert": "server.pem", "--tls-key": "server.key", "--tls-client-ca": "ca.pem"}
    given = [str(part) for flag, name in flags.items() for part in (flag, pems / name)]
    nobody = ssl.create_default_context(cafile=str(pems / "ca.pem"))
    caller = ssl.create_default_context(cafile=str(pems / "ca.pem"))
    caller.load_cert_chain(pems / "client.pem", pems / "client.key")
    with WebServer(trained.parents[1], tmp_path, *given, scheme="https") as server:
        for http2 in (False, True):
            with httpx.Client(base_url=server.web, http1=not http2, http2=http2, verify=caller, timeout=10) as http:
                assert call(http)[1] == "0"
        for url, context in ((server.web, nobody), (server.web.replace("https", "http"), caller)):
            with httpx.Client(base_url=url, verify=context, timeout=10) as http, pytest.raises(httpx.TransportError):
                call(http)


def test_a_port_that_somebody_has_is_wrong_usage(tmp_path: Path) -> None:
    """Said by the flag's name, before anything starts."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = usage_error(tmp_path, "--grpc-port", "0", "--grpc-web-port", taken.getsockname()[1])
    assert "cannot listen: another server listens there" in said


def test_where_the_fast_transport_cannot_run_the_port_is_wrong_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With auto, too: nobody finds out by pages that do not work."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['pyvoy'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    assert "--grpc-web-port needs --transport fast, which cannot run: pyvoy is not installed" in usage_error(
        tmp_path, "--grpc-web-port", "0"
    )
