"""Triton's ModelStreamInfer: requests in one after the other, answers out in the same order, each as a call of its own.

What is wrong with one request is said in its answer, and the stream goes on.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

from horngate_protos.open_inference_pb2 import ModelStreamInferResponse
from horngate_server.core.errors import RequestError
from horngate_server.core.methods import INFER
from horngate_server.core.rpc import Call, CallOptions, PendingReply, Status, Stream
from horngate_server.protocols.open_inference.decode import identity
from horngate_server.protocols.wire import field

WINDOW = 256
"""Requests of a stream that are worked on at once; further ones are left to flow control."""


def model_stream_infer(take: Callable[[Call], None]) -> Stream:
    """Return the method; calls go in through ``take``, which gathers those of one turn of the loop."""

    async def stream(messages: AsyncIterator[bytes], options: CallOptions) -> AsyncIterator[bytes]:
        waiting: asyncio.Queue[_Asked | RequestError | None] = asyncio.Queue(WINDOW)
        reader = asyncio.get_running_loop().create_task(_read(messages, options, waiting, take))
        try:
            while (asked := await waiting.get()) is not None:
                if isinstance(asked, RequestError):
                    raise asked
                yield _response(asked.message, await asked.answer)
        finally:
            reader.cancel()
            while not waiting.empty():
                left = waiting.get_nowait()
                if isinstance(left, _Asked):
                    left.answer.cancel()

    return stream


# --- private ------------------------------------------------------------------------------------------


class _Asked(NamedTuple):
    """A request, and where its answer comes."""

    message: bytes
    answer: PendingReply


async def _read(
    messages: AsyncIterator[bytes],
    options: CallOptions,
    waiting: "asyncio.Queue[_Asked | RequestError | None]",
    take: Callable[[Call], None],
) -> None:
    """Take requests as they come, as many as the window has room for."""
    try:
        async for message in messages:
            answer = PendingReply()
            await waiting.put(_Asked(message, answer))
            take(Call(INFER, message, options.deadline, answer, options.bulk, options.origin()))
    except RequestError as error:
        await waiting.put(error.bare())  # who raises it keeps it: without the messages that it has seen
    else:
        await waiting.put(None)


def _response(message: bytes, answer: bytes | Status) -> bytes:
    if not isinstance(answer, Status):
        return field(2, answer)
    response = ModelStreamInferResponse(error_message=f"[StatusCode.{answer.name}] {answer.message}")
    response.infer_response.id = identity(message)
    return response.SerializeToString()
