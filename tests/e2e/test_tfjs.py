"""The version in its other home: @tensorflow/tfjs, in Node and in Chromium, answers as the server does."""

import json
import shutil
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import sync_playwright

from horngate_client import Client
from support.node_packages import answer
from support.process import ServerProcess

IMAGES = 1000
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PAGE = b"""<!doctype html><script src="/tf.min.js"></script><script>
async function answers(backend) {
  await tf.setBackend(backend);
  const model = await tf.loadGraphModel("/models/mnist/versions/1/tfjs/model.json");
  const bytes = new Uint8Array(await (await fetch("/images")).arrayBuffer());
  const images = tf.tensor(bytes, [bytes.length / 784, 28, 28], "int32");
  const { probabilities, classes } = model.predict({ images });
  return {
    backend: tf.getBackend(),
    probabilities: Array.from(await probabilities.data()),
    classes: Array.from(await classes.data()),
  };
}
</script>"""


@pytest.fixture(scope="module")
def images(mnist: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The first test images."""
    return mnist[0][:IMAGES]


@pytest.fixture(scope="module")
def server(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server of the version."""
    with ServerProcess(trained.parents[1], tmp_path_factory.mktemp("tfjs-server")) as running:
        yield running


@pytest.fixture(scope="module")
def expected(server: ServerProcess, images: np.ndarray) -> dict[str, np.ndarray]:
    """What the server answers."""
    with Client(server.grpc) as client:
        return dict(client.infer({"images": images}))


@pytest.fixture(scope="module")
def site(server: ServerProcess, tfjs_client: Path, images: np.ndarray) -> Iterator[str]:
    """Somebody's own web site: a page, TF.js, and the server's models behind its own address."""
    pages = {
        "/": ("text/html", PAGE),
        "/tf.min.js": (
            "text/javascript",
            (tfjs_client / "node_modules/@tensorflow/tfjs/dist/tf.min.js").read_bytes(),
        ),
        "/images": ("application/octet-stream", images.tobytes()),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/models/"):
                with urllib.request.urlopen(server.http + self.path, timeout=30) as response:
                    kind, body = response.headers["content-type"], response.read()
            else:
                kind, body = pages.get(self.path, ("text/plain", b""))
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}/"
        listening.shutdown()
        thread.join()


def check(answers: dict[str, Any], expected: dict[str, np.ndarray]) -> None:
    """Hold answers against the server's: the same classes, and probabilities that differ by less than 1e-5."""
    assert list(answers["classes"]) == expected["classes"].tolist()
    got = np.array(answers["probabilities"], np.float32).reshape(-1, 10)
    assert np.abs(got - expected["probabilities"]).max() < 1e-5


def test_node_answers_as_the_server_does(
    trained: Path, tfjs_client: Path, images: np.ndarray, expected: dict[str, np.ndarray], tmp_path: Path
) -> None:
    """1,000 test images: the same classes, probabilities to 1e-5, in the dtypes that TF.js has."""
    inputs = {"images": {"data": images.reshape(-1).tolist(), "shape": images.shape, "dtype": "int32"}}
    (tmp_path / "inputs.json").write_text(json.dumps(inputs))
    came = answer(tfjs_client / "predict.js", trained / "assets.extra/tfjs", tmp_path / "inputs.json")
    assert {name: (each["dtype"], each["shape"]) for name, each in came.items()} == {
        "classes": ("int32", [IMAGES]),
        "probabilities": ("float32", [IMAGES, 10]),
    }
    check({name: each["data"] for name, each in came.items()}, expected)


@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")
@pytest.mark.parametrize("backend", ["cpu", "webgl"])
def test_a_browser_answers_as_the_server_does(site: str, expected: dict[str, np.ndarray], backend: str) -> None:
    """A page of one's own site loads the model from the server behind it: the same answers to 1,000 test images."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        try:
            page = browser.new_page()
            said: list[str] = []
            page.on("pageerror", lambda error: said.append(str(error)))
            page.goto(site)
            came = page.evaluate("backend => answers(backend)", backend)
        finally:
            browser.close()
    assert came["backend"] == backend
    assert not said
    check(came, expected)
