"""An open loop over HTTP/2: requests leave when they are due, whether or not earlier ones have been answered.

A closed loop waits for answers before it asks again, so a slow server is asked less, and its worst moments are left out
(coordinated omission). Here the moments are planned beforehand (Poisson), and a latency is counted from the planned
moment: what a request waited because the connection was full, or this generator late, is in it.
"""

import gc
import multiprocessing
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from hpack import Encoder, NeverIndexedHeaderTuple

INFER = "/inference.GRPCInferenceService/ModelInfer"
GRACE_S = 2.0
"""So long after the last planned moment, answers are waited for; who has none then counts as late as that."""
FRAME_BYTES = 16384
READ_BYTES = 1 << 18
WINDOW = (1 << 31) - 1
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
ACK = END_STREAM = 1
END_HEADERS = 4
MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 3, 4


@dataclass(frozen=True, slots=True)
class Offered:
    """What to send.

    Attributes:
        target: host:port.
        bodies: gRPC frames; the requests have them in turn. None larger than a stream's first window.
        answer_bytes: of a right answer's frame, for each body.
        rate: requests a second, on average.
        seconds: for so long.
        connections: how many share them.
    """

    target: str
    bodies: Sequence[bytes]
    answer_bytes: Sequence[int]
    rate: float
    seconds: float
    connections: int = 4


@dataclass(frozen=True, slots=True)
class Answered:
    """What came back.

    Attributes:
        offered: requests a second that were planned.
        per_second: right answers a second that came before the last planned moment.
        p50_ms: half of all requests took no longer, from their planned moment.
        p99_ms: 99 of 100 took no longer.
        refused: this share ended without an answer.
        unanswered: this share had not ended when the waiting did; in p50 and p99 they count as of that moment.
    """

    offered: float
    per_second: float
    p50_ms: float
    p99_ms: float
    refused: float
    unanswered: float


