"""gRPC's context of a call: what it says of the caller, and how it ends a call with a status."""

from collections.abc import Callable
from typing import TypeAlias
from urllib.parse import unquote

import grpc

from horngate_server.core.rpc import CallOptions, Status
from horngate_server.transports.access.byte_budget import ByteBudget
from horngate_server.transports.access.gate import Gate
from horngate_server.transports.call_metadata import MetadataReader, as_bytes

Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
Enter = Callable[[Context], tuple[ByteBudget, CallOptions]]
"""`enter`, for one method."""

_CODES = {code.value[0]: code for code in grpc.StatusCode}


def enter(method: str, gate: Gate, reader: MetadataReader[str], context: Context) -> tuple[ByteBudget, CallOptions]:
    """Ask the gate to let a call in; return where its bytes are counted, and what its metadata ask for.

    Raises:
        RequestError: the gate refuses it (`Gate.enter`), or its metadata are wrong.
    """
    metadata = dict(context.invocation_metadata() or ())
    address = "" if gate.wide_open and not reader.samples else _address(context)  # gRPC makes a text of it, each time
    memory = gate.enter(method, as_bytes(metadata.get("authorization")), address)
    return memory, reader.options(metadata, context.time_remaining(), memory.name or address)


async def abort(context: Context, status: Status) -> None:
    """End a call with a status: gRPC does so by an exception."""
    await context.abort(_CODES[status.code], status.message, status.trailers)


# --- private ------------------------------------------------------------------------------------------


def _address(context: Context) -> str:
    """Return the caller's address: gRPC says ``ipv4:127.0.0.1:50123`` and ``ipv6:%5B::1%5D:50123``."""
    return unquote(context.peer()).partition(":")[2].rpartition(":")[0].strip("[]")
