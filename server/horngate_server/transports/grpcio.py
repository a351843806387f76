"""The reference transport: grpcio's asyncio server on a thread of its own. Runs wherever grpcio does."""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from math import inf
from typing import Any, TypeAlias, TypeVar
from urllib.parse import unquote

import grpc

from horngate_server.core.clock import Clock
from horngate_server.core.errors import InvalidRequest, NotImplementedHere, RequestError, SettingsError
from horngate_server.core.methods import HEALTH_BYTES
from horngate_server.core.request_context import REQUEST_ID, TRACEPARENT, RequestContext
from horngate_server.core.rpc import PRIORITY, Answer, Call, CallOptions, PendingReply, Service, Status, Stream, bulk
from horngate_server.core.settings import Tls
from horngate_server.protocols.grpc_status import status_of
from horngate_server.telemetry.sampling import NOTHING, Sampler
from horngate_server.transports.access.byte_budget import ByteBudget
from horngate_server.transports.access.gate import OPEN, Gate
from horngate_server.transports.access.tls import Certificates, Pems, read
from horngate_server.transports.call_collector import CallCollector
from horngate_server.transports.open_streams import Streams
from horngate_server.transports.small_messages import SmallMessages, first

_T = TypeVar("_T")
PENDING_CALLS = 4096
"""Calls that gRPC holds until Python takes them; it ends further ones with CANCELLED. Beyond its own 1,000 it would end
some, at random."""
STREAMS_PER_CONNECTION = 2048
"""Calls of a connection, cancelled ones included, until Python has seen that they are; gRPC refuses further ones. So a
caller may have far more than it has in flight."""
SETTINGS_MS = 1000
"""How long a caller may take to say that it has read our limits. gRPC knows no limit for headers until then."""
MAX_HEADERS = 256
"""Those of a call with more are let go of at once."""
# A caller that went before its answer is no error, and certainly no traceback.
logging.getLogger("grpc._cython.cygrpc").addFilter(lambda record: "ExecuteBatchError" not in record.getMessage())
LOOP_S = 0.5
"""How long the loop may take to do what it is told; longer, and a model has it that does not return."""
HANDSHAKE_MS = 10_000
"""How long a new connection may take until it speaks TLS and HTTP/2."""
IDLE_MS = 300_000
"""A connection without calls for this long is closed; clients open it again when they need it."""
KEEPALIVE_MS = 60_000
"""A connection from which nothing came for this long is asked whether it is alive, and closed after 20 s more."""
CALLERS_KEEPALIVE_MS = 10_000
"""How often idle callers may ask whether we are alive; gRPC would end their connections below its own 5 minutes."""
SILENCE_S = 0.02
"""How long no call must have come before callers are told to go elsewhere; they have that long again to hear of it."""
HELD_S = 0.25
"""How long new calls are held back at most for that silence."""
_Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
_Enter: TypeAlias = "Callable[[_Context], tuple[ByteBudget, CallOptions]]"
_Compute: TypeAlias = "Callable[[bytes, ByteBudget, CallOptions, _Context], Awaitable[bytes]]"


