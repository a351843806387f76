"""Callers that mean harm, or know no better, each as a function that does its worst once.

A caller gets the server's address and an event that tells it to stop, and returns what it was told: gRPC's codes,
HTTP's status, or what became of its connection.
"""

import socket
import ssl
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Protocol

import h2.settings
import numpy as np
from address import INFER, Address, ended, post, streamed, unary, whole_call
from callers import infer_body

from horngate_protos.tensorflow_serving_pb2 import ReloadConfigRequest
from support import hostile as frames
from support.http2 import Http2

MIB = 1 << 20
PREDICT = "/tensorflow.serving.PredictionService/Predict"
CLASSIFY = "/tensorflow.serving.PredictionService/Classify"
RELOAD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
HOLD_S = 20.0
"""How long what is unfinished stays so."""
REFERRING_CALLS = 3840
"""On a connection, by `hpack_references`: 15 MiB of headers."""
PAUSE_S = 0.05
"""Between calls of those who would otherwise only measure how fast a client can send."""
Told = Counter[str]


class Stop(Protocol):
    """An event of threads or of processes."""

    def is_set(self) -> bool:
        """Whether it is time to stop."""
        ...

    def wait(self, timeout: float) -> bool:
        """Wait so long for it."""
        ...


def full_queue(address: Address, stop: Stop) -> Told:
    """Call with 6,000 images, twelve at a time: far more than the model computes."""
    return _together(12, lambda: _repeated(address, stop, INFER, images(6000)))


