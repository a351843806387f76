"""What comes and goes as a body: its memory is taken before it is there, and compressed ones are expanded in steps.

A few bytes can expand to a thousand times as many (a decompression bomb): each step's are counted before the next.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import Request

from horngate_server.core.errors import InvalidRequest, MessageTooLarge
from horngate_server.transports.access.byte_budget import ByteBudget

JSON_COST = 8
"""A byte of JSON is taken for so many in memory: numbers become objects before they become tensors."""
JSON_BYTES = "inference-header-content-length"
"""The header that says how long the JSON is where tensors come behind it."""
ENCODINGS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
"""What bodies may be compressed with; zlib's names of these."""
STEP_BYTES = 1 << 18
"""How much is expanded in one step."""
SHORT_BYTES = 1 << 16
"""What is compressed or expanded on the loop: it takes less than the way to a thread and back, or a millisecond."""
WORTH_BYTES = 1024
"""Shorter answers are not compressed: they would fill the same packet."""
LEVEL = 1
"""zlib's: numbers get hardly shorter by any other."""


class Body(NamedTuple):
    """A request's.

    Attributes:
        content: all of it.
        json_bytes: how much of it is JSON, where the caller says so.
    """

    content: bytearray
    json_bytes: int | None


@asynccontextmanager
async def received(request: Request, at_most: int, memory: ByteBudget) -> AsyncIterator[bytearray]:
    """Receive a body as it comes. Its memory is taken before its first byte, until the block is left.

    Raises:
        InvalidRequest: it is compressed in a way that nobody here knows.
        MessageTooLarge: it has more than ``at_most`` bytes.
        QueueFull: there is no memory for it.
    """
    size = _size(request, at_most)
    memory.take(size)
    try:
        yield await _read(request)
    finally:
        memory.give(size)


@asynccontextmanager
async def expanded(request: Request, at_most: int, memory: ByteBudget) -> AsyncIterator[Body]:
    """Receive a body, and expand it where it is compressed; its JSON counts for `JSON_COST` times as much.

    Raises:
        InvalidRequest: it is not compressed as its headers say, or they make no sense.
        MessageTooLarge: it has more than ``at_most`` bytes, as it came or expanded.
        QueueFull: there is no memory for it.
    """
    size = _size(request, at_most)
    encoding = request.headers.get("content-encoding", "identity")
    json_bytes = _json_bytes(request)
    held = size if encoding != "identity" else _cost(0, size, json_bytes)
    memory.take(held)
    try:
        body = await _read(request)
        if encoding != "identity":
            whole = bytearray()
            async for piece in _expand(body, encoding):
                if len(whole) + len(piece) > at_most:
                    raise MessageTooLarge(f"the body expands to more than {at_most} bytes (--max-message-bytes)")
                more = _cost(len(whole), len(whole) + len(piece), json_bytes)
                memory.grow(more)
                held += more
                whole += piece
            body = whole
        yield Body(body, json_bytes)
    finally:
        memory.give(held)


async def compressed(content: bytes, accepted: str) -> tuple[bytes, str]:
    """Compress an answer where that is worth it and the caller takes it; return it, and how it is compressed.

    Args:
        content: the answer.
        accepted: the value of ``Accept-Encoding``.
    """
    if len(content) < WORTH_BYTES:
        return content, "identity"
    encoding = next((name for name in _accepted(accepted) if name in ENCODINGS), None)
    if encoding is None:
        return content, "identity"
    if len(content) <= SHORT_BYTES:
        return _compress(content, encoding), encoding
    return await asyncio.to_thread(_compress, content, encoding), encoding


# --- private ------------------------------------------------------------------------------------------


def _size(request: Request, at_most: int) -> int:
    """Return how many bytes are to come."""
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity" and encoding not in ENCODINGS:
        raise InvalidRequest(f"the body is compressed with {encoding[:40]!r}; expected {', '.join(ENCODINGS)} or none")
    if "transfer-encoding" in request.headers:
        raise HTTPException(411, "the body does not say how long it is; expected content-length")
    size = int(request.headers.get("content-length", "0"))  # the server has seen that it is a number, and true
    if size > at_most:
        raise MessageTooLarge(f"a body of {size} bytes; expected at most {at_most} (--max-message-bytes)")
    return size


def _json_bytes(request: Request) -> int | None:
    value = request.headers.get(JSON_BYTES)
    if value is None:
        return None
    if not (value.isascii() and value.isdecimal() and len(value) < 12):
        raise InvalidRequest(
            f"Inference-Header-Content-Length: {value[:40]}; expected how many bytes of JSON there are"
        )
    return int(value)


def _cost(start: int, stop: int, json_bytes: int | None) -> int:
    """Return what a part of a body is counted for: the JSON that it begins with may be only a part of it."""
    json = stop - start if json_bytes is None else max(0, min(stop, json_bytes) - start)
    return stop - start + (JSON_COST - 1) * json


async def _read(request: Request) -> bytearray:
    body = bytearray()  # grows in place: Starlette's own would be in memory twice
    async for piece in request.stream():
        body += piece
    return body


async def _expand(body: bytearray, encoding: str) -> AsyncIterator[bytes]:
    """Expand a body step by step: the first ones here, where they are short, and the others on a thread."""
    steps = _steps(body, encoding)
    here = len(body) <= SHORT_BYTES
    while (piece := next(steps, None) if here else await asyncio.to_thread(next, steps, None)) is not None:
        yield piece
        here = here and len(piece) < STEP_BYTES


def _steps(body: bytearray, encoding: str) -> Iterator[bytes]:
    expander = zlib.decompressobj(ENCODINGS[encoding])
    stop = 0
    try:
        while stop < len(body) and not expander.eof:
            fed = bytes(body[stop : stop + SHORT_BYTES])
            stop += SHORT_BYTES
            while not expander.eof:
                piece = expander.decompress(fed, STEP_BYTES)
                yield piece
                fed = expander.unconsumed_tail
                if not fed and len(piece) < STEP_BYTES:
                    break
    except zlib.error as error:
        raise InvalidRequest(f"the body is not compressed with {encoding}: {error}") from error
    if not expander.eof:
        raise InvalidRequest(f"the body is compressed with {encoding} and cut short")
    if expander.unused_data or stop < len(body):
        raise InvalidRequest(f"bytes behind the body's end, which is compressed with {encoding}; expected none")


def _accepted(header: str) -> Iterator[str]:
    """Return what ``Accept-Encoding`` has, but for what it refuses."""
    for each in header.lower().split(","):
        name, _, weight = each.partition(";")
        if weight.replace(" ", "").rstrip("0.") != "q=":
            yield name.strip()


def _compress(content: bytes, encoding: str) -> bytes:
    compressor = zlib.compressobj(LEVEL, wbits=ENCODINGS[encoding])
    return compressor.compress(content) + compressor.flush()
