"""Fixtures that several test files share: SavedModels are made once per run, each by its own process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from support.node_packages import installed
from support.skips import pytest_runtest_makereport  # noqa: F401 - a hook, by its name

# No test fails because the machine is busy.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# A job in the background is started with SIGINT ignored, and so would be all that the tests start, and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parent.parent

SLOW_FIXTURES = {"trained", "foreign_models", "tensorflow"}
"""They train, write SavedModels, or import TensorFlow."""

NET_FIXTURES = {"grpc_web_client", "node_client", "node_example", "tfjs_client"}
"""They install packages."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what starts servers or needs a slow fixture; other slow tests carry the marker themselves."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if item.path.is_relative_to(ROOT / "tests/e2e") or not SLOW_FIXTURES.isdisjoint(fixtures):
            item.add_marker("slow")
        if not NET_FIXTURES.isdisjoint(fixtures):
            item.add_marker("net")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No HORNGATE_ variable of the person who runs the tests reaches them."""
    for name in [name for name in os.environ if name.startswith("HORNGATE_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def foreign_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model root with SavedModels that no trainer of ours made."""
    root = tmp_path_factory.mktemp("foreign")
    subprocess.run(
        [sys.executable, ROOT / "tests/support/make_models.py", root], check=True, capture_output=True, timeout=100
    )
    return root


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The version folder that the trainer exported after two epochs on the real MNIST, in all its formats."""
    folder = tmp_path_factory.mktemp("trained")
    done = subprocess.run(
        [
            sys.executable, "-m", "horngate_trainer.cli", "--output", folder / "models", "--epochs", "2",
            "--seed", "1", "--min-accuracy", "0.9", "--report", folder / "report",
            "--formats", "savedmodel,litert,tfjs",
        ],
        check=True, capture_output=True, text=True, timeout=100, cwd=folder,
    )  # fmt: skip
    return Path(folder, done.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def tfjs_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of @tensorflow/tfjs and of the scripts that use it in Node."""
    return installed("tfjs", tmp_path_factory.mktemp("tfjs"))
