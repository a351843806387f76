"""From a request to a call: who is let in, whose body is read, how its answer goes back. The same for all protocols."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from math import inf
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

from horngate_server.core.codec import Codec
from horngate_server.core.inference import InferenceRequest
from horngate_server.core.request_context import REQUEST_ID, TRACEPARENT
from horngate_server.core.rpc import PRIORITY, Call, PendingReply, Status, bulk
from horngate_server.protocols.json_reader import WHOLE_BYTES
from horngate_server.protocols.open_inference.json import JsonWithTensors
from horngate_server.telemetry.sampling import NOTHING, Sampler
from horngate_server.transports.access.byte_budget import ByteBudget
from horngate_server.transports.access.gate import Gate
from horngate_server.transports.call_collector import CallCollector
from horngate_server.transports.http import bodies, errors
from horngate_server.transports.http.bodies import Body

PEER = "x-horngate-peer"
"""The header in which a supervisor says who called; heeded on its own socket alone."""
_T = TypeVar("_T")


class Calls:
    """What an app's routes have in common.

    Args:
        accept: where calls go (`rpc.Service.accept`).
        gate: let requests in; this app's own.
        max_message_bytes: larger bodies are refused.
        sampler: says which requests are told about.
    """

    def __init__(
        self,
        accept: Callable[[Sequence[Call]], None],
        gate: Gate,
        max_message_bytes: int,
        sampler: Sampler = NOTHING,
    ) -> None:
        self._collector = CallCollector(accept)
        self.gate = gate
        self.max_message_bytes = max_message_bytes
        self._sampler = sampler
        self._reading = asyncio.Semaphore(1)  # two large bodies would only pass Python's lock to each other

    def enter(self, request: Request, method: str = "") -> ByteBudget:
        """Let a request in, by its path or a method's name (`Gate.admit`)."""
        # The scope's path is the one that was routed by: a request's url is also made of its Host header.
        path = method or request.scope["path"]
        return self.gate.admit(path, request.headers.get("authorization", "").encode(), peer(request))

    async def infer(self, request: Request, decode: Callable[[Body], InferenceRequest], codec: Codec) -> Response:
        """Compute a request.

        Args:
            request: comes with a body.
            decode: reads it.
            codec: writes the answer.

        Raises:
            RequestError: it was not let in, or cannot be read.
        """
        memory = self.enter(request)
        headers = request.headers
        async with bodies.expanded(request, self.max_message_bytes, memory) as body:
            if len(body.content) <= WHOLE_BYTES:
                asked = decode(body)
            else:
                async with self._reading:
                    asked = await aside(partial(decode, body))
            priority = headers.get(PRIORITY)
            origin = None
            if self._sampler.wanted:
                ids = (headers.get(name, "").encode() for name in (REQUEST_ID, TRACEPARENT))
                origin = self._sampler.origin(memory.name or peer(request), *ids)
            reply = PendingReply()
            is_bulk = priority is not None and bulk(priority)
            self._collector.take(Call("", b"", inf, reply, is_bulk, origin, (codec, asked)))
            answer = await reply
        if isinstance(answer, Status):
            return errors.error(answer)
        return await answered(request, answer)


async def answered(request: Request, answer: bytes) -> Response:
    """Return an answer, compressed where its caller takes that."""
    kept = {"vary": "accept-encoding"}
    if isinstance(answer, JsonWithTensors):
        kept[bodies.JSON_BYTES] = str(answer.json_bytes)
    content, encoding = await bodies.compressed(answer, request.headers.get("accept-encoding", ""))
    if encoding != "identity":
        kept["content-encoding"] = encoding
    is_json = not isinstance(answer, JsonWithTensors)
    return Response(content, 200, kept, "application/json" if is_json else "application/octet-stream")


def asked(request: Request) -> tuple[str, str]:
    """Return the model and the version that the path names; empty for none."""
    return request.path_params["name"], request.path_params.get("version", "")


def peer(request: Request) -> str:
    """Return the caller's address; a supervisor's socket has none, and it says whom it asks for."""
    return request.client.host if request.client else request.headers.get(PEER, "")


async def aside(work: Callable[[], _T]) -> _T:
    """Work on a thread of its own, so that the loop answers others meanwhile; the process's end waits for none."""
    done: Future[_T] = Future()
    done.set_running_or_notify_cancel()

    def run() -> None:
        try:
            done.set_result(work())
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            done.set_exception(error)

    threading.Thread(target=run, name="json", daemon=True).start()
    return await asyncio.wrap_future(done)
