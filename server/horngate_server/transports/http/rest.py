"""``/v2`` on the HTTP port: the Open Inference Protocol in JSON, as a convenience for people with ``curl``.

Imported when somebody asks for the first time: nobody else pays for it.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from horngate_protos import open_inference_pb2 as oip
from horngate_server.core.codec import Codec
from horngate_server.core.errors import (
    Forbidden,
    InvalidRequest,
    MessageTooLarge,
    NotImplementedHere,
    NotReady,
    RequestError,
)
from horngate_server.core.inference import InferenceRequest
from horngate_server.core.methods import LOAD, UNLOAD
from horngate_server.core.request_context import REQUEST_ID, TRACEPARENT, RequestContext
from horngate_server.core.rpc import PRIORITY, PendingReply, Reply, Status, bulk
from horngate_server.lifecycle.repository import Version
from horngate_server.protocols.grpc_status import status_of
from horngate_server.protocols.open_inference.json import JSON, decode_json, decode_load_json
from horngate_server.protocols.open_inference.json_reader import WHOLE_BYTES
from horngate_server.services.open_inference_metadata import OpenInferenceMetadata
from horngate_server.telemetry.sampling import NOTHING, Sampler
from horngate_server.transports.access.byte_budget import ByteBudget
from horngate_server.transports.access.gate import Gate
from horngate_server.transports.http import model_files, unix_client

CODES = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "INTERNAL": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
"""gRPC's codes in HTTP's (google/rpc/code.proto)."""
JSON_COST = 8
"""A byte of JSON is taken for so many in memory: numbers become objects before they become tensors."""
FORWARDED = (PRIORITY, "authorization", REQUEST_ID, TRACEPARENT)
"""Headers that a supervisor hands on."""
PEER = "x-horngate-peer"
"""The header in which it says who called; heeded on the supervisor's own socket alone."""
OPEN = frozenset(["/v2/health/live", "/v2/health/ready"])
"""Paths that need no token: they say what /livez and /readyz say."""
NO_ADMIN = "this server takes no administrator's calls; start it with --admin"
NO_TOKENS = "over HTTP, what is served can be changed by a token alone; expected --tokens with a line for an admin"
Deferred = Callable[[bytes, Callable[[bytes | RequestError], None]], None]
"""Carries out what a message asks for, and says later, from any thread, how it ended."""
RETRY_AFTER_S = 1
"""HTTP's Retry-After has whole seconds."""


class Take(Protocol):
    """Takes a request that is decoded (`inference.InferenceService.take`)."""

    def __call__(
        self,
        request: InferenceRequest,
        codec: Codec,
        deadline: float,
        reply: Reply,
        *,
        bulk: bool,
        origin: RequestContext | None,
    ) -> None:
        """Answer it through ``reply``."""
        ...


