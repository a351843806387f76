"""``/v2`` on the HTTP port: the Open Inference Protocol, with the extensions that Triton's HTTP clients use."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any

from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from horngate_protos import open_inference_pb2 as oip
from horngate_protos import triton_pb2 as triton
from horngate_server.core.errors import Forbidden, NotImplementedHere, RequestError
from horngate_server.core.methods import LOAD, UNLOAD
from horngate_server.protocols.open_inference.json import JSON, decode_index_json, decode_json, decode_load_json
from horngate_server.services.open_inference_metadata import OpenInferenceMetadata
from horngate_server.transports.http import bodies
from horngate_server.transports.http.calls import Calls, asked

OPEN = frozenset(["/v2/health/live", "/v2/health/ready"])
"""Paths that need no token: they say what /livez and /readyz say."""
NO_ADMIN = "this server takes no administrator's calls; start it with --admin"
NO_TOKENS = "over HTTP, what is served can be changed by a token alone; expected --tokens with a line for an admin"
MODELS = ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")
NOT_HERE = (
    "/v2/systemsharedmemory/{rest:path}", "/v2/cudasharedmemory/{rest:path}", "/v2/logging", "/v2/trace/setting",
    *(f"{path}/trace/setting" for path in MODELS),
)  # fmt: skip
"""Triton's paths that this server does not have."""
Deferred = Callable[[bytes, Callable[[bytes | RequestError], None]], None]
"""Carries out what a message asks for, and says later, from any thread, how it ended."""


def routes(calls: Calls, about: OpenInferenceMetadata, control: Mapping[str, Deferred]) -> list[Route]:
    """Return the routes.

    Args:
        calls: what all routes have in common.
        about: answers what needs no computing.
        control: the methods that load and unload models, by full name; empty without ``--admin``.
    """

    async def infer(request: Request) -> Response:
        return await calls.infer(
            request, lambda body: decode_json(body.content, *asked(request), body.json_bytes), JSON
        )

    async def not_here(request: Request) -> Response:
        calls.enter(request)
        raise NotImplementedHere(f"{request.method} {request.scope['path']}: Horngate does not have this")

    return [
        *(Route(f"{path}/infer", infer, methods=["POST"]) for path in MODELS),
        *_metadata(calls, about),
        *_repository(calls, about, control),
        *(Route(path, not_here, methods=["GET", "POST"]) for path in NOT_HERE),
    ]


# --- private ------------------------------------------------------------------------------------------


def _metadata(calls: Calls, about: OpenInferenceMetadata) -> list[Route]:
    """Return the routes that say what there is."""

    async def server(request: Request) -> Response:
        calls.enter(request)
        return JSONResponse(_dict(oip.ServerMetadataResponse.FromString(about.server(b""))))

    async def live(_request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(_request: Request) -> Response:
        is_ready = oip.ServerReadyResponse.FromString(about.ready(b"")).ready
        return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)

    async def model(request: Request) -> Response:
        calls.enter(request)
        name, version = asked(request)
        question = oip.ModelMetadataRequest(name=name, version=version)
        metadata = oip.ModelMetadataResponse.FromString(about.model(question.SerializeToString()))
        return JSONResponse(
            {
                "name": metadata.name,
                "versions": list(metadata.versions),
                "platform": metadata.platform,
                **_tensors(metadata),
                "signatures": [{"name": each.name, **_tensors(each)} for each in metadata.horngate_signatures],
            }
        )

    async def model_ready(request: Request) -> Response:
        calls.enter(request)
        name, version = asked(request)
        question = oip.ModelReadyRequest(name=name, version=version)
        is_ready = oip.ModelReadyResponse.FromString(about.model_ready(question.SerializeToString())).ready
        return JSONResponse({"name": name, "ready": is_ready}, 200 if is_ready else 503)

    async def config(request: Request) -> Response:
        calls.enter(request)
        name, version = asked(request)
        question = triton.ModelConfigRequest(name=name, version=version).SerializeToString()
        return JSONResponse(_dict(triton.ModelConfigResponse.FromString(about.config(question)).config))

    async def statistics(request: Request) -> Response:
        calls.enter(request)
        name, version = asked(request) if request.path_params else ("", "")
        question = triton.ModelStatisticsRequest(name=name, version=version).SerializeToString()
        return JSONResponse(_dict(triton.ModelStatisticsResponse.FromString(about.statistics(question))))

    return [
        Route("/v2", server),
        Route("/v2/health/live", live),
        Route("/v2/health/ready", ready),
        Route("/v2/models/stats", statistics),
        *(Route(f"{path}/ready", model_ready) for path in MODELS),
        *(Route(f"{path}/config", config) for path in MODELS),
        *(Route(f"{path}/stats", statistics) for path in MODELS),
        *(Route(path, model) for path in MODELS),
    ]


