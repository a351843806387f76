"""Messages of methods that are open to everyone, on a transport that cannot bound their size."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from horngate_server.core.errors import InvalidRequest, MessageTooLarge, QueueFull
from horngate_server.transports import small_messages
from horngate_server.transports.small_messages import AT_ONCE, SmallMessages


async def never() -> AsyncIterator[bytes]:
    """A message that does not end."""
    await asyncio.Event().wait()
    yield b""


async def once(message: bytes) -> AsyncIterator[bytes]:
    """A message that is there."""
    yield message


async def nothing() -> AsyncIterator[bytes]:
    """A call that ends without one."""
    messages: tuple[bytes, ...] = ()
    for message in messages:
        yield message


def test_whoever_has_been_sending_for_longest_makes_room() -> None:
    """A probe among callers that do not end has its message taken; of these the oldest are refused."""

    async def run() -> list[bool]:
        messages = SmallMessages(10)
        slow = [asyncio.ensure_future(messages.first(never())) for _ in range(3 * AT_ONCE)]
        for _ in range(10):
            await asyncio.sleep(0)
        assert await messages.first(once(b"probe")) == b"probe"
        await asyncio.sleep(0)
        refused = [each.done() and isinstance(each.exception(), QueueFull) for each in slow]
        for each in slow:
            each.cancel()
        return refused

    refused = asyncio.run(run())
    assert refused == [True] * (2 * AT_ONCE + 1) + [False] * (AT_ONCE - 1)


def test_a_message_that_takes_too_long_or_is_too_large_or_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with its own error, and the place is free again."""
    monkeypatch.setattr(small_messages, "WAIT_S", 0.0)

    async def run() -> None:
        messages = SmallMessages(10)
        with pytest.raises(QueueFull, match="did not come soon enough"):
            await messages.first(never())
        monkeypatch.setattr(small_messages, "WAIT_S", 60.0)
        with pytest.raises(MessageTooLarge, match="a message of 11 bytes; expected at most 10"):
            await messages.first(once(bytes(11)))
        with pytest.raises(InvalidRequest, match="no message came"):
            await messages.first(nothing())
        assert not messages._waiting

    asyncio.run(run())