def large_refused(address: Address, stop: Stop) -> Told:
    """Send 60 MiB that are refused whatever they are: by no token, and for a model that nobody knows."""
    unknown = infer_body("nobody", "images", "UINT8", (60 * MIB // 784, 28, 28), bytes(60 * MIB // 784 * 784))
    with address.channel() as channel:
        told = Counter(unary(channel, INFER, bytes(60 * MIB), ()) for _ in _until(stop, 8))
        told.update(unary(channel, INFER, unknown, address.metadata) for _ in _until(stop, 8))
    return told


def announced(address: Address, stop: Stop) -> Told:
    """Say in 96 bytes that 64 MiB come to a method that is open to everyone, sixteen times, and send nothing more."""
    with address.http2() as caller:
        for _ in range(16):
            caller.send(caller.open([(":path", CHECK)]), struct.pack(">BI", 0, 64 * MIB) + bytes(91))
        stop.wait(HOLD_S)
    return Counter(held=16)


def unfinished_watch(address: Address, stop: Stop) -> Told:
    """Send 60 MiB of a message of 64 MiB to Watch, on forty connections."""
    with ExitStack() as stack, ThreadPoolExecutor(40) as threads:
        callers = [stack.enter_context(address.http2()) for _ in range(40)]
        for caller in callers:
            threads.submit(_unfinished, caller, WATCH, 60 * MIB)
        stop.wait(HOLD_S)
        for caller in callers:
            with suppress(OSError):
                caller.socket.shutdown(socket.SHUT_RDWR)
    return Counter(held=40)


def empty_inputs(address: Address, stop: Stop) -> Told:
    """Send thirty million inputs with nothing in them, as a call and in a stream."""
    body = b"\x2a\x00" * (30 * MIB)
    told: Told = Counter()
    with address.channel() as channel:
        for _ in _until(stop, 4):
            told[unary(channel, INFER, body, address.metadata)] += 1
            told[streamed(channel, body, address.metadata)] += 1
    return told


def small_fields(address: Address, stop: Stop) -> Told:
    """Send ten million fields of two bytes each."""
    told: Told = Counter()
    with address.channel() as channel:
        for path, field in ((PREDICT, b"\x08\x00"), (PREDICT, b"\x0a\x00"), (CLASSIFY, b"\x12\x00")):
            for _ in _until(stop, 2):
                told[unary(channel, path, field * (10 * MIB), address.metadata)] += 1
    return told


def json_objects(address: Address, stop: Stop) -> Told:
    """Post 63 MiB of objects that are no inputs."""
    body = b'{"inputs":[' + b'{"a":1},' * (63 * MIB // 8 - 4) + b"{}]}"
    return Counter(post(address, body) for _ in _until(stop, 4))


def rapid_reset(address: Address, stop: Stop) -> Told:
    """Open and cancel calls as fast as frames can be written, on four connections, without a token."""
    return _together(4, lambda: _reset(address, stop, time.monotonic() + 3.0))


def hpack_references(address: Address, stop: Stop) -> Told:
    """Send a long header once, and then four thousand references to it with each call."""
    block = frames.call_headers(INFER)
    entry = b"\x40" + frames.literal(b"x") + frames.literal(b"v" * 3900)
    told: Told = Counter()
    ends = time.monotonic() + 2.0
    with address.raw() as connection:
        connection.settimeout(1.0)
        stream = 1
        try:
            connection.sendall(frames.frame(frames.HEADERS, frames.END_HEADERS, stream, block + entry))
            while time.monotonic() < ends and stream < 2 * REFERRING_CALLS and not stop.is_set():
                stream += 2
                references = frames.frame(frames.HEADERS, frames.END_HEADERS, stream, block + b"\xbe" * 4000)
                connection.sendall(references)
                told["calls"] += 1
            stop.wait(max(0.0, ends - time.monotonic()))
        except OSError:
            told["connection closed"] += 1
    return told


def slow_posts(address: Address, stop: Stop) -> Told:
    """Hold 256 connections of the HTTP port with bodies of which a byte comes each second."""
    head = f"POST /v2/models/mnist/infer HTTP/1.1\r\nhost: x\r\n{address.authorization}content-length: 1000\r\n\r\n"
    told: Told = Counter()
    with ExitStack() as stack:
        opened = [stack.enter_context(address.http1()) for _ in range(256)]
        data = head.encode()
        for _ in _until(stop, int(HOLD_S)):
            for each in opened:
                try:
                    each.sendall(data)
                    told["bytes" if len(data) == 1 else "heads"] += 1
                except OSError:
                    told["connection closed"] += 1
            data = b" "
            stop.wait(1.0)
    return told


def host_bypass(address: Address, stop: Stop) -> Told:
    """Name an open method's path as the host, without a token."""
    told: Told = Counter()
    for _ in _until(stop, 50):
        told[post(address, b"{}", "x/grpc.health.v1.Health/Check?", authorization="")] += 1
        stop.wait(PAUSE_S)
    return told


def nul_path(address: Address, stop: Stop) -> Told:
    """Name a folder with a NUL in it to an administrator's method, in one write with thirty good calls."""
    reload = ReloadConfigRequest()
    reload.config.model_config_list.config.add(name="mnist", base_path="a\0b")
    told: Told = Counter()
    for _ in _until(stop, 20):
        with address.raw() as connection:
            written = whole_call(1, RELOAD, reload.SerializeToString(), address.admin)
            for number in range(1, 31):
                written += whole_call(2 * number + 1, INFER, images(1), address.token)
            connection.sendall(written)
            told["ended"] += (count := ended(connection, 31))
            told["lost"] += 31 - count
    return told


def unread_answers(address: Address, stop: Stop) -> Told:
    """Ask for large answers that there is never room for, with a deadline, forty times."""
    body = images(16384)
    with ThreadPoolExecutor(4) as threads, ExitStack() as stack:
        callers = [stack.enter_context(_Unreading(address.grpc, address.tls)) for _ in range(4)]
        headers = [("grpc-timeout", "5S"), *address.metadata]
        for caller in callers:
            threads.submit(_call_and_leave, caller, body, headers, 10)
        stop.wait(HOLD_S)
    return Counter(calls=40)


def zero_axis(address: Address, stop: Stop) -> Told:
    """Send a shape that costs nothing to write and is huge."""
    told: Told = Counter()
    with address.channel() as channel:
        for _ in _until(stop, 50):
            for axis in (1 << 40, 250_000_000):
                body = infer_body("freeaxes", "x", "FP32", (1, axis, 0), None)
                told[unary(channel, INFER, body, address.metadata)] += 1
            stop.wait(PAUSE_S)
    return told


def bad_id(address: Address, stop: Stop) -> Told:
    """Look up an id that the table has not, so that the batch fails that it is computed in."""
    body = infer_body("embed", "ids", "INT32", (1, 3), np.array([[1000, 0, 0]], np.int32).tobytes())
    return _repeated(address, stop, INFER, body, at_most=200)


HOSTILE: dict[str, Callable[[Address, Stop], Told]] = {
    each.__name__.replace("_", " "): each
    for each in (
        full_queue, large_refused, announced, unfinished_watch, empty_inputs, small_fields, json_objects, rapid_reset,
        hpack_references, slow_posts, host_bypass, nul_path, unread_answers, zero_axis, bad_id,
    )
}  # fmt: skip
"""All of them by name."""
ADMIN = frozenset({"nul path"})
"""Those that call an administrator's methods."""


def images(count: int) -> bytes:
    """Write a request with so many images."""
    return infer_body("mnist", "images", "UINT8", (count, 28, 28), bytes(784 * count))


# --- private ------------------------------------------------------------------------------------------


class _Unreading(Http2):
    """A connection on which no answer has room."""

    def __init__(self, target: str, tls: ssl.SSLContext | None) -> None:
        super().__init__(target, tls)
        self._h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
        self._flush()


def _until(stop: Stop, at_most: int) -> Iterable[int]:
    """Count as long as there is no stop."""
    return (number for number in range(at_most) if not stop.is_set())


def _together(count: int, call: Callable[[], Told]) -> Told:
    """Do it so many times at once."""
    with ThreadPoolExecutor(count) as threads:
        return sum((each.result() for each in [threads.submit(call) for _ in range(count)]), Counter())


def _repeated(address: Address, stop: Stop, path: str, body: bytes, at_most: int = 1 << 30) -> Told:
    with address.channel() as channel:
        return Counter(unary(channel, path, body, address.metadata) for _ in _until(stop, at_most))


def _unfinished(caller: Http2, path: str, size: int) -> None:
    with suppress(OSError, AssertionError):
        caller.send(caller.open([(":path", path)]), struct.pack(">BI", 0, 64 * MIB) + bytes(size))


def _call_and_leave(caller: Http2, body: bytes, headers: Sequence[tuple[str, str]], count: int) -> None:
    with suppress(OSError, AssertionError):
        for _ in range(count):
            caller.send(caller.open(headers), struct.pack(">BI", 0, len(body)) + body, end=True)


def _reset(address: Address, stop: Stop, ends: float) -> Told:
    block = frames.call_headers(INFER)
    cancel = struct.pack(">I", 8)
    told: Told = Counter()
    while time.monotonic() < ends and not stop.is_set():
        with address.raw() as connection, suppress(OSError):
            told["connections"] += 1
            for first in range(1, 1 << 30, 2 * frames.AT_ONCE):
                if time.monotonic() > ends or stop.is_set():
                    break
                written = bytearray()
                for stream in range(first, first + 2 * frames.AT_ONCE, 2):
                    written += frames.frame(frames.HEADERS, frames.END_HEADERS, stream, block)
                    written += frames.frame(frames.RST_STREAM, 0, stream, cancel)
                connection.sendall(written)
                told["calls"] += frames.AT_ONCE
    return told
