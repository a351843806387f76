"""The bodies of unary calls that are not there at once: in pieces, or compressed."""

import asyncio

import numpy as np

from horngate_server.core.errors import InvalidRequest
from horngate_server.transports.access.byte_budget import ByteBudget
from horngate_server.transports.pyvoy import grpc_framing
from horngate_server.transports.pyvoy.asgi import Disconnected, Event, Receive
from horngate_server.transports.pyvoy.reply import Reply


async def message(event: Event, reply: Reply, encoding: bytes, max_bytes: int) -> bytes | memoryview:
    """Return a message, once it is there whole and expanded.

    Args:
        event: the first piece of its body.
        reply: of its call.
        encoding: the value of ``grpc-encoding``.
        max_bytes: what it may have, as it came and expanded.

    Raises:
        Disconnected: the caller has gone.
        MessageTooLarge: it has more.
        QueueFull: there is no memory for it.
        InvalidRequest: it is not one frame, or not compressed as it should be.
        NotImplementedHere: its compression is not ours.
    """
    body = event.get("body", b"")
    if event.get("more_body"):
        body = await _rest(event, reply.receive, reply.memory, max_bytes)
    framed, compressed = grpc_framing.unframe(body, max_bytes)
    return await _expanded(framed, encoding, reply.memory, max_bytes) if compressed else framed


# --- private ------------------------------------------------------------------------------------------


async def _rest(event: Event, receive: Receive, memory: ByteBudget, max_bytes: int) -> bytes | memoryview:
    """Receive what is left of a body, and return all of it.

    It is bounded: its own size by its prefix, that of all bodies by the memory. Each piece is copied into its place as
    it comes: putting megabytes together at the end would hold up every other call.
    """
    body: bytes = event["body"]
    while len(body) < grpc_framing.PREFIX_BYTES and event.get("more_body"):
        event = await _next(receive)
        body += event.get("body", b"")
    if not event.get("more_body"):
        return body
    length = grpc_framing.length(body)
    if length > max_bytes:
        raise grpc_framing.too_large(length, max_bytes)
    size = grpc_framing.PREFIX_BYTES + length
    memory.take(size)  # all that is announced: it is allocated now
    try:
        whole = np.empty(size, np.uint8).data
        received = 0
        while True:
            if received + len(body) > size:
                raise InvalidRequest(f"more bytes than the {length} that the frame's prefix says")
            whole[received : received + len(body)] = body
            received += len(body)
            if not event.get("more_body"):
                return whole[:received]
            event = await _next(receive)
            body = event.get("body", b"")
    finally:
        memory.give(size)


async def _expanded(message: bytes | memoryview, encoding: bytes, memory: ByteBudget, max_bytes: int) -> bytes:
    """Decompress a message (`grpc_framing.expand`), off the loop; meanwhile it counts as it came."""
    memory.take(len(message))
    try:
        return await asyncio.to_thread(grpc_framing.expand, message, encoding, max_bytes)
    finally:
        memory.give(len(message))


async def _next(receive: Receive) -> Event:
    """Receive the next piece of a body."""
    event = await receive()
    if event["type"] == "http.disconnect":
        raise Disconnected
    return event
