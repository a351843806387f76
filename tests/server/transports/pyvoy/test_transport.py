"""The fast transport's own part: gRPC in ASGI's events, without Envoy."""

import asyncio
import gzip
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from itertools import count
from math import inf
from pathlib import Path
from typing import Any

import pytest

from horngate_server.core.errors import HorngateError, InvalidRequest, MessageTooLarge, QueueFull
from horngate_server.core.rpc import Call, Status, Stream
from horngate_server.transports.access.byte_budget import ByteBudget
from horngate_server.transports.access.gate import Gate
from horngate_server.transports.open_streams import Streams
from horngate_server.transports.pyvoy import asgi, grpc_framing
from horngate_server.transports.pyvoy.answer_sending import PIECE_BYTES
from horngate_server.transports.pyvoy.envoy_admin import EnvoyAdmin
from horngate_server.transports.pyvoy.transport import START_S, FastTransport
from support.in_process import OPTIONS

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


class LiveEnvoy(EnvoyAdmin):
    """The admin interface of an Envoy that listens."""

    def __init__(self) -> None:
        super().__init__(Path("none"))

    def live(self) -> bool:
        return True


class FakeCaller:
    """One call, as pyvoy would bring it."""

    def __init__(self, *pieces: bytes, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self.scope: dict[str, Any] = {
            "type": "http",
            "path": METHOD,
            "headers": [*HEADERS, *headers],
            "client": ("127.0.0.1", 5),
        }
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
        if self.asked >= 3:
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
        port=1, admin=LiveEnvoy(), max_message_bytes=message, gate=Gate(ByteBudget(memory)), clock=time.monotonic
    )
    made.start(service)
    return made


async def turn(fast: FastTransport, *callers: FakeCaller) -> None:
    """Let calls come in the same turn of the loop, and the loop go on until they were handed over."""
    for caller in callers:
        fast(caller.scope, caller.receive, caller.send)
    for _ in range(10):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what a thread has a part in: a message is expanded on one."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.001)


def test_calls_of_one_turn_are_handed_over_together_and_answered_as_grpc() -> None:
    """The service gets a batch; each answer leaves as headers, one frame and trailers."""

    async def run() -> None:
        service = FakeService()
        fast = transport(service)
        callers = [FakeCaller(grpc_framing.frame(b"ask %d" % n)) for n in range(3)]
        await turn(fast, *callers)
        [calls] = service.batches
        assert [call.message for call in calls] == [b"ask 0", b"ask 1", b"ask 2"]
        fast.deliver([(call.reply, b"answer to " + bytes(call.message)) for call in calls])
        for number, caller in enumerate(callers):
            assert caller.body() == grpc_framing.frame(b"answer to ask %d" % number)
            assert caller.status() == "0"
            assert [event["type"].rpartition(".")[2] for event in caller.sent] == ["start", "body", "trailers"]

    asyncio.run(run())


def test_a_request_in_pieces_is_put_together() -> None:
    """However the bytes are cut, the message is whole."""

    async def run() -> None:
        service = FakeService()
        body = grpc_framing.frame(bytes(range(256)) * 40)
        await turn(transport(service), FakeCaller(body[:3], body[3:100], body[100:]))
        assert bytes(service.batches[0][0].message) == bytes(range(256)) * 40

    asyncio.run(run())


def test_an_error_is_headers_alone() -> None:
    """A status without an answer is one event with its text quoted."""

    async def run() -> None:
        service = FakeService()
        fast = transport(service)
        caller = FakeCaller(grpc_framing.frame(b"x"))
        await turn(fast, caller)
        fast.deliver([(service.batches[0][0].reply, Status(3, "INVALID_ARGUMENT", "no", ()))])
        assert (caller.status(), caller.body()) == ("3", b"")

    asyncio.run(run())


def test_memory_is_taken_until_the_answer_and_refused_beyond_the_limit() -> None:
    """What is in memory counts from its arrival to its answer; who finds no room is told when to come back."""

    async def run() -> None:
        service = FakeService()
        fast = transport(service, memory=1000)
        first, second, third = (FakeCaller(grpc_framing.frame(bytes(600))) for _ in range(3))
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
        caller = FakeCaller(grpc_framing.frame(b"x"))
        await turn(fast, caller)
        answer = bytes(3 * PIECE_BYTES)
        fast.deliver([(service.batches[0][0].reply, answer)])
        await caller.ended.wait()
        assert caller.body() == grpc_framing.frame(answer)
        assert max(len(event.get("body", b"")) for event in caller.sent) == PIECE_BYTES

    asyncio.run(run())