class GrpcioTransport:
    """A grpc.aio server (`rpc.Transport`).

    Args:
        host: the address to listen on.
        port: 0 picks a free one.
        max_message_bytes: larger messages are refused by gRPC itself, with RESOURCE_EXHAUSTED.
        shared: other processes listen on the port too.
        tls: the files for TLS; None for none.
        gate: let calls in, and say where their bytes are counted.
        max_connections: further ones are closed.
        max_connection_age_s: after this, give or take 10 %, callers are told to open another; 0: never.
        clock: the monotonic clock that deadlines are turned to.
        sampler: say which calls are told about.
    """

    name = "grpcio"

    def __init__(
        self,
        *,
        host: str,
        port: int,
        max_message_bytes: int,
        gate: Gate,
        max_connections: int,
        clock: Clock,
        sampler: Sampler = NOTHING,
        max_connection_age_s: float = 0.0,
        shared: bool = False,
        tls: Tls | None = None,
    ) -> None:
        self._address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._options = [
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_allowed_incoming_connections", max_connections),
            ("grpc.server.max_pending_requests", PENDING_CALLS),
            ("grpc.server.max_pending_requests_hard_limit", PENDING_CALLS),
            ("grpc.max_concurrent_streams", STREAMS_PER_CONNECTION),
            ("grpc.http2.settings_timeout", SETTINGS_MS),
            ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
            ("grpc.max_connection_idle_ms", IDLE_MS),
            ("grpc.keepalive_time_ms", KEEPALIVE_MS),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", CALLERS_KEEPALIVE_MS),
            ("grpc.so_reuseport", int(shared)),  # two servers on one port by mistake must be an error
        ]
        if max_connection_age_s:
            self._options.append(("grpc.max_connection_age_ms", round(1000 * max_connection_age_s)))
        self._tls = tls
        self._gate = gate
        self._sampler = sampler
        self._clock = clock
        self._streams = Streams()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="grpcio", daemon=True)

    def start(self, service: Service) -> int:
        """Listen (`Transport.start`)."""
        self._thread.start()
        try:
            return self._call(self._start(service))
        except BaseException:
            self._close()
            raise

    def deliver(self, answers: Sequence[Answer]) -> None:
        """Set the futures of a batch, crossing to the loop's thread once (`Transport.deliver`)."""
        if threading.current_thread() is self._thread:
            _hand_out(answers)
        else:
            self._loop.call_soon_threadsafe(_hand_out, answers)

    def drain(self) -> None:
        """Stop listening, and send GOAWAY on every connection (`Transport.drain`).

        gRPC cancels what callers send until they have read it. So new calls wait first, and with them their callers.
        """
        with suppress(TimeoutError):  # a model computes on the loop's thread, and does not return
            self._call(self._drain(), HELD_S + 2 * SILENCE_S + LOOP_S)

    def stop(self, grace_s: float) -> bool:
        """Close (`Transport.stop`)."""
        if self._loop.is_closed():
            return True
        began = self._clock()
        try:
            self._call(self._end(grace_s), grace_s + LOOP_S)
        except TimeoutError:  # a model computes on the loop's thread, and does not return
            return False
        self._close()
        return self._clock() - began < grace_s

    # --- private --------------------------------------------------------------------------------------

    async def _start(self, service: Service) -> int:
        self._server = grpc.aio.server(options=self._options)
        self._collector = CallCollector(service.accept)
        router = _Router(service, self._collector, self._gate, self._clock, self._sampler, self._streams)
        self._server.add_generic_rpc_handlers((router,))
        try:
            if self._tls is None:
                port = self._server.add_insecure_port(self._address)
            else:
                port = self._server.add_secure_port(self._address, _credentials(self._tls, self._clock))
        except RuntimeError as error:
            raise SettingsError(
                f"--host, --grpc-port: cannot listen on {self._address}; is another server there?"
            ) from error
        await self._server.start()
        return port

    async def _end(self, grace_s: float) -> None:
        self._streams.end()  # they would last as long as their callers listen
        await self._server.stop(grace_s)

    async def _drain(self) -> None:
        with self._collector.holding():
            await self._collector.silence(SILENCE_S, HELD_S)
            self._draining = asyncio.create_task(self._server.stop(inf))
            await asyncio.sleep(SILENCE_S)  # until callers have read it

    def _call(self, coroutine: Awaitable[_T], timeout_s: float | None = None) -> _T:
        async def run() -> _T:
            return await coroutine

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(timeout_s)

    def _close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _Router(grpc.GenericRpcHandler):
    """Maps full method names to handlers of raw bytes."""

    def __init__(  # noqa: PLR0917 - what a call needs
        self, service: Service, collector: CallCollector, gate: Gate, clock: Clock, sampler: Sampler, streams: Streams
    ) -> None:
        small = SmallMessages(HEALTH_BYTES)
        self._handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {}
        for method in service.methods:
            enter = partial(_enter, method, gate=gate, clock=clock, sampler=sampler)
            answer = partial(_answer, method, collector)
            handler: grpc.RpcMethodHandler[bytes, bytes]
            if method in OPEN:
                handler = _stream_stream(_asked_first(enter, small.first, answer))
            elif gate.wide_open:  # nobody is refused, and gRPC is faster where it takes the message in by itself
                handler = grpc.unary_unary_rpc_method_handler(_unary(enter, answer))
            else:
                handler = _stream_stream(_asked_first(enter, first, answer))
            self._handlers[method] = handler
        for method, stream in service.streams.items():
            streaming = _streaming(method, stream, gate, clock, sampler, streams)
            self._handlers[method] = _stream_stream(streaming)
        for method in OPEN & service.streams.keys():
            streaming = _streaming(method, service.streams[method], gate, clock, sampler, streams)
            self._handlers[method] = _stream_stream(_small_streaming(streaming, small))

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
        if len(details.invocation_metadata) > MAX_HEADERS:
            return _refusal(InvalidRequest(f"more than {MAX_HEADERS} headers; expected fewer"))
        return self._handlers.get(details.method) or _refusal(NotImplementedHere(f"no method {details.method}"))


