"""gRPC's layer over HTTP/2, for a transport whose server speaks plain HTTP: frames, timeouts, statuses. Pure.

Source: gRPC's PROTOCOL-HTTP2.md and compression.md.
"""

import re
import zlib
from base64 import b64encode
from collections.abc import Iterable, Iterator
from urllib.parse import quote_from_bytes

from horngate_server.core.errors import InvalidRequest, MessageTooLarge, NotImplementedHere
from horngate_server.core.rpc import Status

PREFIX_BYTES = 5
"""A frame is one byte (1: compressed), the length in four, and the message."""
ENCODINGS = b"gzip,deflate"
"""What requests may be compressed with; ``grpc-accept-encoding`` says so."""

COPIED_BYTES = 4096
"""Shorter messages are copied out of their body, which costs less than to look through a view."""

Headers = list[tuple[bytes, bytes]]


def is_grpc(content_type: bytes) -> bool:
    """Whether a content type is gRPC's, with a codec or without; gRPC-Web's is not."""
    return content_type == b"application/grpc" or content_type.startswith((b"application/grpc+", b"application/grpc;"))


def frame(message: bytes) -> bytes:
    """Put the prefix in front of an uncompressed message."""
    return _prefix(message) + message


def frame_in_pieces(message: bytes, piece_bytes: int) -> Iterator[bytes]:
    """Yield the same in pieces, of which each is copied when its turn comes: a long message is there once."""
    first = piece_bytes - PREFIX_BYTES
    yield _prefix(message) + message[:first]
    for start in range(first, len(message), piece_bytes):
        yield message[start : start + piece_bytes]


def length(prefix: bytes | bytearray | memoryview) -> int:
    """Return how many bytes follow the prefix that this begins with."""
    return int.from_bytes(prefix[1:PREFIX_BYTES], "big")


def unframe(body: bytes | memoryview, max_bytes: int) -> tuple[bytes | memoryview, bool]:
    """Return the message of a body that holds exactly one frame, and whether it is compressed.

    A long message is a view of the body.

    Args:
        body: a call's.
        max_bytes: what the message may have.

    Raises:
        MessageTooLarge: it has more.
        InvalidRequest: it is not one frame.
    """
    if len(body) > max_bytes + PREFIX_BYTES:
        raise too_large(len(body) - PREFIX_BYTES, max_bytes)
    if len(body) < PREFIX_BYTES or length(body) != len(body) - PREFIX_BYTES or body[0] > 1:
        raise InvalidRequest(
            f"a body of {len(body)} bytes that begins with {bytes(body[:PREFIX_BYTES]).hex() or 'nothing'}; "
            "expected one gRPC frame: a byte 0 or 1, the message's length in 4 bytes, the message"
        )
    view = body if len(body) < COPIED_BYTES else memoryview(body)
    return view[PREFIX_BYTES:], body[0] == 1


def too_large(size: int, max_bytes: int) -> MessageTooLarge:
    """Return the error for a message of so many bytes."""
    return MessageTooLarge(
        f"a message of {size} bytes; expected at most {max_bytes} (--max-message-bytes; less for health)"
    )


def expand(message: bytes | memoryview, encoding: bytes, max_bytes: int) -> bytes:
    """Decompress a message, and stop where it becomes too large.

    Args:
        message: as it came.
        encoding: the value of ``grpc-encoding``; empty where there was none.
        max_bytes: what it may expand to.

    Raises:
        MessageTooLarge: it expands to more.
        InvalidRequest: it is not compressed that way, or nothing says which way.
        NotImplementedHere: an encoding other than gzip and deflate.
    """
    if encoding in {b"", b"identity"}:
        raise InvalidRequest("the message is marked as compressed; expected grpc-encoding to say how")
    wbits = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}.get(encoding)
    if wbits is None:
        raise NotImplementedHere(f"grpc-encoding {encoding.decode(errors='replace')}; expected gzip or deflate")
    expander = zlib.decompressobj(wbits)
    try:
        expanded = expander.decompress(message, max_bytes + 1)
    except zlib.error as error:
        raise InvalidRequest(f"not compressed with {encoding.decode()}: {error}") from error
    if len(expanded) > max_bytes:
        raise MessageTooLarge(f"the message expands to more than {max_bytes} bytes (--max-message-bytes)")
    if not expander.eof:
        raise InvalidRequest(f"compressed with {encoding.decode()} and cut short")
    return expanded


_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_TIMEOUT = re.compile(rb"(\d{1,8})([HMSmun])")


def timeout(text: bytes) -> float:
    """Read a ``grpc-timeout`` in seconds.

    Raises:
        InvalidRequest: it is none.
    """
    match = _TIMEOUT.fullmatch(text)
    if match is None:
        raise InvalidRequest(
            f"grpc-timeout {text.decode(errors='replace')!r}; expected up to 8 digits and one of H, M, S, m, u, n"
        )
    return int(match[1]) * _UNITS[match[2]]


def trailers(status: Status) -> Headers:
    """Write a status as the headers that end a response."""
    return [
        (b"grpc-status", str(status.code).encode()),
        (b"grpc-message", quote_from_bytes(status.message.encode(), safe=_UNQUOTED).encode()),
        *_metadata(status.trailers),
    ]


# --- private ------------------------------------------------------------------------------------------


def _prefix(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big")


_UNQUOTED = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


def _metadata(pairs: Iterable[tuple[str, str | bytes]]) -> Headers:
    return [
        (name.encode(), b64encode(value).rstrip(b"=") if isinstance(value, bytes) else value.encode())
        for name, value in pairs
    ]
