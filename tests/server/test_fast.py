"""The fast transport's own part: gRPC in ASGI's events, without Envoy."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from horngate_server.transports import Call, Status, Stream, framing
from horngate_server.transports.fast import PIECE_BYTES, FastTransport

METHOD = "/s/m"
HEADERS = [(b"content-type", b"application/grpc"), (b"te", b"trailers")]


class FakeService:
    """Keeps the calls that it is given, in the batches in which they came."""

    methods = frozenset([METHOD])
    streams: Mapping[str, Stream] = {}

    def __init__(self) -> None:
        self.batches: list[list[Call]] = []

    def accept(self, calls: Sequence[Call]) -> None:
        self.batches.append(list(calls))


class FakeCaller:
    """One call, as pyvoy would bring it."""

    def __init__(self, *pieces: bytes, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self.scope = {"type": "http", "path": METHOD, "headers": [*HEADERS, *headers]}
        self._events: list[dict[str, Any]] = [
            {"type": "http.request", "body": piece, "more_body": number < len(pieces) - 1}
            for number, piece in enumerate(pieces)
        ]
        self.sent: list[dict[str, Any]] = []
        self.gone = False
        self.asked = 0
        self.asked_often = asyncio.Event()
        self.ended = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        if self._events:
            return self._events.pop(0)
        self.asked += 1
        if self.asked >= 4:
            self.asked_often.set()
        return {"type": "http.disconnect"} if self.gone else {"type": "http.request", "body": b"", "more_body": False}

    def send(self, event: dict[str, Any]) -> "asyncio.Future[None]":
        self.sent.append(event)
        if event["type"] == "http.response.trailers":
            self.ended.set()
        future = asyncio.get_event_loop_policy().get_event_loop().create_future()
        future.set_result(None)
        return future

    def status(self) -> str:
        """The call's gRPC status, wherever it was sent."""
        pairs = [pair for event in self.sent for pair in event.get("headers", ())]
        return str(dict(pairs)[b"grpc-status"], "ascii")

    def body(self) -> bytes:
        return b"".join(event.get("body", b"") for event in self.sent)


def transport(service: FakeService, *, message: int = 1 << 20, memory: int = 1 << 20) -> FastTransport:
    """A transport that Envoy has just begun to listen for."""
    made = FastTransport(
        port=1, admin=Path("none"), max_message_bytes=message, max_request_bytes=memory, clock=time.monotonic
    )
    made._ask_envoy = lambda url: "LIVE\n"  # type: ignore[method-assign]  # noqa: ARG005
    made.start(service)
    return made


async def turn(fast: FastTransport, *callers: FakeCaller) -> None:
    """Let calls come in the same turn of the loop, and the loop go on until they were handed over."""
    await asyncio.gather(*(fast(caller.scope, caller.receive, caller.send) for caller in callers))
    await asyncio.sleep(0)


def test_calls_of_one_turn_are_handed_over_together_and_answered_as_grpc() -> None:
    """The service gets a batch; each answer leaves as headers, one frame and trailers."""

    async def run() -> None:
        service = FakeService()
        fast = transport(service)
        callers = [FakeCaller(framing.frame(b"ask %d" % n)) for n in range(3)]
        await turn(fast, *callers)
        [calls] = service.batches
        assert [call.message for call in calls] == [b"ask 0", b"ask 1", b"ask 2"]
        fast.deliver([(call.reply, b"answer to " + bytes(call.message)) for call in calls])
        for number, caller in enumerate(callers):
            assert caller.body() == framing.frame(b"answer to ask %d" % number)
            assert caller.status() == "0"
            assert [event["type"].rpartition(".")[2] for event in caller.sent] == ["start", "body", "trailers"]

    asyncio.run(run())


def test_a_request_in_pieces_is_put_together() -> None:
    """However the bytes are cut, the message is whole."""

    async def run() -> None:
        service = FakeService()
        body = framing.frame(bytes(range(256)) * 40)
        await turn(transport(service), FakeCaller(body[:3], body[3:100], body[100:]))
        assert bytes(service.batches[0][0].message) == bytes(range(256)) * 40

    asyncio.run(run())


def test_an_error_is_headers_alone() -> None:
    """A status without an answer is one event with its text quoted."""

    async def run() -> None:
        service = FakeService()
        fast = transport(service)
        caller = FakeCaller(framing.frame(b"x"))
        await turn(fast, caller)
        fast.deliver([(service.batches[0][0].reply, Status(3, "INVALID_ARGUMENT", "no", ()))])
        assert (caller.status(), caller.body()) == ("3", b"")

    asyncio.run(run())


def test_memory_is_taken_until_the_answer_and_refused_beyond_the_limit() -> None:
    """What is in memory counts from its arrival to its answer; who finds no room is told when to come back."""

    async def run() -> None:
        service = FakeService()
        fast = transport(service, memory=1000)
        first, second, third = (FakeCaller(framing.frame(bytes(600))) for _ in range(3))
        await turn(fast, first)
        await turn(fast, second)
        assert second.status() == "8"
        assert (b"grpc-retry-pushback-ms", b"100") in second.sent[0]["headers"]
        fast.deliver([(service.batches[0][0].reply, b"")])
        await turn(fast, third)
        assert len(service.batches) == 2

    asyncio.run(run())


def test_pieces_of_a_message_that_is_announced_too_large_are_not_awaited() -> None:
    """The prefix tells the size: the rest need not come."""

    async def run() -> None:
        service = FakeService()
        caller = FakeCaller(b"\0\0\0\x10\0" + bytes(10), bytes(4086))
        await turn(transport(service, message=1000), caller)
        assert caller.status() == "8"
        assert caller._events
        assert not service.batches

    asyncio.run(run())


def test_a_long_answer_leaves_in_pieces() -> None:
    """Each piece waits for the one before: a caller that does not read holds up no more than its own answer."""

    async def run() -> None:
        service = FakeService()
        fast = transport(service)
        caller = FakeCaller(framing.frame(b"x"))
        await turn(fast, caller)
        answer = bytes(3 * PIECE_BYTES)
        fast.deliver([(service.batches[0][0].reply, answer)])
        await caller.ended.wait()
        assert caller.body() == framing.frame(answer)
        assert max(len(event.get("body", b"")) for event in caller.sent) == PIECE_BYTES

    asyncio.run(run())


def test_a_caller_that_goes_while_it_waits_is_noticed_and_one_that_stays_is_asked_ever_less() -> None:
    """After 10, 30, 90 ms, ...: the number of questions grows with the logarithm of the wait."""

    async def run() -> None:
        service = FakeService()
        fast = transport(service)
        gone, stays = FakeCaller(framing.frame(b"x")), FakeCaller(framing.frame(b"y"))
        await turn(fast, gone, stays)
        gone.gone = True
        first, second = (call.reply for call in service.batches[0])
        async with asyncio.timeout(10):
            await stays.asked_often.wait()
        assert first.done()
        assert not second.done()
        assert gone.asked == 1

    asyncio.run(run())
