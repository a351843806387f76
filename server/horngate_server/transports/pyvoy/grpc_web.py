"""gRPC-Web beside gRPC: Envoy makes gRPC of it, on a listener of its own; pyvoy gives each listener an asyncio loop."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from horngate_server.core.methods import STREAM_INFER
from horngate_server.core.rpc import Answer, Call, OwnReply, Reply, Service, Stream
from horngate_server.services.stream_inference import model_stream_infer
from horngate_server.transports.call_collector import CallCollector
from horngate_server.transports.pyvoy.transport import FastTransport


class WithGrpcWeb:
    """Both listeners as one (`rpc.Transport`).

    Args:
        grpc: for callers by gRPC; its answers take the same way as without the other.
        web: for callers by gRPC-Web.
    """

    name = "fast"
    may_compute = True

    def __init__(self, grpc: FastTransport, web: FastTransport) -> None:
        self._grpc = grpc
        self._web = web

    def start(self, service: Service) -> int:
        """Let both listen, and return gRPC's port (`Transport.start`)."""
        port = self._grpc.start(service)
        self._web.start(_Aside(service, self._web))
        return port

    def deliver(self, answers: Sequence[Answer]) -> None:
        """Send answers (`Transport.deliver`)."""
        self._grpc.deliver(answers)

    def drain(self) -> None:
        """Stop listening on both: Envoy knows them all (`Transport.drain`)."""
        self._grpc.drain()

    def stop(self, grace_s: float) -> bool:
        """End both at once: each waits until Envoy has no call left, of either (`Transport.stop`)."""
        with ThreadPoolExecutor(2, "stop") as threads:
            return all(threads.map(lambda each: each.stop(grace_s), (self._grpc, self._web)))


# --- private ------------------------------------------------------------------------------------------


class _Aside:
    """A service as a second transport sees it (`rpc.Service`): answers find the way back to that one."""

    def __init__(self, service: Service, transport: FastTransport) -> None:
        self._service = service
        self._transport = transport
        own = {STREAM_INFER: model_stream_infer(CallCollector(service.accept).take)}  # a collector is of one loop
        self.streams: Mapping[str, Stream] = {**service.streams, **own}

    @property
    def methods(self) -> frozenset[str]:
        return self._service.methods

    def accept(self, calls: Sequence[Call]) -> None:
        self._service.accept([call._replace(reply=_Back(call.reply, self._transport)) for call in calls])


class _Back(OwnReply):
    """A reply that the second transport sends."""

    __slots__ = ("_transport", "reply")

    def __init__(self, reply: Reply, transport: FastTransport) -> None:
        self.reply = reply
        self._transport = transport

    def done(self) -> bool:
        return self.reply.done()

    @property
    def way(self) -> FastTransport:
        return self._transport

    def deliver(self, answers: Sequence[Answer]) -> None:
        self._transport.deliver([(reply.reply, answer) for reply, answer in answers if isinstance(reply, _Back)])
