"""Every test against a server process runs on every transport."""

from pathlib import Path

import numpy as np
import pytest

from horngate_server.transports.pyvoy import envoy
from support.node_packages import installed

DATA = Path(__file__).parents[2] / "trainer/horngate_trainer/data/mnist.npz"

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


@pytest.fixture(scope="session", params=["tensorflow", "litert"])
def engine(request: pytest.FixtureRequest) -> str:
    """The name for ``--engine``."""
    return str(request.param)


@pytest.fixture(scope="session")
def mnist() -> tuple[np.ndarray, np.ndarray]:
    """The 10,000 test images and their labels."""
    with np.load(DATA) as data:
        return data["x_test"], data["y_test"]


@pytest.fixture(scope="session")
def node_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Node.js client with its packages, as its lock file pins them."""
    return installed("node", tmp_path_factory.mktemp("node")) / "client.js"


@pytest.fixture(scope="session")
def grpc_web_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of @connectrpc/connect-web and of the page that calls with it."""
    return installed("grpc_web", tmp_path_factory.mktemp("grpc_web"))
