"""What the client's tests share."""

import os
from collections.abc import Iterator

import numpy as np
import pytest

from client.fake_server import FakeServer, serve


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of whoever runs the tests reaches them."""
    for name in [name for name in os.environ if name.startswith("HORNGATE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A server of the reference model."""
    with serve(FakeServer()) as running:
        yield running


@pytest.fixture
def second() -> Iterator[FakeServer]:
    """Another one."""
    with serve(FakeServer()) as running:
        yield running


def images(count: int, *, seed: int = 0) -> np.ndarray:
    """Make random images, which the fake model tells apart."""
    return np.random.default_rng(seed).integers(0, 256, (count, 28, 28), dtype=np.uint8)