def app(
    take: Take,
    about: OpenInferenceMetadata,
    gate: Gate,
    max_message_bytes: int,
    *,
    sampler: Sampler = NOTHING,
    versions: Callable[[], Iterable[Version]] = tuple,
    control: Mapping[str, Deferred] = MappingProxyType({}),
) -> Starlette:
    """Return the ASGI app of a server process.

    Args:
        take: where requests go.
        about: answers what needs no computing.
        gate: let requests in; this app's own.
        max_message_bytes: larger bodies are refused.
        sampler: say which requests are told about.
        versions: those that are loaded, whose files for TF.js are served.
        control: the methods that load and unload models, by full name; empty without ``--admin``.
    """
    reading = asyncio.Semaphore(1)  # two large bodies would only pass Python's lock to each other

    def enter(request: Request) -> ByteBudget:
        # The scope's path is the one that was routed by: a request's url is also made of its Host header.
        return gate.admit(request.scope["path"], request.headers.get("authorization", "").encode(), _peer(request))

    async def infer(request: Request) -> Response:
        memory = enter(request)
        async with _body(request, max_message_bytes, memory, JSON_COST) as body:
            if len(body) <= WHOLE_BYTES:
                asked = decode_json(body, *_asked(request))
            else:
                async with reading:
                    asked = await _aside(partial(decode_json, body, *_asked(request)))
            priority = request.headers.get(PRIORITY)
            reply = PendingReply()
            origin = None
            if sampler.wanted:
                ids = (request.headers.get(name, "").encode() for name in (REQUEST_ID, TRACEPARENT))
                origin = sampler.origin(memory.name or _peer(request), *ids)
            is_bulk = priority is not None and bulk(priority)
            take(asked, JSON, float("inf"), reply, bulk=is_bulk, origin=origin)
            answer = await reply
        return _error(answer) if isinstance(answer, Status) else Response(answer, media_type="application/json")

    async def server(request: Request) -> Response:
        enter(request)
        metadata = oip.ServerMetadataResponse.FromString(about.server(b""))
        return JSONResponse(
            {"name": metadata.name, "version": metadata.version, "extensions": list(metadata.extensions)}
        )

    async def live(_request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(_request: Request) -> Response:
        is_ready = oip.ServerReadyResponse.FromString(about.ready(b"")).ready
        return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)

    async def model(request: Request) -> Response:
        enter(request)
        name, version = _asked(request)
        question = oip.ModelMetadataRequest(name=name, version=version)
        metadata = oip.ModelMetadataResponse.FromString(about.model(question.SerializeToString()))
        return JSONResponse(
            {
                "name": metadata.name,
                "versions": list(metadata.versions),
                "platform": metadata.platform,
                "inputs": [_tensor(each) for each in metadata.inputs],
                "outputs": [_tensor(each) for each in metadata.outputs],
                "signatures": [
                    {
                        "name": each.name,
                        "inputs": [_tensor(spec) for spec in each.inputs],
                        "outputs": [_tensor(spec) for spec in each.outputs],
                    }
                    for each in metadata.horngate_signatures
                ],
            }
        )

    async def model_ready(request: Request) -> Response:
        enter(request)
        name, version = _asked(request)
        question = oip.ModelReadyRequest(name=name, version=version)
        is_ready = oip.ModelReadyResponse.FromString(about.model_ready(question.SerializeToString())).ready
        return JSONResponse({"name": name, "ready": is_ready}, 200 if is_ready else 503)

    one = ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")
    return _starlette(
        [
            Route("/v2", server),
            Route("/v2/health/live", live),
            Route("/v2/health/ready", ready),
            *(Route(path, model) for path in one),
            *(Route(f"{path}/ready", model_ready) for path in one),
            *(Route(f"{path}/infer", infer, methods=["POST"]) for path in one),
            _model_files(lambda request: model_files.serve(request, versions(), enter(request))),
            *_repository(about, gate, control, max_message_bytes),
        ]
    )


def forwarding(
    ask: Callable[[str, str, bytearray, Mapping[str, str]], unix_client.Answer],
    fetch: Callable[[str, str, Mapping[str, str]], unix_client.Fetched],
    gate: Gate,
    max_message_bytes: int,
) -> Starlette:
    """Return the ASGI app of a process that computes nothing: it lets another one answer.

    Args:
        ask: sends method, path, body and headers to one that does, and returns its answer; blocks.
        fetch: the same without a body, for an answer that is read piece by piece.
        gate: let requests in, before their bodies come; limits of each client are the other process's.
        max_message_bytes: larger bodies are refused.
    """

    def admitted(request: Request) -> tuple[str, dict[str, str]]:
        """Let a request in, and return the path and the headers to ask another process with."""
        path = request.scope["raw_path"].decode("ascii")  # as it came; see `app` for why not the url's
        if path not in OPEN:
            gate.admit(path, request.headers.get("authorization", "").encode(), _peer(request))
        headers = {name: request.headers[name] for name in FORWARDED if name in request.headers}
        return path, {**headers, PEER: _peer(request)}

    async def forward(request: Request) -> Response:
        path, headers = admitted(request)
        async with _body(request, max_message_bytes, gate.memory) as body:
            try:
                answer = await run_in_threadpool(ask, request.method, path, body, headers)
            except OSError as error:
                raise NotReady("no worker answers") from error
        kept = {name: answer.headers[name] for name in ("retry-after",) if name in answer.headers}
        return Response(answer.body, answer.status, kept, media_type="application/json")

    async def model_file(request: Request) -> Response:
        path, headers = admitted(request)
        return await model_files.forward(
            request, lambda more: fetch(request.method, path, {**headers, **more}), gate.memory
        )

    paths = ("/v2", "/v2/{rest:path}")
    return _starlette([*(Route(path, forward, methods=["GET", "POST"]) for path in paths), _model_files(model_file)])


# --- private ------------------------------------------------------------------------------------------


