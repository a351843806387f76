"""What the HTTP port computes, or knows of models: ``/v2``, ``/v1``, ``/openapi.json`` and files of models.

Imported when somebody asks for the first time: nobody else pays for it.
"""

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from horngate_server.core.errors import InvalidRequest, NotReady
from horngate_server.core.request_context import REQUEST_ID, TRACEPARENT
from horngate_server.core.rpc import PRIORITY, Call
from horngate_server.lifecycle.repository import Version
from horngate_server.services.open_inference_metadata import OpenInferenceMetadata
from horngate_server.services.tensorflow_serving_metadata import TensorflowServingMetadata
from horngate_server.telemetry.sampling import NOTHING, Sampler
from horngate_server.transports.access.gate import Gate
from horngate_server.transports.http import (
    bodies,
    errors,
    model_files,
    open_inference,
    openapi_page,
    tensorflow_serving,
    unix_client,
)
from horngate_server.transports.http.calls import PEER, Calls, answered, peer

DOCUMENT, PAGE = "/openapi.json", "/openapi"
ASKED = (
    PRIORITY, "authorization", REQUEST_ID, TRACEPARENT, "accept-encoding", "content-encoding", bodies.JSON_BYTES,
)  # fmt: skip
"""Headers of a request that a supervisor hands on."""
ANSWERED = ("retry-after", "content-encoding", "vary", bodies.JSON_BYTES, *openapi_page.HEADERS)
"""Headers of an answer that it hands back, beside its type."""


def app(
    accept: Callable[[Sequence[Call]], None],
    about: OpenInferenceMetadata,
    about_v1: TensorflowServingMetadata,
    gate: Gate,
    *,
    document: Callable[[], Mapping[str, Any]],
    max_message_bytes: int,
    sampler: Sampler = NOTHING,
    versions: Callable[[], Iterable[Version]] = tuple,
    control: Mapping[str, open_inference.Deferred] = MappingProxyType({}),
) -> Starlette:
    """Return the ASGI app of a server process.

    Args:
        accept: where calls go (`rpc.Service.accept`).
        about: answers the Open Inference Protocol's questions that need no computing.
        about_v1: the same for TensorFlow Serving's.
        document: makes the OpenAPI document.
        gate: let requests in; this app's own.
        max_message_bytes: larger bodies are refused.
        sampler: says which requests are told about.
        versions: those that are loaded, whose files for TF.js are served.
        control: the methods that load and unload models, by full name; empty without ``--admin``.
    """
    calls = Calls(accept, gate, max_message_bytes, sampler)

    async def openapi(request: Request) -> Response:
        calls.enter(request)
        described = await run_in_threadpool(document)
        if request.scope["path"] == PAGE:
            return HTMLResponse(openapi_page.page(described), headers=openapi_page.HEADERS)
        return await answered(request, json.dumps(described).encode())

    return _starlette(
        [
            *open_inference.routes(calls, about, control),
            *tensorflow_serving.routes(calls, about_v1),
            *(Route(path, openapi) for path in (DOCUMENT, PAGE)),
            _model_files(lambda request: model_files.serve(request, versions(), calls.enter(request))),
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
        path = request.scope["raw_path"].decode("ascii")  # as it came; see `Calls.enter` for why not the url's
        if path not in open_inference.OPEN:
            gate.admit(path, request.headers.get("authorization", "").encode(), peer(request))
        headers = {name: request.headers[name] for name in ASKED if name in request.headers}
        return path, {**headers, PEER: peer(request)}

    async def forward(request: Request) -> Response:
        path, headers = admitted(request)
        async with bodies.received(request, max_message_bytes, gate.memory) as body:
            try:
                answer = await run_in_threadpool(ask, request.method, path, body, headers)
            except OSError as error:
                raise NotReady("no worker answers") from error
        kept = {name: answer.headers[name] for name in ANSWERED if name in answer.headers}
        return Response(answer.body, answer.status, kept, media_type=answer.headers.get("content-type"))

    async def model_file(request: Request) -> Response:
        path, headers = admitted(request)
        return await model_files.forward(
            request, lambda more: fetch(request.method, path, {**headers, **more}), gate.memory
        )

    paths = ("/v2", "/v2/{rest:path}", "/v1/{rest:path}", DOCUMENT, PAGE)
    return _starlette([*(Route(path, forward, methods=["GET", "POST"]) for path in paths), _model_files(model_file)])


# --- private ------------------------------------------------------------------------------------------


def _starlette(routes: list[Route]) -> Starlette:
    made = Starlette(routes=routes, exception_handlers=errors.HANDLERS)
    made.router.redirect_slashes = False  # a redirection goes where the Host header says
    return made


def _model_files(answer: Callable[[Request], Awaitable[Response]]) -> Route:
    async def answer_without_a_body(request: Request) -> Response:
        if int(request.headers.get("content-length", "0")) or "transfer-encoding" in request.headers:
            raise InvalidRequest("a body; expected none")
        await request.body()  # has not come: its place would be another's
        return await answer(request)

    return Route(model_files.PATH, answer_without_a_body)
