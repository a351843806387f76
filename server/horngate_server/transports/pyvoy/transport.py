"""The fast transport: gRPC as an ASGI app inside Envoy (pyvoy), whose HTTP/2 runs outside the GIL.

`envoy` starts the process; this is what answers in it. A call's coroutine only reads the request and leaves it in a
list; the loop hands the list to the service once a turn. Answers are sent from whichever thread has them, without a
future or a task: pyvoy's ``send`` takes the last part of a response from any thread.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from heapq import heappop, heappush
from itertools import count
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from horngate_server.core import request_context, rpc
from horngate_server.core.clock import Clock
from horngate_server.core.errors import HorngateError, InvalidRequest, NotImplementedHere, NotReady, RequestError
from horngate_server.core.methods import HEALTH_BYTES
from horngate_server.core.request_context import RequestContext
from horngate_server.core.rpc import Answer, Call, CallOptions, PendingReply, Service, Status, Stream, bulk
from horngate_server.protocols.grpc_status import status_of
from horngate_server.telemetry.sampling import NOTHING, Sampler
from horngate_server.transports.access.byte_budget import ByteBudget
from horngate_server.transports.access.gate import OPEN, Gate
from horngate_server.transports.http import unix_client
from horngate_server.transports.open_streams import Streams
from horngate_server.transports.pyvoy import asgi, grpc_framing
from horngate_server.transports.pyvoy.asgi import Disconnected, Event, Receive, Send

log = logging.getLogger(__name__)

PRIORITY = rpc.PRIORITY.encode()
REQUEST_ID = request_context.REQUEST_ID.encode()
TRACEPARENT = request_context.TRACEPARENT.encode()
ASK_AFTER_S = 0.01
"""A caller that has waited this long is asked whether it is still there, and again after three times as long."""
PIECE_BYTES = 64 * 1024
"""Longer answers are sent in pieces, each once the caller has room for it: one that does not read costs no more."""
START_S = 30.0
"""How long Envoy may take until it listens."""


class FastTransport:
    """gRPC over ASGI (`rpc.Transport`), and the ASGI app itself.

    Args:
        port: where Envoy listens.
        admin: the socket on which Envoy tells how it is.
        max_message_bytes: larger messages are refused, as they came or expanded.
        gate: let calls in, and say where their bytes are counted.
        clock: monotonic seconds.
        sampler: say which calls are told about.
    """

    name = "fast"

    def __init__(
        self, *, port: int, admin: Path, max_message_bytes: int, gate: Gate, clock: Clock, sampler: Sampler = NOTHING
    ) -> None:
        self._port = port
        self._admin = admin
        self._max_message_bytes = max_message_bytes
        self._max_bytes = dict.fromkeys(OPEN, min(HEALTH_BYTES, max_message_bytes))
        self._gate = gate
        self._sampler = sampler
        self._clock = clock
        self._service: Service | None = None
        self._methods: frozenset[str] = frozenset()
        self._streams: Mapping[str, Stream] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._arrived: list[Call] = []
        self._waiting: deque[tuple[float, float, Sequence[_Reply]]] = deque()
        self._waiting_longer: list[tuple[float, int, float, Sequence[_Reply]]] = []
        self._numbers = count()
        self._next_asking = inf
        self._tasks: set[asyncio.Task[None]] = set()
        self._under_way = Streams()
        self._sending: set[asyncio.Task[None]] = set()
        self._stopping = False
        self.wanted = threading.Event()

    def start(self, service: Service) -> int:
        """Let Envoy listen, and wait until it does (`Transport.start`)."""
        self.wanted.set()
        self._methods, self._streams = service.methods, service.streams
        self._service = service
        ends = self._clock() + START_S
        pause = threading.Event()
        while self._ask_envoy("/ready") != "LIVE\n":
            if self._clock() > ends:
                raise HorngateError(f"Envoy did not listen on port {self._port} within {START_S:g} s")
            pause.wait(0.005)  # Envoy has no event for this
        return self._port

    def deliver(self, answers: Sequence[Answer]) -> None:
        """Send answers (`Transport.deliver`)."""
        freed = 0
        shared = self._gate.memory
        for reply, answer in answers:
            if isinstance(reply, PendingReply):
                reply.give(answer)
                continue
            assert isinstance(reply, _Reply)
            reply.answered = True
            send = reply.send
            if isinstance(answer, Status):
                asgi.send_status(send, answer)
            elif len(answer) <= PIECE_BYTES:
                send(asgi.START)
                send({"type": "http.response.body", "body": grpc_framing.frame(answer)})
                send(asgi.OK)
            else:
                assert self._loop
                self._loop.call_soon_threadsafe(self._send_slowly, reply, answer)
                continue
            if reply.memory is shared:
                freed += reply.bytes
            else:
                reply.memory.give(reply.bytes)
        shared.give(freed)

    def drain(self) -> None:
        """Stop listening; a connection's GOAWAY goes with its next answer (`Transport.drain`)."""
        for query in ("?graceful&skip_exit", ""):
            self._ask_envoy(f"/drain_listeners{query}", method="POST")

    def stop(self, grace_s: float) -> bool:
        """End the streams, and wait until the answers have left (`Transport.stop`); the process must end then."""
        if self._loop is None:
            return True
        self._loop.call_soon_threadsafe(self._under_way.end)
        ends = self._clock() + grace_s
        pause = threading.Event()
        while self._unanswered():
            if self._clock() >= ends:
                return False
            pause.wait(0.005)  # Envoy has no event for this either
        return True

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        """Take one call (ASGI); return before it is answered."""
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        try:
            call = await self._call(scope, receive, send)
        except RequestError as error:
            asgi.send_status(send, status_of(error))
            return
        except Disconnected:
            return
        if call is not None:
            if not self._arrived:
                self._loop = asyncio.get_running_loop()
                self._loop.call_soon(self._hand_over)
            self._arrived.append(call)

    # --- private --------------------------------------------------------------------------------------

    async def _call(self, scope: Event, receive: Receive, send: Send) -> Call | None:
        """Read a unary call; None where it is no such thing and has been taken care of."""
        method = scope["path"]
        headers = dict(scope["headers"])
        content_type = headers.get(b"content-type", b"")
        encoding = headers.get(b"grpc-encoding", b"")
        max_bytes = self._max_bytes.get(method, self._max_message_bytes)
        gate = self._gate
        memory = gate.memory
        if not gate.wide_open:
            memory = gate.enter(method, headers.get(b"authorization", b""), scope["client"][0])
        if method not in self._methods or not grpc_framing.is_grpc(content_type):
            self._other(scope, headers, asgi.Inbox(receive, encoding, max_bytes, memory), memory, send)
            return None
        deadline, stands_back = self._options(headers)
        event = await receive()
        if event["type"] == "http.disconnect":
            raise Disconnected
        body: bytes | memoryview = event.get("body", b"")
        if event.get("more_body"):
            body = await _rest(event["body"], event, receive, memory, max_bytes)
        elif len(body) > max_bytes + grpc_framing.PREFIX_BYTES:
            raise grpc_framing.too_large(len(body) - grpc_framing.PREFIX_BYTES, max_bytes)
        message, compressed = grpc_framing.unframe(body)
        if compressed:
            message = await _expanded(message, encoding, memory, max_bytes)
        origin = None
        if self._sampler.wanted:
            origin = self._origin(scope, headers, memory)
        memory.take(len(message))
        return Call(method, message, deadline, _Reply(receive, send, memory, len(message)), stands_back, origin)

    def _hand_over(self) -> None:
        """Give the service what has come in this turn of the loop."""
        calls, self._arrived = self._arrived, []
        assert self._service
        self._service.accept(calls)
        now = self._clock()
        self._waiting.append((now + ASK_AFTER_S, now, [call.reply for call in calls]))  # type: ignore[misc]
        if now + ASK_AFTER_S < self._next_asking:
            self._ask_at(now + ASK_AFTER_S, now)

    def _ask_at(self, due: float, now: float) -> None:
        """Come back then; an earlier appointment takes the place of a later one, which finds nobody due."""
        assert self._loop
        self._next_asking = due
        self._loop.call_later(max(0.0, due - now), self._ask_callers)

    def _ask_callers(self) -> None:
        """Find out which of those who have waited long have gone.

        pyvoy's ``receive`` tells of a disconnection only when it is called after it.
        """
        now = self._clock()
        if now < self._next_asking:
            return
        fresh, longer = self._waiting, self._waiting_longer
        due: list[tuple[float, Sequence[_Reply]]] = []
        while fresh and fresh[0][0] <= now:
            due.append(fresh.popleft()[1:])
        while longer and longer[0][0] <= now:
            due.append(heappop(longer)[2:])
        for arrived, replies in due:
            left = [reply for reply in replies if not reply.answered and not reply.gone]
            for reply in left:
                self._spawn(reply.ask())
            if left:
                heappush(longer, (now + 2 * (now - arrived), next(self._numbers), arrived, left))
        self._next_asking = inf
        if fresh or longer:
            self._ask_at(min(fresh[0][0] if fresh else inf, longer[0][0] if longer else inf), now)

    def _options(self, headers: Mapping[bytes, bytes]) -> tuple[float, bool]:
        """Read a call's deadline, and whether it stands back."""
        priority = headers.get(PRIORITY)
        timeout = headers.get(b"grpc-timeout")
        deadline = self._clock() + grpc_framing.timeout(timeout) if timeout else inf
        return deadline, priority is not None and bulk(priority)

    def _origin(self, scope: Event, headers: Mapping[bytes, bytes], memory: ByteBudget) -> RequestContext | None:
        ids = headers.get(REQUEST_ID, b""), headers.get(TRACEPARENT, b"")
        return self._sampler.origin(memory.name or scope["client"][0], *ids)

    def _other(
        self, scope: Event, headers: Mapping[bytes, bytes], inbox: asgi.Inbox, memory: ByteBudget, send: Send
    ) -> None:
        """Take what is no unary call: a stream, or nothing that is known here."""
        method = scope["path"]
        if not grpc_framing.is_grpc(headers.get(b"content-type", b"")):
            asgi.send_unsupported(send)
        elif self._service is None:
            raise NotReady("the server is starting")
        elif method in self._streams:
            self._loop = asyncio.get_running_loop()
            options = CallOptions(*self._options(headers), lambda: self._origin(scope, headers, memory))
            self._spawn(asgi.stream(self._streams[method], inbox, options, send, self._under_way))
        else:
            raise NotImplementedHere(f"no method {method}")

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _send_slowly(self, reply: "_Reply", answer: bytes) -> None:
        """Send a long answer; a drain waits for it, where streams are ended."""
        task = asyncio.get_running_loop().create_task(self._pieces(reply, answer))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _pieces(self, reply: "_Reply", answer: bytes) -> None:
        """Send a long answer piece by piece, as its caller reads."""
        reply.memory.give(reply.bytes)
        reply.memory.take(len(answer), force=True)
        try:
            body = grpc_framing.frame(answer)
            with suppress(OSError):  # the caller has gone
                await reply.send(asgi.START)
                for start in range(0, len(body), PIECE_BYTES):
                    piece = {"type": "http.response.body", "body": body[start : start + PIECE_BYTES], "more_body": True}
                    await reply.send(piece)
                await reply.send({"type": "http.response.body"})
                await reply.send(asgi.OK)
        finally:
            reply.memory.give(len(answer))

    def _ask_envoy(self, url: str, method: str = "GET") -> str:
        """Ask Envoy's admin interface; empty while it does not answer."""
        try:
            return unix_client.ask(self._admin, url, method=method).body.decode()
        except OSError:
            return ""

    def _unanswered(self) -> bool:
        """Whether Envoy still has calls whose answers have not left."""
        stats = self._ask_envoy("/stats?filter=^http.ingress_http.downstream_rq_active$")
        return bool(stats) and stats.strip() != "http.ingress_http.downstream_rq_active: 0"


