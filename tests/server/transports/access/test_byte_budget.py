"""How much memory callers may fill."""

import pytest

from horngate_server.core import errors
from horngate_server.transports.access.byte_budget import ByteBudget


def test_memory_has_room_again_when_it_is_given_back() -> None:
    """Bytes are taken up to the limit, refused beyond it with a time to come back, and free again after."""
    memory = ByteBudget(100)
    memory.take(60)
    with pytest.raises(errors.QueueFull, match="60 bytes of requests are in memory, no room for 41 more") as refused:
        memory.take(41)
    assert refused.value.retry_after_s > 0
    memory.give(60)
    memory.take(100)
