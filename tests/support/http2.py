"""A raw HTTP/2 caller, for what no gRPC library would send."""

import socket
import ssl
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Self

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
WAIT_S = 20.0
GOAWAY = 7


class Http2:
    """One connection to ``host:port``, with TLS where it gets a context. It sends what it is told, however wrong.

    Args:
        target: host and port.
        tls: for TLS.
        reads: whether it takes answers in; otherwise the window of its streams is 0.

    Attributes:
        closed: the server has closed it.
        going_away: the last stream that each of its GOAWAY frames named; what is under way is still answered.
    """

    def __init__(self, target: str, tls: ssl.SSLContext | None = None, *, reads: bool = True) -> None:
        host, port = target.split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=WAIT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname=host)
        config = h2.config.H2Configuration(
            client_side=True, validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self._h2 = h2.connection.H2Connection(config)
        self._h2.initiate_connection()
        if not reads:
            self._h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
        self._flush()
        self._ended: dict[int, dict[str, str]] = {}
        self._headers: dict[int, dict[str, str]] = {}
        self._unread = b""
        self.going_away: list[int] = []
        self.closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def open(self, headers: Iterable[tuple[str, str]] = ()) -> int:
        """Begin a call; later headers replace the usual ones; return its stream."""
        usual = {
            ":method": "POST", ":scheme": "http", ":path": MODEL_INFER, ":authority": "test",
            "content-type": "application/grpc", "te": "trailers", **dict(headers),
        }  # fmt: skip
        stream = self._h2.get_next_available_stream_id()
        self._h2.send_headers(stream, [(k, v) for k, v in usual.items() if v])
        self._flush()
        return stream

    def send(self, stream: int, data: bytes, *, end: bool = False) -> bool:
        """Send data as far as the server makes room for it; False once it has ended the stream or the connection."""
        view = memoryview(data)
        try:
            while view and stream not in self._ended and not self.closed:
                room = min(self._h2.local_flow_control_window(stream), self._h2.max_outbound_frame_size)
                if not room:
                    self._read()
                    continue
                self._h2.send_data(stream, bytes(view[:room]))
                self._flush()
                view = view[room:]
            if end and not self.closed:
                self._h2.send_data(stream, b"", end_stream=True)
                self._flush()
        except (h2.exceptions.ProtocolError, OSError):  # it was closed meanwhile
            self._drain()
        return stream not in self._ended and not self.closed

    def reset(self, stream: int) -> None:
        """Cancel a call."""
        self._h2.reset_stream(stream, 8)
        self._flush()

    def ends(self, stream: int) -> dict[str, str]:
        """Wait for a call's end; return all its headers and trailers, or what became of it."""
        deadline = time.monotonic() + WAIT_S
        while stream not in self._ended and not self.closed:
            assert time.monotonic() < deadline
            self._read()
        return self._ended.get(stream, {"closed": "connection"})

    def wait_for_goaway(self) -> None:
        """Read until the server says that no further call may be opened here."""
        deadline = time.monotonic() + WAIT_S
        while not self.going_away:
            assert not self.closed
            assert time.monotonic() < deadline
            self._read()

    def wait_for_close(self) -> None:
        """Read until the server has closed the connection."""
        deadline = time.monotonic() + WAIT_S
        while not self.closed:
            assert time.monotonic() < deadline
            self._read()

    def call(self, body: bytes, headers: Iterable[tuple[str, str]] = ()) -> dict[str, str]:
        """Make a whole call; return how it ended."""
        stream = self.open(headers)
        self.send(stream, body, end=True)
        return self.ends(stream)

    # --- private --------------------------------------------------------------------------------------

    def _flush(self) -> None:
        self.socket.sendall(self._h2.data_to_send())

    def _drain(self) -> None:
        """Read what the server said before it closed."""
        self.socket.settimeout(1.0)
        while not self.closed:
            self._read()

    def _read(self) -> None:
        try:
            data = self.socket.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            self.closed = True
            return
        for event in self._h2.receive_data(self._without_goaway(data)):
            stream = getattr(event, "stream_id", 0)
            if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                text = {bytes(k).decode(): bytes(v).decode() for k, v in event.headers or ()}
                self._headers.setdefault(stream, {}).update(text)
            elif isinstance(event, h2.events.DataReceived):
                self._h2.acknowledge_received_data(event.flow_controlled_length or 0, stream)
            elif isinstance(event, h2.events.StreamEnded):
                self._ended[stream] = self._headers.get(stream, {})
            elif isinstance(event, h2.events.StreamReset):
                self._ended[stream] = {**self._headers.get(stream, {}), "reset": str(int(event.error_code or 0))}
        with suppress(OSError):  # the next read tells that it was closed
            self._flush()

    def _without_goaway(self, data: bytes) -> bytes:
        """Return the whole frames that have come; h2 would take a GOAWAY for the end of what is under way, too."""
        self._unread += data
        frames = b""
        while len(self._unread) >= 9 and len(self._unread) >= (end := 9 + int.from_bytes(self._unread[:3], "big")):
            if self._unread[3] == GOAWAY:
                self.going_away.append(int.from_bytes(self._unread[9:13], "big"))
            else:
                frames += self._unread[:end]
            self._unread = self._unread[end:]
        return frames