def offer(what: Offered) -> Answered:
    """Send it, from a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_offer, what).result()


# --- private ------------------------------------------------------------------------------------------


def _offer(what: Offered) -> Answered:
    gc.disable()
    randomly = np.random.default_rng(1)
    planned = np.cumsum(randomly.exponential(1 / what.rate, max(1, round(what.rate * what.seconds))))
    ends, last = planned.tolist(), float(planned[-1])
    connections = [_Connection(what.target, what.bodies, what.answer_bytes) for _ in range(what.connections)]
    began, sent, over = time.perf_counter(), 0, 0
    took = np.full(len(ends), np.nan)
    right = np.zeros(len(ends), bool)
    while over < len(ends):
        now = time.perf_counter() - began
        if now > last + GRACE_S:
            break
        while sent < len(ends) and ends[sent] <= now:
            connections[sent % len(connections)].waiting.append(sent)
            sent += 1
        writing = [each for each in connections if each.flush()]
        until = ends[sent] - now if sent < len(ends) else last + GRACE_S - now
        readable, _, _ = select.select(connections, writing, [], max(0.0, until))
        for connection in readable:
            for number, whole in connection.read():
                over += 1
                took[number] = time.perf_counter() - began - ends[number]
                right[number] = whole
    for connection in connections:
        connection.close()
    lost = np.isnan(took)
    in_time = right & (planned + np.nan_to_num(took, nan=np.inf) <= last)
    took[lost] = time.perf_counter() - began - planned[lost]
    p50, p99 = np.percentile(took, (50, 99)) * 1000
    return Answered(
        offered=len(ends) / last,
        per_second=float(in_time.sum()) / last,
        p50_ms=float(p50),
        p99_ms=float(p99),
        refused=float((~right & ~lost).mean()),
        unanswered=float(lost.mean()),
    )


class _Connection:
    """One connection. Headers are written so that each request's are the same bytes, and answers' are not decoded.

    Attributes:
        waiting: requests that are due and not sent.
    """

    def __init__(self, target: str, bodies: Sequence[bytes], answer_bytes: Sequence[int]) -> None:
        host, port = target.split(":")
        self._socket = socket.create_connection((host, int(port)), timeout=10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        headers = {
            ":method": "POST", ":scheme": "http", ":path": INFER, ":authority": target,
            "content-type": "application/grpc", "te": "trailers",
        }  # fmt: skip
        block = Encoder().encode([NeverIndexedHeaderTuple(*each) for each in headers.items()])
        self._templates = [list(_frames(block, body)) for body in bodies]
        self._sizes = [len(body) for body in bodies]
        self._answer_bytes = answer_bytes
        self._out = bytearray(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + _frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, WINDOW))
            + _frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", WINDOW - 65535))
        )
        self._in = bytearray()
        self._credit = 65535
        self._most = 100
        self._unacknowledged = 0
        self._stream = 1
        self._open: dict[int, list[int]] = {}
        self.waiting: deque[int] = deque()

    def fileno(self) -> int:
        """Return it, for `select`."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def flush(self) -> bool:
        """Send what is due, as far as the server makes room for it; return whether some is left to write."""
        out = self._out
        while self.waiting and len(self._open) < self._most:
            place = self.waiting[0] % len(self._sizes)
            if self._sizes[place] > self._credit:
                break
            self._credit -= self._sizes[place]
            stream = struct.pack(">I", self._stream)
            out += stream.join(self._templates[place])
            self._open[self._stream] = [self.waiting.popleft(), 0, self._answer_bytes[place]]
            self._stream += 2
        if out:
            try:
                del out[: self._socket.send(out)]
            except BlockingIOError:
                return True
        return bool(out)

    def read(self) -> Iterator[tuple[int, bool]]:
        """Take in what has come; yield the requests that have ended, and whether with a whole answer."""
        came = self._socket.recv(READ_BYTES)
        if not came:
            raise SystemExit("the server has closed the connection")
        data = self._in
        data += came
        at = 0
        while len(data) - at >= 9 and len(data) - at >= (end := 9 + int.from_bytes(data[at : at + 3])):
            kind, flags, stream = data[at + 3], data[at + 4], int.from_bytes(data[at + 5 : at + 9])
            if kind <= RST_STREAM:
                if kind == DATA:
                    self._open[stream][1] += end - 9
                    self._unacknowledged += end - 9
                if kind == RST_STREAM or flags & END_STREAM:
                    number, had, wanted = self._open.pop(stream)
                    yield number, had == wanted
            else:
                self._control(kind, flags, stream, bytes(data[at + 9 : at + end]))
            at += end
        del data[:at]
        if self._unacknowledged > WINDOW // 2:
            self._out += _frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", self._unacknowledged))
            self._unacknowledged = 0

    def _control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == GOAWAY:
            raise SystemExit(f"the server ends the connection: {payload!r}")
        if kind == SETTINGS and not flags & ACK:
            settings = dict(struct.iter_unpack(">HI", payload))
            self._most = settings.get(MAX_CONCURRENT_STREAMS, self._most)
            first = settings.get(INITIAL_WINDOW_SIZE, 65535)
            if first < max(self._sizes):
                raise SystemExit(f"a request has {max(self._sizes)} bytes, and a stream's window only {first}")
            self._out += _frame(SETTINGS, ACK, 0, b"")
        elif kind == PING and not flags & ACK:
            self._out += _frame(PING, ACK, 0, payload)
        elif kind == WINDOW_UPDATE and not stream:
            self._credit += int.from_bytes(payload)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def _frames(block: bytes, body: bytes) -> Iterator[bytes]:
    """Yield a request as the bytes between which its stream's number stands."""
    before = b""
    pieces = [body[start : start + FRAME_BYTES] for start in range(0, len(body), FRAME_BYTES)]
    for kind, flags, payload in [
        (HEADERS, END_HEADERS, block),
        *((DATA, END_STREAM if piece is pieces[-1] else 0, piece) for piece in pieces),
    ]:
        frame = _frame(kind, flags, 0, payload)
        yield before + frame[:5]
        before = frame[9:]
    yield before
