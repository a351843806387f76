"""Sending answers, from whichever thread has them, without a future or a task for each.

pyvoy's ``send`` takes the last part of a response from any thread.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from horngate_server.core.rpc import Answer, Status
from horngate_server.transports.access.byte_budget import ByteBudget
from horngate_server.transports.pyvoy import asgi, grpc_framing
from horngate_server.transports.pyvoy.background_tasks import BackgroundTasks
from horngate_server.transports.pyvoy.reply import Reply

PIECE_BYTES = 64 * 1024
"""Longer answers are sent in pieces, each once the caller has read enough: one that does not read costs no more."""


class AnswerSender:
    """Sends answers, and gives back the memory of their requests.

    Args:
        shared: where most requests are counted: what these had is given back once a batch.
    """

    def __init__(self, shared: ByteBudget) -> None:
        self._shared = shared
        self._long = BackgroundTasks()

    def send(self, answers: Sequence[Answer], loop: asyncio.AbstractEventLoop | None) -> None:
        """Send answers, from any thread.

        Args:
            answers: to calls.
            loop: that of the calls; None where there was no call yet.
        """
        freed = 0
        shared = self._shared
        for reply, answer in answers:
            assert isinstance(reply, Reply)
            reply.answered = True
            send = reply.send
            if isinstance(answer, Status):
                asgi.send_status(send, answer)
            elif len(answer) <= PIECE_BYTES:
                send(asgi.START)
                send({"type": "http.response.body", "body": grpc_framing.frame(answer)})
                send(asgi.OK)
            else:
                assert loop
                loop.call_soon_threadsafe(self._send_long, reply, answer)
                continue
            if reply.memory is shared:
                freed += reply.size
            else:
                reply.memory.give(reply.size)
        shared.give(freed)

    # --- private --------------------------------------------------------------------------------------

    def _send_long(self, reply: Reply, answer: bytes) -> None:
        """Send a long answer. It is in no `Streams`: a drain, which ends those, lets it leave whole."""
        self._long.spawn(_send_pieces(reply, answer))


async def _send_pieces(reply: Reply, answer: bytes) -> None:
    """Send an answer piece by piece, as its caller reads; it counts as memory in its request's place."""
    reply.memory.give(reply.size)
    reply.memory.take(len(answer), force=True)
    try:
        with suppress(OSError):  # the caller has gone
            await reply.send(asgi.START)
            for piece in grpc_framing.frame_in_pieces(answer, PIECE_BYTES):
                await reply.send({"type": "http.response.body", "body": piece, "more_body": True})
            await reply.send({"type": "http.response.body"})
            await reply.send(asgi.OK)
    finally:
        reply.memory.give(len(answer))