def _stream_stream(
    handle: Callable[[AsyncIterator[bytes], _Context], AsyncIterator[bytes]],
) -> "grpc.RpcMethodHandler[bytes, bytes]":
    """Let a handler have messages of which nobody keeps the last one.

    gRPC's own iterator does until it is asked for the next one; gRPC keeps the exception that ends a call, and with it
    the handler's frame and all that it has, until that is collected.
    """

    async def received(context: _Context) -> AsyncIterator[bytes]:
        while True:
            message: list[Any] = [await context.read()]
            if message[0] is grpc.aio.EOF:
                return
            yield message.pop()

    async def handler(_messages: AsyncIterator[bytes], context: _Context) -> AsyncIterator[bytes]:
        async for answer in handle(received(context), context):
            yield answer

    return grpc.stream_stream_rpc_method_handler(handler)


def _unary(enter: _Enter, answer: _Compute) -> Callable[[bytes, _Context], Awaitable[bytes]]:
    """Return what answers a message that gRPC has taken in."""

    async def handle(message: bytes, context: _Context) -> bytes:
        try:
            memory, options = enter(context)
        except RequestError as error:
            refused = status_of(error)
        else:
            answered = answer(message, memory, options, context)
            del message  # gRPC keeps the exception that ends a call, and with it this frame, until it is collected
            return await answered
        del message
        await _abort(context, refused)
        raise AssertionError  # it was aborted

    return handle


def _asked_first(
    enter: _Enter, receive: Callable[[AsyncIterator[bytes]], Awaitable[bytes]], answer: _Compute
) -> Callable[[AsyncIterator[bytes], _Context], AsyncIterator[bytes]]:
    """Return what asks who calls, and only then takes the message in.

    Of a call that is refused, gRPC holds no more than HTTP/2's window.
    """

    async def handle(messages: AsyncIterator[bytes], context: _Context) -> AsyncIterator[bytes]:
        refused = None
        try:
            memory, options = enter(context)
            answered = answer(await receive(messages), memory, options, context)
        except RequestError as error:
            refused = status_of(error)
        if refused is not None:  # now that the error and what it has seen are gone
            await _abort(context, refused)
        yield await answered

    return handle


async def _answer(  # noqa: PLR0917 - half of it is bound once a method
    method: str, collector: CallCollector, message: bytes, memory: ByteBudget, options: CallOptions, context: _Context
) -> bytes:
    """Answer one message: a future is its reply; gRPC cancels it when the caller goes."""
    size = len(message)
    future: asyncio.Future[bytes | Status] = asyncio.get_running_loop().create_future()
    refused = None
    try:
        memory.take(size)
    except RequestError as error:
        refused = status_of(error)
    if refused is not None:
        del message
        await _abort(context, refused)
    try:
        collector.take(Call(method, message, options.deadline, future, options.bulk, options.origin()))
        del message
        answer = await future
    finally:
        memory.give(size)
    if isinstance(answer, Status):
        await _abort(context, answer)
    assert isinstance(answer, bytes)
    return answer


