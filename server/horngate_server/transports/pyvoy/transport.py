"""The fast transport: gRPC as an ASGI app inside Envoy (pyvoy), whose HTTP/2 runs outside the GIL.

`envoy` starts the process; this is what answers in it. A call is read in callbacks, without a task of its own unless
its body comes in pieces or compressed; the service gets all that came in two turns of the loop together. Answers are
sent in `answer_sending`; callers that wait long are polled in `caller_polling`.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from horngate_server.core.clock import Clock
from horngate_server.core.errors import HorngateError, NotImplementedHere, NotReady
from horngate_server.core.request_context import RequestContext
from horngate_server.core.rpc import Answer, Call, Service, Stream
from horngate_server.telemetry.sampling import NOTHING, Sampler
from horngate_server.transports.access.byte_budget import ByteBudget
from horngate_server.transports.access.gate import Gate
from horngate_server.transports.call_metadata import MetadataReader
from horngate_server.transports.open_streams import Streams
from horngate_server.transports.pyvoy import asgi, grpc_framing, request_body
from horngate_server.transports.pyvoy.answer_sending import AnswerSender
from horngate_server.transports.pyvoy.asgi import Event, Inbox, Receive, Send
from horngate_server.transports.pyvoy.background_tasks import TAKEN, BackgroundTasks, Taken, task_factory
from horngate_server.transports.pyvoy.call_head import Head, HeadReader
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
    may_compute = True
    """Envoy goes on taking calls in meanwhile; all that came are the next batch."""
    _asgi_single_callable = True  # pyvoy takes what returns no coroutine for an app of ASGI 2

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
        self._gate = gate
        self._clock = clock
        self._metadata = MetadataReader(str.encode, clock, sampler)
        self._heads = HeadReader(self._metadata, max_message_bytes)
        self._polling = CallerPolling(clock)
        self._answers = AnswerSender(gate.memory)
        self._service: Service | None = None
        self._methods: frozenset[str] = frozenset()
        self._streams: Mapping[str, Stream] = {}
        self._open_streams = Streams()
        self._tasks = BackgroundTasks()
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

    def __call__(self, scope: Event, receive: Receive, send: Send) -> Taken:
        """Take one call (ASGI); return before it is answered."""
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.set_task_factory(task_factory)
        try:
            self._begin(scope, receive, send)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller is told
            asgi.send_error(send, error)
        return TAKEN

    # --- private --------------------------------------------------------------------------------------

    def _begin(self, scope: Event, receive: Receive, send: Send) -> None:
        """Read a call's headers, and ask for its body."""
        method, headers, client = scope["path"], scope["headers"], scope["client"][0]
        gate = self._gate
        memory = gate.memory
        if not gate.wide_open:
            memory = gate.enter(method, dict(headers).get(b"authorization", b""), client)
            client = memory.name or client
        if method not in self._methods:
            self._stream(self._heads.read(method, headers), client, receive, memory, send)
            return
        head = self._heads.of(method, headers)
        deadline = self._metadata.deadline(head.timeout_s)
        origin = self._metadata.context(head.metadata, client) if self._metadata.samples else None
        came = partial(self._body_came, head, deadline, origin, Reply(receive, send, memory))
        asyncio.ensure_future(receive()).add_done_callback(came)

    def _body_came(
        self,
        head: Head,
        deadline: float,
        origin: RequestContext | None,
        reply: Reply,
        received: "asyncio.Future[Event]",
    ) -> None:
        """Take a call whose body is there whole and uncompressed; see to what there is left to do for another."""
        try:
            event = received.result()
            if not event.get("more_body"):
                if event["type"] == "http.disconnect":
                    return
                message, compressed = grpc_framing.unframe(event.get("body", b""), head.max_bytes)
                if not compressed:
                    self._take(head, deadline, origin, reply, message)
                    return
            self._tasks.spawn(self._await_body(head, deadline, origin, reply, event))
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller is told
            asgi.send_error(reply.send, error)

    async def _await_body(
        self, head: Head, deadline: float, origin: RequestContext | None, reply: Reply, event: Event
    ) -> None:
        """Take a call whose body comes in pieces, or compressed."""
        try:
            message = await request_body.message(event, reply, head.encoding, head.max_bytes)
            self._take(head, deadline, origin, reply, message)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller is told
            asgi.send_error(reply.send, error)

    def _take(
        self,
        head: Head,
        deadline: float,
        origin: RequestContext | None,
        reply: Reply,
        message: bytes | memoryview,
    ) -> None:
        """Put a call among those that the service gets next."""
        reply.memory.take(len(message))
        reply.size = len(message)
        if not self._arrived:
            asyncio.get_running_loop().call_soon(self._wait_a_turn)
        self._arrived.append(Call(head.method, message, deadline, reply, head.bulk, origin))

    def _wait_a_turn(self) -> None:
        """Let those bodies come, too, that Envoy was asked for a moment ago: the batch gets larger."""
        asyncio.get_running_loop().call_soon(self._hand_over)

    def _hand_over(self) -> None:
        """Give the service what has come in two turns of the loop (`CallCollector`, without the call per call)."""
        calls, self._arrived = self._arrived, []
        assert self._service
        self._service.accept(calls)
        self._polling.watch([call.reply for call in calls])  # type: ignore[misc]

    def _stream(self, head: Head, client: str, receive: Receive, memory: ByteBudget, send: Send) -> None:
        """Start a streaming call.

        Raises:
            NotReady: the methods are not known yet.
            NotImplementedHere: there is no such method.
        """
        if self._service is None:
            raise NotReady("the server is starting")
        method = self._streams.get(head.method)
        if method is None:
            raise NotImplementedHere(f"no method {head.method}")
        options = self._metadata.options(head.metadata, head.timeout_s, client)
        inbox = Inbox(receive, head.encoding, head.max_bytes, memory)
        self._tasks.spawn(asgi.stream(method, inbox, options, send, self._open_streams))

    def _within(self, seconds: float, condition: Callable[[], bool]) -> bool:
        """Wait until Envoy meets a condition; False if it did not in time."""
        ends = self._clock() + seconds
        pause = threading.Event()
        while not condition():
            if self._clock() >= ends:
                return False
            pause.wait(ASK_ENVOY_EVERY_S)
        return True
