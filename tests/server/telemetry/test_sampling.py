"""Which requests are told about."""

import pytest

from horngate_server.telemetry.sampling import Sampler

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("header", "traced"),
    [
        pytest.param(f"00-{TRACE}-{SPAN}-01", True, id="sampled"),
        pytest.param(f"00-{TRACE}-{SPAN}-00", False, id="not-sampled"),
        pytest.param(f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like", True, id="a-later-version"),
        pytest.param(f"00-{TRACE}-{SPAN}", False, id="cut-short"),
        pytest.param(f"00-{'0' * 32}-{SPAN}-01", False, id="no-trace-id"),
        pytest.param(f"00-{TRACE}-{'0' * 16}-01", False, id="no-span-id"),
        pytest.param(f"ff-{TRACE}-{SPAN}-01", False, id="no-version"),
        pytest.param("nonsense", False, id="nonsense"),
    ],
)
def test_a_callers_traceparent_decides(header: str, traced: bool) -> None:
    """W3C Trace Context: its flag; what is no traceparent is as if there were none."""
    origin = Sampler(0.0, 0.0, lambda: 0.5).origin("a", b"id", header.encode())
    assert (origin is not None) == traced
    if origin is not None:
        assert (origin.trace_id, origin.span_id, origin.request_id) == (TRACE, SPAN, "id")


def test_shares_decide_for_everyone_else() -> None:
    """A share of requests is logged, another traced; at 0 nobody, at 1 everybody."""
    assert Sampler(0.0, None, lambda: 0.0).origin("a", b"", b"") is None
    always = Sampler(1.0, 1.0, lambda: 0.999).origin("a", b"", b"")
    assert always is not None
    assert (always.logged, always.traced, len(always.trace_id), always.span_id) == (True, True, 32, "")
    some = Sampler(0.3, 0.1, lambda: 0.2).origin("a", b"", b"")
    assert some is not None
    assert (some.logged, some.traced, some.trace_id) == (True, False, "")
