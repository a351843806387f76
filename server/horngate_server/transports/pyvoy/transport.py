"""The fast transport: gRPC as an ASGI app inside Envoy (pyvoy), whose HTTP/2 runs outside the GIL.

`envoy` starts the process; this is what answers in it. A call's coroutine only reads the request and ends; the service
gets all that came in one turn of the loop together. Answers are sent in `answer_sending`; callers that wait long are
polled in `caller_polling`.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence

from horngate_server.core.clock import Clock
from horngate_server.core.errors import HorngateError, NotImplementedHere, NotReady, RequestError
from horngate_server.core.methods import HEALTH_BYTES
from horngate_server.core.rpc import Answer, Call, Service, Stream
from horngate_server.protocols.grpc_status import status_of
from horngate_server.telemetry.sampling import NOTHING, Sampler
from horngate_server.transports.access.byte_budget import ByteBudget
from horngate_server.transports.access.gate import OPEN, Gate
from horngate_server.transports.call_metadata import MetadataReader
from horngate_server.transports.open_streams import Streams
from horngate_server.transports.pyvoy import asgi, grpc_framing, request_body
from horngate_server.transports.pyvoy.answer_sending import AnswerSender
from horngate_server.transports.pyvoy.asgi import Disconnected, Event, Inbox, Receive, Send
from horngate_server.transports.pyvoy.background_tasks import BackgroundTasks
from horngate_server.transports.pyvoy.caller_polling import CallerPolling
from horngate_server.transports.pyvoy.envoy_admin import EnvoyAdmin
from horngate_server.transports.pyvoy.reply import Reply

START_S = 30.0
"""How long Envoy may take until it listens."""
ASK_ENVOY_EVERY_S = 0.005
"""How often Envoy is asked how it is, while that is waited for: it has no event for it."""


class FastTransport:
    """gRPC over ASGI (`rpc.Transport`), and the ASGI app itself.

    Args:
        port: where Envoy listens.
        admin: Envoy's admin interface.
        max_message_bytes: larger messages are refused, as they came or expanded.
        gate: let calls in, and say where their bytes are counted.
        clock: monotonic seconds.
        sampler: decides which calls are logged and traced.

    Attributes:
        wanted: set once Envoy may listen.
    """

    name = "fast"

    def __init__(
        self,
        *,
        port: int,
        admin: EnvoyAdmin,
        max_message_bytes: int,
        gate: Gate,
        clock: Clock,
        sampler: Sampler = NOTHING,
    ) -> None:
        self._port = port
        self._admin = admin
        self._max_message_bytes = max_message_bytes
        self._max_bytes = dict.fromkeys(OPEN, min(HEALTH_BYTES, max_message_bytes))
        self._gate = gate
        self._clock = clock
        self._metadata = MetadataReader(str.encode, clock, sampler)
        self._polling = CallerPolling(clock)
        self._answers = AnswerSender(gate.memory)
        self._service: Service | None = None
        self._methods: frozenset[str] = frozenset()
        self._streams: Mapping[str, Stream] = {}
        self._open_streams = Streams()
        self._stream_tasks = BackgroundTasks()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._arrived: list[Call] = []
        self.wanted = threading.Event()

    def start(self, service: Service) -> int:
        """Let Envoy listen, and wait until it does (`Transport.start`)."""
        self.wanted.set()
        self._methods, self._streams = service.methods, service.streams
        self._service = service
        if not self._within(START_S, self._admin.live):
            raise HorngateError(f"Envoy did not listen on port {self._port} within {START_S:g} s")
        return self._port

    def deliver(self, answers: Sequence[Answer]) -> None:
        """Send answers (`Transport.deliver`)."""
        self._answers.send(answers, self._loop)

    def drain(self) -> None:
        """Stop listening; a connection's GOAWAY goes with its next answer (`Transport.drain`)."""
        self._admin.drain()

    def stop(self, grace_s: float) -> bool:
        """End the streams, and wait until the answers have left (`Transport.stop`); the process must end then."""
        if self._loop is None:
            return True
        self._loop.call_soon_threadsafe(self._open_streams.end)
        return self._within(grace_s, lambda: not self._admin.unanswered())

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
        encoding = headers.get(b"grpc-encoding", b"")
        max_bytes = self._max_bytes.get(method, self._max_message_bytes)
        gate = self._gate
        memory = gate.memory
        if not gate.wide_open:
            memory = gate.enter(method, headers.get(b"authorization", b""), scope["client"][0])
        if not grpc_framing.is_grpc(headers.get(b"content-type", b"")):
            asgi.send_unsupported(send)
            return None
        if method not in self._methods:
            self._stream(scope, headers, Inbox(receive, encoding, max_bytes, memory), memory, send)
            return None
        timeout = headers.get(b"grpc-timeout")
        timeout_s = grpc_framing.timeout(timeout) if timeout else None
        deadline, bulk = self._metadata.scheduling(headers, timeout_s)
        event = await receive()
        if event["type"] == "http.disconnect":
            raise Disconnected
        body: bytes | memoryview = event.get("body", b"")
        if event.get("more_body"):
            body = await request_body.rest(event, receive, memory, max_bytes)
        elif len(body) > max_bytes + grpc_framing.PREFIX_BYTES:
            raise grpc_framing.too_large(len(body) - grpc_framing.PREFIX_BYTES, max_bytes)
        message, compressed = grpc_framing.unframe(body)
        if compressed:
            message = await request_body.expanded(message, encoding, memory, max_bytes)
        context = None
        if self._metadata.samples:
            context = self._metadata.context(headers, memory.name or scope["client"][0])
        memory.take(len(message))
        return Call(method, message, deadline, Reply(receive, send, memory, len(message)), bulk, context)

    def _hand_over(self) -> None:
        """Give the service what has come in one turn of the loop (`CallCollector`, without the call per call)."""
        calls, self._arrived = self._arrived, []
        assert self._service
        self._service.accept(calls)
        self._polling.watch([call.reply for call in calls])  # type: ignore[misc]

    def _stream(
        self, scope: Event, headers: Mapping[bytes, bytes], inbox: Inbox, memory: ByteBudget, send: Send
    ) -> None:
        """Start a streaming call.

        Raises:
            NotReady: the methods are not known yet.
            NotImplementedHere: there is no such method.
        """
        if self._service is None:
            raise NotReady("the server is starting")
        method = self._streams.get(scope["path"])
        if method is None:
            raise NotImplementedHere(f"no method {scope['path']}")
        self._loop = asyncio.get_running_loop()
        timeout = headers.get(b"grpc-timeout")
        timeout_s = grpc_framing.timeout(timeout) if timeout else None
        options = self._metadata.options(headers, timeout_s, memory.name or scope["client"][0])
        self._stream_tasks.spawn(asgi.stream(method, inbox, options, send, self._open_streams))

    def _within(self, seconds: float, condition: Callable[[], bool]) -> bool:
        """Wait until Envoy meets a condition; False if it did not in time."""
        ends = self._clock() + seconds
        pause = threading.Event()
        while not condition():
            if self._clock() >= ends:
                return False
            pause.wait(ASK_ENVOY_EVERY_S)
        return True