def _repository(calls: Calls, about: OpenInferenceMetadata, control: Mapping[str, Deferred]) -> list[Route]:
    """Return the routes of Triton's model repository extension."""

    async def index(request: Request) -> Response:
        memory = calls.enter(request)
        async with bodies.expanded(request, calls.max_message_bytes, memory) as body:
            question = decode_index_json(body.content)
        found = oip.RepositoryIndexResponse.FromString(about.index(question.SerializeToString()))
        return JSONResponse([_entry(each) for each in found.models])

    async def change(method: str, request: Request) -> Response:
        memory = calls.enter(request, method)
        if method not in control:
            raise NotImplementedHere(NO_ADMIN)
        if calls.gate.tokens is None:  # any page in an administrator's browser could ask for it
            raise Forbidden(NO_TOKENS)
        name = request.path_params["name"]
        async with bodies.expanded(request, calls.max_message_bytes, memory) as body:
            question = (
                decode_load_json(body.content, name)
                if method == LOAD
                else oip.RepositoryModelUnloadRequest(model_name=name)
            )
        done: Future[bytes] = Future()
        control[method](question.SerializeToString(), partial(_settle, done))
        await asyncio.wrap_future(done)
        return JSONResponse({})

    one = "/v2/repository/models/{name}"
    return [
        Route("/v2/repository/index", index, methods=["POST"]),
        Route(f"{one}/load", partial(change, LOAD), methods=["POST"]),
        Route(f"{one}/unload", partial(change, UNLOAD), methods=["POST"]),
    ]


def _settle(future: "Future[bytes]", answer: bytes | RequestError) -> None:
    if not future.set_running_or_notify_cancel():
        return  # the caller has gone
    if isinstance(answer, RequestError):
        future.set_exception(answer)
    else:
        future.set_result(answer)


def _entry(each: oip.RepositoryIndexResponse.ModelIndex) -> dict[str, Any]:
    return {"name": each.name, "version": each.version, "state": each.state, "reason": each.reason}


def _tensors(
    of: oip.ModelMetadataResponse | oip.ModelMetadataResponse.SignatureMetadata,
) -> dict[str, list[dict[str, Any]]]:
    return {"inputs": [_dict(each) for each in of.inputs], "outputs": [_dict(each) for each in of.outputs]}


def _dict(message: Message) -> dict[str, Any]:
    """Return a message as Triton's JSON has it: all fields under their own names, 64 bits as numbers, not as text."""
    found: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.message_type is None:
            found[field.name] = list(value) if field.is_repeated else value
            if field.enum_type is not None:
                found[field.name] = field.enum_type.values_by_number[value].name
        elif field.message_type.GetOptions().map_entry:
            found[field.name] = {key: _dict(each) if isinstance(each, Message) else each for key, each in value.items()}
        elif field.is_repeated:
            found[field.name] = [_dict(each) for each in value]
        elif message.HasField(field.name):
            found[field.name] = _dict(value)
    return found
