"""What the headers of a call say. Callers repeat theirs: they are read again only where they differ from the last."""

from collections.abc import Mapping
from typing import NamedTuple

from horngate_server.core.methods import HEALTH_BYTES
from horngate_server.transports.access.gate import OPEN
from horngate_server.transports.call_metadata import MetadataReader
from horngate_server.transports.pyvoy import grpc_framing
from horngate_server.transports.pyvoy.asgi import NotGrpc


class Head(NamedTuple):
    """A call's method and headers.

    Attributes:
        method: its full name.
        raw: the headers as they came.
        metadata: by name.
        encoding: the value of ``grpc-encoding``; empty where there is none.
        max_bytes: what a message of it may have, as it came or expanded.
        timeout_s: how long the caller waits; None for ever.
        bulk: its priority (`rpc.Call`).
    """

    method: str
    raw: grpc_framing.Headers
    metadata: Mapping[bytes, bytes]
    encoding: bytes
    max_bytes: int
    timeout_s: float | None
    bulk: bool


class HeadReader:
    """Reads headers, and remembers the last of each method.

    Args:
        metadata: reads what is not gRPC's own.
        max_message_bytes: what a message may have, where the method allows no less.
    """

    def __init__(self, metadata: MetadataReader[bytes], max_message_bytes: int) -> None:
        self._metadata = metadata
        self._max_message_bytes = max_message_bytes
        self._max_bytes = dict.fromkeys(OPEN, min(HEALTH_BYTES, max_message_bytes))
        self._last: dict[str, Head] = {}

    def of(self, method: str, raw: grpc_framing.Headers) -> Head:
        """Return the head of a call to one of our methods, whose number bounds what is remembered.

        Raises:
            NotGrpc: it is none.
            InvalidRequest: its timeout or its priority is none.
        """
        last = self._last.get(method)
        if last is None or last.raw != raw:
            last = self._last[method] = self.read(method, raw)
        return last

    def read(self, method: str, raw: grpc_framing.Headers) -> Head:
        """Return the head of any call; raises the same."""
        metadata = dict(raw)
        if not grpc_framing.is_grpc(metadata.get(b"content-type", b"")):
            raise NotGrpc
        timeout = metadata.get(b"grpc-timeout")
        return Head(
            method,
            raw,
            metadata,
            metadata.get(b"grpc-encoding", b""),
            self._max_bytes.get(method, self._max_message_bytes),
            grpc_framing.timeout(timeout) if timeout else None,
            self._metadata.bulk(metadata),
        )
