"""How Envoy is configured."""

from hypothesis import given
from hypothesis import strategies as st

from horngate_server.core.settings import Settings
from horngate_server.process import launch
from horngate_server.transports.pyvoy import envoy


@given(st.integers(1, (1 << 31) - 1), st.integers(1, 1 << 20))
def test_what_envoy_holds_of_all_connections_is_bounded_as_requests_are(size: int, connections: int) -> None:
    """A connection's window is its share of --max-request-bytes, where that is enough to be of use."""
    window = launch.listener(Settings(max_request_bytes=size, max_connections=connections)).window_bytes
    least, most = envoy.WINDOW_BYTES
    assert least <= window <= most
    assert window * connections <= max(size, least * connections)
    assert window in (most, least) or (window + 1) * connections > size