def _repository(
    about: OpenInferenceMetadata, gate: Gate, control: Mapping[str, Deferred], max_message_bytes: int
) -> list[Route]:
    """Return the routes of Triton's model repository extension."""

    def enter(method: str, request: Request) -> ByteBudget:
        return gate.admit(method, request.headers.get("authorization", "").encode(), _peer(request))

    async def index(request: Request) -> Response:
        enter(request.scope["path"], request)
        return JSONResponse([_entry(each) for each in oip.RepositoryIndexResponse.FromString(about.index(b"")).models])

    async def change(method: str, request: Request) -> Response:
        memory = enter(method, request)
        if method not in control:
            raise NotImplementedHere(NO_ADMIN)
        if gate.tokens is None:  # any page in an administrator's browser could ask for it
            raise Forbidden(NO_TOKENS)
        name = request.path_params["name"]
        async with _body(request, max_message_bytes, memory, JSON_COST) as body:
            asked = (
                decode_load_json(body, name) if method == LOAD else oip.RepositoryModelUnloadRequest(model_name=name)
            )
        done: Future[bytes] = Future()
        control[method](asked.SerializeToString(), partial(_settle, done))
        await asyncio.wrap_future(done)
        return JSONResponse({})

    one = "/v2/repository/models/{name}"
    return [
        Route("/v2/repository/index", index, methods=["POST"]),
        Route(f"{one}/load", partial(change, LOAD), methods=["POST"]),
        Route(f"{one}/unload", partial(change, UNLOAD), methods=["POST"]),
    ]


def _starlette(routes: list[Route]) -> Starlette:
    made = Starlette(routes=routes, exception_handlers=_HANDLERS)
    made.router.redirect_slashes = False  # a redirection goes where the Host header says
    return made


def _model_files(answer: Callable[[Request], Awaitable[Response]]) -> Route:
    async def answer_without_a_body(request: Request) -> Response:
        if int(request.headers.get("content-length", "0")) or "transfer-encoding" in request.headers:
            raise InvalidRequest("a body; expected none")
        await request.body()  # has not come: its place would be another's
        return await answer(request)

    return Route(model_files.PATH, answer_without_a_body)


def _asked(request: Request) -> tuple[str, str]:
    """Return the model and the version that the path names."""
    return request.path_params["name"], request.path_params.get("version", "")


def _peer(request: Request) -> str:
    """Return the caller's address; a supervisor's socket has none, and it says whom it asks for."""
    return request.client.host if request.client else request.headers.get(PEER, "")


@asynccontextmanager
async def _body(request: Request, at_most: int, memory: ByteBudget, cost: int = 1) -> AsyncIterator[bytearray]:
    """Receive a body. Its memory, ``cost`` for a byte, is taken before the first one, until the block is left."""
    if request.headers.get("content-encoding", "identity") != "identity":
        raise InvalidRequest("the body is compressed; expected JSON as it is")
    if "transfer-encoding" in request.headers:
        raise HTTPException(411, "the body does not say how long it is; expected content-length")
    size = int(request.headers.get("content-length", "0"))  # the server has seen that it is a number, and true
    if size > at_most:
        raise MessageTooLarge(f"a body of {size} bytes; expected at most {at_most} (--max-message-bytes)")
    memory.take(size * cost)
    body = bytearray()  # grows in place: Starlette's own would be in memory twice
    try:
        async for piece in request.stream():
            body += piece
        yield body
    finally:
        memory.give(size * cost)


async def _aside(decode: Callable[[], InferenceRequest]) -> InferenceRequest:
    """Decode on a thread of its own, so that the loop answers others meanwhile; the process's end waits for none."""
    decoded: Future[InferenceRequest] = Future()
    decoded.set_running_or_notify_cancel()

    def run() -> None:
        try:
            decoded.set_result(decode())
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            decoded.set_exception(error)

    threading.Thread(target=run, name="json", daemon=True).start()
    return await asyncio.wrap_future(decoded)


def _settle(future: "Future[bytes]", answer: bytes | RequestError) -> None:
    if not future.set_running_or_notify_cancel():
        return  # the caller has gone
    if isinstance(answer, RequestError):
        future.set_exception(answer)
    else:
        future.set_result(answer)


def _entry(each: oip.RepositoryIndexResponse.ModelIndex) -> dict[str, Any]:
    return {"name": each.name, "version": each.version, "state": each.state, "reason": each.reason}


def _tensor(tensor: oip.ModelMetadataResponse.TensorMetadata) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def _error(status: Status) -> Response:
    headers = {}
    code = CODES[status.name]
    pushback = dict(status.trailers).get("grpc-retry-pushback-ms")
    if pushback == "-1":  # too large: it is of no use to try again
        code = 413
    elif pushback is not None:
        headers["retry-after"] = str(RETRY_AFTER_S)
    return JSONResponse({"error": status.message}, code, headers)


async def _on_request_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return _error(status_of(error))


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.scope["path"]
    sentence = f"{request.method} {path}: {error.detail.lower()}; see the README's table of HTTP paths"
    return JSONResponse({"error": sentence}, error.status_code, error.headers)


async def _on_disconnect(_request: Request, _error: Exception) -> Response:
    return Response()  # to nobody: the caller went before its body had come


_HANDLERS: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
    RequestError: _on_request_error,
    HTTPException: _on_http_error,
    ClientDisconnect: _on_disconnect,
}