async def _inbox(body: bytes, encoding: bytes, *, limit: int, memory: ByteBudget) -> list[bytes]:
    """Read a stream's body through an inbox; return its messages."""
    caller = FakeCaller(*(body[start : start + 100] for start in range(0, len(body), 100)))
    inbox = asgi.Inbox(caller.receive, encoding, limit, memory)
    reader = asyncio.create_task(inbox.fill(on_disconnect=lambda: None))
    try:
        return [message async for message in inbox.messages()]
    finally:
        reader.cancel()
        inbox.close()


def test_a_streams_messages_are_cut_and_expanded_and_count_as_memory_until_they_are_answered() -> None:
    """However the bytes are cut; too large, too many, not compressed as they say: the stream ends with the reason."""
    plain = [bytes([n]) * n * 50 for n in range(1, 6)]
    zipped = b"".join(b"\1" + grpc_framing.frame(gzip.compress(each))[1:] for each in plain)
    frames = b"".join(map(grpc_framing.frame, plain))
    assert asyncio.run(_inbox(frames, b"", limit=250, memory=ByteBudget(750))) == plain
    assert asyncio.run(_inbox(zipped, b"gzip", limit=250, memory=ByteBudget(750))) == plain
    for body, limit, memory, error in (
        (frames, 249, 750, MessageTooLarge), (zipped, 249, 750, MessageTooLarge),
        (frames, 250, 749, QueueFull), (zipped, 250, 749, QueueFull),
    ):  # fmt: skip
        with pytest.raises(error):
            asyncio.run(_inbox(body, b"gzip", limit=limit, memory=ByteBudget(memory)))
    with pytest.raises(InvalidRequest, match="expected grpc-encoding to say how"):
        asyncio.run(_inbox(zipped, b"", limit=250, memory=ByteBudget(750)))


def test_a_streams_message_counts_from_its_first_bytes() -> None:
    """With the length that it announces; what was never whole is given back at the end."""

    async def run() -> None:
        memory = ByteBudget(100)
        caller = FakeCaller(grpc_framing.frame(bytes(60))[:10], b"", b"")
        inbox = asgi.Inbox(caller.receive, b"", 100, memory)
        reader = asyncio.create_task(inbox.fill(on_disconnect=lambda: None))
        for _ in range(10):
            await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            memory.take(41)
        reader.cancel()
        inbox.close()
        memory.take(100)

    asyncio.run(run())


def test_a_streams_memory_comes_back() -> None:
    """With every answer, and at the end."""

    async def run() -> None:
        memory = ByteBudget(100)
        caller = FakeCaller(grpc_framing.frame(bytes(60)))
        inbox = asgi.Inbox(caller.receive, b"", 100, memory)
        reader = asyncio.create_task(inbox.fill(on_disconnect=lambda: None))
        await anext(inbox.messages())
        with pytest.raises(QueueFull):
            memory.take(60)
        inbox.answered()
        inbox.answered()  # more answers than messages: health's Watch
        memory.take(60)
        memory.give(60)
        reader.cancel()
        inbox.close()
        memory.take(100)

    asyncio.run(run())


def test_a_priority_in_the_metadata_reaches_the_service() -> None:
    """``horngate-priority``: interactive, bulk, or an error."""

    async def run() -> None:
        service = FakeService()
        fast = transport(service)
        callers = [
            FakeCaller(grpc_framing.frame(b"x"), headers=headers)
            for headers in ([], [(b"horngate-priority", b"interactive")], [(b"horngate-priority", b"bulk")])
        ]
        await turn(fast, *callers)
        assert [call.bulk for call in service.batches[0]] == [False, False, True]
        wrong = FakeCaller(grpc_framing.frame(b"x"), headers=[(b"horngate-priority", b"urgent")])
        await turn(fast, wrong)
        assert wrong.status() == "3"

    asyncio.run(run())


def test_headers_are_each_calls_own_however_alike_the_last_ones_were() -> None:
    """What is remembered of a call's headers is another's only where all of them are the same."""

    async def run() -> None:
        service = FakeService()
        fast = transport(service)
        packed = b"\1" + grpc_framing.frame(gzip.compress(b"x"))[1:]
        bulk, gzipped = (b"horngate-priority", b"bulk"), (b"grpc-encoding", b"gzip")
        for headers, body in (
            ([], b"x"), ([], b"x"), ([bulk], b"x"), ([(b"grpc-timeout", b"1H")], b"x"), ([], b"x"), ([gzipped], packed)
        ):  # fmt: skip
            caller = FakeCaller(body if body is packed else grpc_framing.frame(body), headers=headers)
            await turn(fast, caller)
            await until(lambda: bool(service.batches))
            [[call]] = service.batches
            service.batches.clear()
            assert call.message == b"x"
            assert call.bulk is (bulk in headers)
            assert (call.deadline < inf) is any(name == b"grpc-timeout" for name, _ in headers)
        wrong = FakeCaller(packed)
        await turn(fast, wrong)
        await until(lambda: bool(wrong.sent))
        assert wrong.status() == "3"

    asyncio.run(run())


