"""What a call's metadata ask for, as text and as bytes."""

from collections.abc import Callable
from math import inf

import pytest

from horngate_server.core.errors import InvalidRequest
from horngate_server.core.request_context import RequestContext
from horngate_server.telemetry.sampling import NOTHING, Sampler
from horngate_server.transports.call_metadata import MetadataReader, as_bytes
from support.in_process import Clock

ALL_LOGGED = Sampler(1.0, None, lambda: 0.0)


def test_a_timeout_becomes_a_deadline_on_the_servers_clock() -> None:
    """None is no deadline; none left is one that has passed."""
    reader = MetadataReader(str, Clock(), NOTHING)
    assert [reader.deadline(timeout_s) for timeout_s in (None, 5.0, 0.0)] == [inf, 1005.0, 1000.0]


@pytest.mark.parametrize("key", [str, str.encode], ids=["text", "bytes"])
def test_metadata_are_read_alike_on_every_transport(key: Callable[[str], str | bytes]) -> None:
    """The priority, the request's name and the trace, whatever their names are made of."""
    reader: MetadataReader[str | bytes] = MetadataReader(key, Clock(), ALL_LOGGED)  # type: ignore[type-var]
    metadata = {
        key("horngate-priority"): key("bulk"),
        key("x-request-id"): key("mine"),
    }
    deadline, bulk, context = reader.options(metadata, 1.0, "alice")
    assert (deadline, bulk) == (1001.0, True)
    assert context() == RequestContext("alice", "mine", "", "", False, True)
    with pytest.raises(InvalidRequest, match="expected interactive or bulk"):
        reader.bulk({key("horngate-priority"): key("urgent")})


def test_who_is_told_about_nobody_is_asked_nothing() -> None:
    """Without a log and traces, no context is made."""
    reader = MetadataReader(str, Clock(), NOTHING)
    assert not reader.samples
    assert reader.context({"x-request-id": "mine"}, "alice") is None


def test_a_missing_value_is_empty() -> None:
    """As is one that is not there at all."""
    assert [as_bytes(value) for value in ("x", b"x", "", None)] == [b"x", b"x", b"", b""]