def _streaming(  # noqa: PLR0917 - what a call needs
    method: str, stream: Stream, gate: Gate, clock: Clock, sampler: Sampler, streams: Streams
) -> Callable[[AsyncIterator[bytes], _Context], AsyncIterator[bytes]]:
    """Wrap one streaming method; domain errors become statuses.

    A message counts as being in memory until as many answers were given, or the stream has ended.
    """

    async def handle(messages: AsyncIterator[bytes], context: _Context) -> AsyncIterator[bytes]:
        counted: deque[int] = deque()
        refused = None
        try:
            memory, options = _enter(method, context, gate=gate, clock=clock, sampler=sampler)
        except RequestError as error:
            await _abort(context, status_of(error))

        async def count() -> AsyncIterator[bytes]:
            async for message in messages:
                memory.take(len(message))
                counted.append(len(message))
                yield message

        try:
            with streams.one():
                async for message in stream(count(), options):
                    if counted:
                        memory.give(counted.popleft())
                    yield message
        except RequestError as error:
            refused = status_of(error)
        finally:
            for size in counted:
                memory.give(size)
        if refused is not None:  # as above
            await _abort(context, refused)

    return handle


def _small_streaming(
    streaming: Callable[[AsyncIterator[bytes], _Context], AsyncIterator[bytes]], small: SmallMessages
) -> Callable[[AsyncIterator[bytes], _Context], AsyncIterator[bytes]]:
    """Let a stream have its first message alone, if it is small: no further one is taken in."""

    async def only(messages: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        yield await small.first(messages)

    async def handle(messages: AsyncIterator[bytes], context: _Context) -> AsyncIterator[bytes]:
        async for answer in streaming(only(messages), context):
            yield answer

    return handle


def _enter(
    method: str, context: _Context, *, gate: Gate, clock: Clock, sampler: Sampler
) -> tuple[ByteBudget, CallOptions]:
    """Let a call in: where its bytes are counted, and what its metadata say."""
    metadata = dict(context.invocation_metadata() or ())
    memory = gate.enter(method, _bytes(metadata.get("authorization")), _peer(context))
    remaining: float | None = context.time_remaining()
    priority = metadata.get(PRIORITY)

    def origin() -> RequestContext | None:
        if not sampler.wanted:
            return None
        ids = _bytes(metadata.get(REQUEST_ID)), _bytes(metadata.get(TRACEPARENT))
        return sampler.origin(memory.name or _peer(context), *ids)

    deadline = inf if remaining is None else clock() + remaining
    return memory, CallOptions(deadline, priority is not None and bulk(priority), origin)


def _refusal(error: RequestError) -> "grpc.RpcMethodHandler[bytes, bytes]":
    """Return what refuses a call before its message comes."""

    async def handle(_messages: AsyncIterator[bytes], context: _Context) -> AsyncIterator[bytes]:
        await _abort(context, status_of(error))
        yield b""

    return grpc.stream_stream_rpc_method_handler(handle)


def _bytes(value: str | bytes | None) -> bytes:
    return value.encode() if isinstance(value, str) else value or b""


def _peer(context: _Context) -> str:
    """Return the caller's address: gRPC says ``ipv4:127.0.0.1:50123`` and ``ipv6:%5B::1%5D:50123``."""
    return unquote(context.peer()).partition(":")[2].rpartition(":")[0].strip("[]")


def _credentials(tls: Tls, clock: Clock) -> grpc.ServerCredentials:
    """Return credentials that change with the files; gRPC asks at every handshake."""
    certificates = Certificates(tls, clock)

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        pems = certificates.renewed()
        return _configuration(pems) if pems else None

    return grpc.dynamic_ssl_server_credentials(
        _configuration(read(tls)),
        fetch,  # type: ignore[arg-type]  # None, its documentation says, keeps what there is
        require_client_authentication=tls.client_ca is not None,
    )


def _configuration(pems: Pems) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(pems.key, pems.certificate)], root_certificates=pems.client_ca)


_CODES = {code.value[0]: code for code in grpc.StatusCode}


async def _abort(context: _Context, status: Status) -> None:
    await context.abort(_CODES[status.code], status.message, status.trailers)


def _hand_out(answers: Sequence[Answer]) -> None:
    for reply, answer in answers:
        if isinstance(reply, PendingReply):
            reply.give(answer)
            continue
        assert isinstance(reply, asyncio.Future)
        if not reply.done():
            reply.set_result(answer)
