"""A server's address as a caller sees it, and the ways to send there what no library would."""

import socket
import ssl
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc
from grpc import Channel

from support import hostile as frames
from support.http2 import Http2

INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
TIMEOUT_S = 10.0
"""Of a call, and of a connection that is silent."""
Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is, and what lets callers in.

    Attributes:
        grpc: host and port.
        http: host and port.
        ca: the authority of its certificate, as PEM; empty where it speaks no TLS.
        token: a caller's; empty where none is needed.
        admin: an administrator's.
    """

    grpc: str
    http: str
    ca: bytes = b""
    token: str = ""
    admin: str = ""

    @property
    def metadata(self) -> Metadata:
        """What lets a call in."""
        return _bearer(self.token)

    @property
    def authorization(self) -> str:
        """The header that lets an HTTP request in; empty where none is needed."""
        return f"authorization: Bearer {self.token}\r\n" if self.token else ""

    @property
    def tls(self) -> ssl.SSLContext | None:
        """For a socket that speaks HTTP/2."""
        if not self.ca:
            return None
        context = ssl.create_default_context(cadata=self.ca.decode())
        context.set_alpn_protocols(["h2"])
        return context

    def channel(self) -> Channel:
        """Open a connection of its own, with room for any message."""
        options = [
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if not self.ca:
            return grpc.insecure_channel(self.grpc, options)
        return grpc.secure_channel(self.grpc, grpc.ssl_channel_credentials(self.ca), options)

    def http2(self) -> Http2:
        """Open an HTTP/2 connection that sends what it is told."""
        return Http2(self.grpc, self.tls)

    def http1(self) -> socket.socket:
        """Open a connection to the HTTP port."""
        host, port = self.http.split(":")
        return socket.create_connection((host, int(port)), timeout=TIMEOUT_S)

    def raw(self, settings: bytes = b"") -> socket.socket:
        """Open an HTTP/2 connection that sends frames as they are."""
        host, port = self.grpc.split(":")
        opened = socket.create_connection((host, int(port)), timeout=TIMEOUT_S)
        if context := self.tls:
            opened = context.wrap_socket(opened, server_hostname=host)
        opened.sendall(frames.PREFACE + frames.frame(frames.SETTINGS, 0, 0, settings))
        return opened


def unary(channel: Channel, path: str, body: bytes, metadata: Metadata) -> str:
    """Call; return the code."""
    infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
    try:
        infer(body, timeout=TIMEOUT_S, metadata=metadata)
    except grpc.RpcError as error:
        return code_of(error)
    return "OK"


def streamed(channel: Channel, body: bytes, metadata: Metadata) -> str:
    """Send a stream of one message; return the code."""
    stream: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(STREAM)
    try:
        for _ in stream(iter([body]), timeout=TIMEOUT_S, metadata=metadata):
            pass
    except grpc.RpcError as error:
        return code_of(error)
    return "OK"


def code_of(error: grpc.RpcError) -> str:
    """Return the code that a call ended with."""
    status: Any = error  # what a call raises has a code; the class does not say so
    name: str = status.code().name
    return name


def whole_call(stream: int, path: str, message: bytes, token: str) -> bytes:
    """Write a call's frames."""
    headers = frames.frame(frames.HEADERS, frames.END_HEADERS, stream, frames.call_headers(path, *_bearer(token)))
    body = struct.pack(">BI", 0, len(message)) + message
    return headers + frames.frame(frames.DATA, frames.END_STREAM, stream, body)


def ended(connection: socket.socket, count: int) -> int:
    """Read until so many calls have ended; return how many did in time."""
    streams: set[int] = set()
    with connection.makefile("rb") as answers, suppress(OSError):
        while len(streams) < count and len(head := answers.read(9)) == 9:
            kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
            answers.read(int.from_bytes(head[:3], "big"))
            if kind == frames.RST_STREAM or (kind in {frames.DATA, frames.HEADERS} and flags & frames.END_STREAM):
                streams.add(stream)
    return len(streams)


def post(address: Address, body: bytes, host: str = "x", authorization: str | None = None) -> str:
    """Post to the model ``mnist``; return the status."""
    allowed = address.authorization if authorization is None else authorization
    head = f"POST /v2/models/mnist/infer HTTP/1.1\r\nhost: {host}\r\n{allowed}content-length: {len(body)}\r\n\r\n"
    try:
        with address.http1() as connection:
            with suppress(OSError):  # it may be refused by its head
                connection.sendall(head.encode() + body)
            return connection.recv(4096).split()[1].decode()
    except (OSError, IndexError):
        return "connection closed"


# --- private ------------------------------------------------------------------------------------------


def _bearer(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),) if token else ()
