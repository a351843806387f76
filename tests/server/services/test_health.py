"""grpc.health.v1's streams."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from horngate_server.core import errors
from horngate_server.lifecycle.readiness import Readiness
from horngate_server.services.health import Health
from support.in_process import OPTIONS


def test_a_watcher_that_asks_for_nothing_is_refused() -> None:
    """A stream that ends without its message is not left open."""

    async def nothing() -> AsyncIterator[bytes]:
        for message in list[bytes]():
            yield message

    async def watch() -> None:
        async for _ in Health(Readiness()).watch(nothing(), OPTIONS):
            raise AssertionError("nothing was asked")

    with pytest.raises(errors.InvalidRequest, match="the stream ended without a message"):
        asyncio.run(watch())


def test_a_watcher_sees_each_change_once_and_leaves_nothing_behind() -> None:
    """Watch answers at once, then on changes; an unknown name is SERVICE_UNKNOWN until it appears."""
    readiness = Readiness()

    async def name() -> AsyncIterator[bytes]:
        yield HealthCheckRequest(service="m").SerializeToString()

    async def watch() -> list[int]:
        watcher = Health(readiness).watch(name(), OPTIONS)
        seen = [HealthCheckResponse.FromString(await anext(watcher)).status]
        changes: list[Callable[[], None]] = [
            lambda: readiness.set("other", serving=True),
            lambda: readiness.set("m", serving=True),
            readiness.shut_down,
        ]
        for change in changes:
            change()
            if len(seen) < 3 and readiness.state("m") is not None:
                seen.append(HealthCheckResponse.FromString(await anext(watcher)).status)
        await watcher.aclose()  # type: ignore[attr-defined, unused-ignore]
        return seen

    seen = asyncio.run(watch())
    assert [HealthCheckResponse.ServingStatus.Name(state) for state in seen] == [
        "SERVICE_UNKNOWN", "SERVING", "NOT_SERVING",
    ]  # fmt: skip
    assert not readiness._watchers