async def _rest(body: bytes, event: Event, receive: Receive, memory: ByteBudget, max_bytes: int) -> bytes | memoryview:
    """Receive what is left of a body, bounded: its own size by its prefix, that of all bodies by the memory.

    Each piece is copied into its place as it comes: putting megabytes together at the end would hold up everyone.
    """
    while len(body) < grpc_framing.PREFIX_BYTES and event.get("more_body"):
        event = await _next(receive)
        body += event.get("body", b"")
    if not event.get("more_body"):
        return body
    length = grpc_framing.length(body)
    if length > max_bytes:
        raise grpc_framing.too_large(length, max_bytes)
    size = grpc_framing.PREFIX_BYTES + length
    memory.take(size)  # all that is announced: it is allocated now
    try:
        whole = np.empty(size, np.uint8).data
        received = 0
        while True:
            if received + len(body) > size:
                raise InvalidRequest(f"more bytes than the {length} that the frame's prefix says")
            whole[received : received + len(body)] = body
            received += len(body)
            if not event.get("more_body"):
                return whole[:received]
            event = await _next(receive)
            body = event.get("body", b"")
    finally:
        memory.give(size)


async def _expanded(message: bytes | memoryview, encoding: bytes, memory: ByteBudget, max_bytes: int) -> bytes:
    """Decompress a message, which counts meanwhile as it came; off the loop, a few at a time."""
    memory.take(len(message))
    try:
        return await asyncio.to_thread(grpc_framing.expand, message, encoding, max_bytes)
    finally:
        memory.give(len(message))


async def _next(receive: Receive) -> Event:
    """Receive the next piece of a body."""
    event = await receive()
    if event["type"] == "http.disconnect":
        raise Disconnected
    return event


class _Reply:
    """Where an answer goes (`rpc.Reply`)."""

    __slots__ = ("_receive", "answered", "bytes", "gone", "memory", "send")

    def __init__(self, receive: Receive, send: Send, memory: ByteBudget, size: int) -> None:
        self._receive = receive
        self.send = send
        self.memory = memory
        self.bytes = size
        self.answered = False
        self.gone = False

    def done(self) -> bool:
        return self.gone

    async def ask(self) -> None:
        """Look whether the caller has gone."""
        event = await self._receive()
        self.gone = event["type"] == "http.disconnect"