def test_a_failure_that_nobody_foresaw_is_told_to_its_caller() -> None:
    """Whether headers or the body bring it to light; pyvoy would hear of it nowhere else."""

    async def run() -> None:
        fast = transport(FakeService())
        early, late = FakeCaller(grpc_framing.frame(b"x")), FakeCaller(grpc_framing.frame(b"x"))
        early.scope["headers"] = None
        late.receive = broken  # type: ignore[method-assign]
        await turn(fast, early, late)
        assert (early.status(), late.status()) == ("13", "13")

    async def broken() -> dict[str, Any]:
        raise ZeroDivisionError

    asyncio.run(run())


def test_a_caller_that_goes_while_it_waits_is_noticed_and_one_that_stays_is_asked_ever_less() -> None:
    """The number of questions grows with the logarithm of the wait."""

    async def run() -> None:
        service = FakeService()
        fast = transport(service)
        gone, stays = FakeCaller(grpc_framing.frame(b"x")), FakeCaller(grpc_framing.frame(b"y"))
        await turn(fast, gone, stays)
        gone.gone = True
        first, second = (call.reply for call in service.batches[0])
        async with asyncio.timeout(10):
            await stays.asked_often.wait()
        assert first.done()
        assert not second.done()
        assert gone.asked == 1

    asyncio.run(run())


def test_a_caller_that_goes_is_noticed_before_one_that_has_waited_long_is_asked_again() -> None:
    """Who came a moment ago is asked first, whenever the next question to others is due."""

    async def run() -> None:
        service = FakeService()
        fast = transport(service)
        patient = FakeCaller(grpc_framing.frame(b"x"))
        await turn(fast, patient)
        async with asyncio.timeout(10):
            await patient.asked_often.wait()
            asked = patient.asked
            gone = FakeCaller(grpc_framing.frame(b"y"))
            await turn(fast, gone)
            gone.gone = True
            [reply] = (call.reply for call in service.batches[1])
            while not reply.done():  # noqa: ASYNC110 - the transport has no event for this
                await asyncio.sleep(0.001)
        assert patient.asked == asked

    asyncio.run(run())


def test_a_drain_ends_streams_and_lets_long_answers_leave_whole() -> None:
    """Stopping cancels what has no end of its own, and nothing that was accepted and computed."""

    async def run() -> None:
        service = FakeService()
        fast = transport(service)
        caller = FakeCaller(grpc_framing.frame(b"x"))
        await turn(fast, caller)
        answer = bytes(3 * PIECE_BYTES)
        fast.deliver([(service.batches[0][0].reply, answer)])
        await asyncio.sleep(0)
        fast._open_streams.end()
        async with asyncio.timeout(10):
            await caller.ended.wait()
        assert caller.body() == grpc_framing.frame(answer)
        assert caller.status() == "0"

    asyncio.run(run())


def test_a_stream_that_fails_ends_with_a_status() -> None:
    """Whatever a method raises, its caller is told, once, that it is a bug."""

    async def fails(messages: AsyncIterator[bytes], _terms: object) -> AsyncIterator[bytes]:
        async for message in messages:
            yield message
            raise ZeroDivisionError("no")

    async def run() -> None:
        caller = FakeCaller(grpc_framing.frame(b"x"))
        inbox = asgi.Inbox(caller.receive, b"", 1 << 20, ByteBudget(1 << 20))
        await asgi.stream(fails, inbox, OPTIONS, caller.send, Streams())
        assert caller.status() == "13"
        assert caller.body() == grpc_framing.frame(b"x")

    asyncio.run(run())


def test_a_start_gives_up_at_its_deadline() -> None:
    """An Envoy that never listens is an error that says for how long it was awaited."""
    never = EnvoyAdmin(Path("none"))
    seconds = count(0.0, START_S / 3)
    fast = FastTransport(
        port=1, admin=never, max_message_bytes=1, gate=Gate(ByteBudget(1)), clock=lambda: next(seconds)
    )
    with pytest.raises(HorngateError, match="did not listen on port 1 within 30 s"):
        fast.start(FakeService())
    assert next(seconds) == pytest.approx(START_S * 4 / 3)


@pytest.mark.parametrize("path", [METHOD, "/s/unknown"])
def test_what_is_not_grpc_is_told_so_whatever_it_asks_for(path: str) -> None:
    """415, for methods that exist and for others: a browser, say, understands no gRPC status."""

    async def run() -> None:
        caller = FakeCaller(grpc_framing.frame(b"x"))
        caller.scope |= {"path": path, "headers": [(b"content-type", b"text/html")]}
        await turn(transport(FakeService()), caller)
        assert caller.sent[0]["status"] == 415

    asyncio.run(run())
