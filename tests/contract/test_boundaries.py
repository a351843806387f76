"""What the linters must catch: each rule of the architecture, broken on purpose, fails the check."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUFF = Path(sys.executable).with_name("ruff")


@pytest.mark.parametrize(
    ("file", "line", "allowed"),
    [
        ("server/horngate_server/engine/batch_queue.py", "import ctypes", False),
        ("server/horngate_server/runtimes/tensorflow/capi.py", "import ctypes", True),
        ("server/horngate_server/runtimes/tensorflow/capi.py", "import tensorflow", True),
        ("server/horngate_server/services/inference.py", "import tensorflow", False),
        ("server/horngate_server/services/inference.py", "import grpc", False),
        ("server/horngate_server/transports/grpcio/transport.py", "import grpc", True),
        ("server/horngate_server/engine/executor.py", "import prometheus_client", False),
        ("server/horngate_server/telemetry/metrics.py", "import prometheus_client", True),
        ("server/horngate_server/services/inference.py", "import opentelemetry.trace", False),
        ("server/horngate_server/telemetry/tracing.py", "import opentelemetry.trace", True),
        ("server/horngate_server/lifecycle/remote_repository.py", "import obstore", False),
        ("server/horngate_server/lifecycle/remote_store.py", "import obstore", True),
        ("server/horngate_server/process/app.py", "import os; os.environ['X']", False),
        ("server/horngate_server/engine/batch_queue.py", "import time; time.time()", False),
        ("server/horngate_server/engine/executor.py", "import time; time.sleep(1)", False),
        ("client/horngate_client/sync.py", "import grpc", True),
    ],
)
def test_a_room_that_imports_what_is_not_its_own_fails_the_lint(file: str, line: str, allowed: bool) -> None:
    """ctypes, grpc, prometheus_client, the environment and the clock each have their rooms."""
    done = subprocess.run(
        [RUFF, "check", "--select", "TID251", "--stdin-filename", ROOT / file, "-"],
        input=line + "\n", capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert (done.returncode == 0) == allowed, done.stdout


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("client/horngate_client", "import horngate_server.core.errors"),
        ("server/horngate_server", "import horngate_trainer"),
        ("trainer/horngate_trainer", "import horngate_client"),
        ("protos/horngate_protos", "import horngate_client"),
        ("client/horngate_client", "import tensorflow"),
    ],
)
def test_a_part_that_imports_another_fails_the_import_linter(tmp_path: Path, file: str, line: str) -> None:
    """Only the contract is shared; the client and the server never import TensorFlow."""
    assert "BROKEN" in linted(tmp_path, {file: line})


@pytest.mark.parametrize(
    ("package", "line"),
    [
        ("core", "import horngate_server.engine"),
        ("engine", "import horngate_server.protocols"),
        ("protocols", "import horngate_server.runtimes"),
        ("lifecycle", "import horngate_server.telemetry"),
        ("telemetry", "import horngate_server.services"),
        ("services", "import horngate_server.transports"),
        ("transports", "import horngate_server.process"),
    ],
)
def test_a_package_that_imports_one_above_it_fails_the_import_linter(tmp_path: Path, package: str, line: str) -> None:
    """The server's packages have an order, and imports point down it."""
    assert "downwards alone BROKEN" in linted(tmp_path, {f"server/horngate_server/{package}": line})


def test_a_package_without_a_place_fails_the_import_linter(tmp_path: Path) -> None:
    """A tenth package, or a module beside the nine, is told where it belongs."""
    assert "attic" in linted(tmp_path, {"server/horngate_server/attic": ""})


PARTS = ("client/horngate_client", "server/horngate_server", "trainer/horngate_trainer", "protos/horngate_protos")
ROOMS = (
    "process", "transports", "services", "telemetry", "lifecycle", "engine", "protocols", "runtimes", "core",
)  # fmt: skip


def linted(tmp_path: Path, lines: dict[str, str]) -> str:
    """Return what the import linter says of empty parts, but for these lines in these packages; it must refuse them."""
    empty = [*PARTS, *(f"server/horngate_server/{room}" for room in ROOMS)]
    for package in dict.fromkeys([*empty, *lines]):
        folder = tmp_path / Path(*Path(package).parts[1:])
        folder.mkdir()
        (folder / "__init__.py").write_text(lines.get(package, "") + "\n")
    (tmp_path / "horngate_server" / "core" / "errors.py").write_text("")
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    script = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(cache_dir=None))"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {script}"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_who_does_not_ask_for_traces_or_json_pays_for_neither() -> None:
    """A server that is built loads no OpenTelemetry, no Starlette and no TensorFlow."""
    program = (
        "import sys; from horngate_server.process.app import App; from horngate_server.core.settings import Settings;"
        "App(Settings());"
        "print(sorted({name.partition('.')[0] for name in sys.modules}"
        " & {'opentelemetry', 'starlette', 'tensorflow', 'keras'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
