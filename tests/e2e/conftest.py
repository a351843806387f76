"""Every test against a server process runs on every transport."""

import pytest

from horngate_server.transports import envoy

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
