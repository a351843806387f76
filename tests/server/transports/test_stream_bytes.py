"""What a stream holds of the memory."""

import pytest

from horngate_server.core.errors import QueueFull
from horngate_server.transports.access.byte_budget import ByteBudget
from horngate_server.transports.stream_bytes import StreamBytes


def free(memory: ByteBudget, size: int) -> bool:
    """Whether just so much is left."""
    memory.take(size)
    with pytest.raises(QueueFull):
        memory.take(1)
    memory.give(size)
    return True


def test_answers_give_back_the_oldest_messages() -> None:
    """In their order; further answers, as a watch gives, give back nothing."""
    memory = ByteBudget(100)
    counted = StreamBytes(memory)
    counted.take(10)
    counted.take(30)
    assert free(memory, 60)
    counted.answered()
    assert free(memory, 70)
    counted.answered()
    counted.answered()
    assert free(memory, 100)


def test_a_message_without_room_is_refused_and_not_given_back() -> None:
    """The end gives back what was taken, once."""
    memory = ByteBudget(100)
    counted = StreamBytes(memory)
    counted.take(80)
    with pytest.raises(QueueFull):
        counted.take(30)
    counted.close()
    counted.close()
    assert free(memory, 100)
