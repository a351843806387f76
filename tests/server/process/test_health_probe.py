"""``horngate-server health`` from outside: what it says of a server that does not answer."""

import http.server
import socket
import threading

import pytest

from horngate_server.process import health_probe


@pytest.fixture(autouse=True)
def _a_proxy_that_nobody_is_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever does gets no answer: nobody listens there."""
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)


class _Ready(http.server.BaseHTTPRequestHandler):
    """Answers /readyz, and says otherwise why not."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/readyz" else 503)
        self.end_headers()
        self.wfile.write(b"not ready: it drains\n")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_it_asks_straight_and_names_the_cause() -> None:
    """No proxy is between, whatever the environment says: an HTTP port is told from one at which nobody listens."""
    with http.server.HTTPServer(("127.0.0.1", 0), _Ready) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f"127.0.0.1:{server.server_port}"
        assert health_probe.ask_ready(f"http://{address}/readyz", 5.0) == ""
        assert health_probe.ask_ready(f"http://{address}/no", 5.0).endswith("/no: 503: not ready: it drains")
        assert "HTTP answers there, not gRPC" in health_probe.ask(address, "", 5.0)
        server.shutdown()
        thread.join()
    assert "nothing listens there" in health_probe.ask(address, "", 5.0)
    assert "nothing listens there" in health_probe.ask_ready(f"http://{address}/readyz", 5.0)


def test_a_port_that_says_nothing_is_no_answer_in_time() -> None:
    """With the time that was waited."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert health_probe.ask(address, "", 0.2).startswith(f"{address}: ")
        assert "timed out" in health_probe.ask_ready(f"http://{address}/readyz", 0.2)
