"""Which handler a call gets."""

from functools import partial

import grpc

from horngate_server.core.errors import InvalidRequest, NotImplementedHere
from horngate_server.core.methods import HEALTH_BYTES
from horngate_server.core.rpc import Service
from horngate_server.transports.access.gate import OPEN, Gate
from horngate_server.transports.call_collector import CallCollector
from horngate_server.transports.call_metadata import MetadataReader
from horngate_server.transports.grpcio import handlers
from horngate_server.transports.grpcio.call_context import enter
from horngate_server.transports.grpcio.handlers import Handler
from horngate_server.transports.open_streams import Streams
from horngate_server.transports.small_messages import SmallMessages, first

MAX_HEADERS = 256
"""Those of a call with more are let go of at once."""


class Router(grpc.GenericRpcHandler):
    """Maps full method names to handlers.

    Args:
        service: what is served.
        collector: takes the unary calls.
        gate: lets calls in.
        reader: reads their metadata.
        streams: the streaming calls under way.
    """

    def __init__(
        self, service: Service, collector: CallCollector, gate: Gate, reader: MetadataReader[str], streams: Streams
    ) -> None:
        self._handlers: dict[str, Handler] = {}
        small = SmallMessages(HEALTH_BYTES)
        for method in service.methods:
            entering, compute = partial(enter, method, gate, reader), partial(handlers.answer, method, collector)
            if method in OPEN:
                self._handlers[method] = handlers.asked_first(entering, small.first, compute)
            elif gate.wide_open:
                self._handlers[method] = handlers.taken_in(entering, compute)
            else:
                self._handlers[method] = handlers.asked_first(entering, first, compute)
        for method, stream in service.streams.items():
            receive = small.first if method in OPEN else None
            self._handlers[method] = handlers.streaming(stream, partial(enter, method, gate, reader), streams, receive)

    def service(self, details: grpc.HandlerCallDetails) -> Handler:
        """Return the handler of a call (gRPC asks for it)."""
        if len(details.invocation_metadata) > MAX_HEADERS:
            return handlers.refusing(InvalidRequest(f"more than {MAX_HEADERS} headers; expected fewer"))
        return self._handlers.get(details.method) or handlers.refusing(
            NotImplementedHere(f"no method {details.method}")
        )
