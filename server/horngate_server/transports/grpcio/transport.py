"""The reference transport: grpcio's asyncio server on a thread of its own. Runs wherever grpcio does."""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from math import inf
from typing import TypeVar

import grpc

from horngate_server.core.clock import Clock
from horngate_server.core.errors import SettingsError
from horngate_server.core.rpc import Answer, Service
from horngate_server.core.settings import Tls
from horngate_server.telemetry.sampling import NOTHING, Sampler
from horngate_server.transports.access.gate import Gate
from horngate_server.transports.call_collector import CallCollector
from horngate_server.transports.call_metadata import MetadataReader
from horngate_server.transports.grpcio.credentials import server_credentials
from horngate_server.transports.grpcio.router import Router
from horngate_server.transports.grpcio.server_options import server_options
from horngate_server.transports.open_streams import Streams

_T = TypeVar("_T")
# A caller that went before its answer is no error, and certainly no traceback.
logging.getLogger("grpc._cython.cygrpc").addFilter(lambda record: "ExecuteBatchError" not in record.getMessage())
LOOP_S = 0.5
"""How long the loop may take to do what it is told; longer, and a model has it that does not return."""
SILENCE_S = 0.02
"""How long no call must have come before callers are told to go elsewhere; they have that long again to hear of it."""
HELD_S = 0.25
"""How long new calls are held back at most for that silence."""


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
    may_compute = False
    """gRPC gives Python one call in each turn of its loop. Where a batch is computed between two turns, no other has
    come by its end, and every batch has one request: 1,000 requests a second, where 2,700 are answered otherwise."""

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
        self._options = server_options(
            max_message_bytes=max_message_bytes,
            max_connections=max_connections,
            max_connection_age_s=max_connection_age_s,
            shared=shared,
        )
        self._tls = tls
        self._gate = gate
        self._clock = clock
        self._metadata = MetadataReader(str, clock, sampler)
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
        router = Router(service, self._collector, self._gate, self._metadata, self._streams)
        self._server.add_generic_rpc_handlers((router,))
        try:
            if self._tls is None:
                port = self._server.add_insecure_port(self._address)
            else:
                port = self._server.add_secure_port(self._address, server_credentials(self._tls, self._clock))
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


def _hand_out(answers: Sequence[Answer]) -> None:
    for reply, answer in answers:
        assert isinstance(reply, asyncio.Future)
        if not reply.done():
            reply.set_result(answer)
