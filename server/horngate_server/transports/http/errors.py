"""How a request ends that fails: gRPC's codes in HTTP's, and one JSON object with the sentence."""

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from horngate_server.core.errors import RequestError
from horngate_server.core.rpc import Status
from horngate_server.protocols.grpc_status import status_of
from horngate_server.protocols.tensorflow_serving import PROTOCOL

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
RETRY_AFTER_S = 1
"""HTTP's Retry-After has whole seconds."""
TENSORFLOW_SERVING = "/v1/"
"""How the paths of TensorFlow Serving's API begin, whose callers expect its codes."""


def error(status: Status) -> Response:
    """Return the answer to a request that ends so."""
    headers = {}
    code = CODES[status.name]
    pushback = dict(status.trailers).get("grpc-retry-pushback-ms")
    if pushback == "-1":  # too large: it is of no use to try again
        code = 413
    elif pushback is not None:
        headers["retry-after"] = str(RETRY_AFTER_S)
    return JSONResponse({"error": status.message}, code, headers)


async def _on_request_error(request: Request, failed: Exception) -> Response:
    assert isinstance(failed, RequestError)
    dialect = PROTOCOL if request.scope["path"].startswith(TENSORFLOW_SERVING) else ""
    return error(status_of(failed, dialect))


async def _on_http_error(request: Request, failed: Exception) -> Response:
    assert isinstance(failed, HTTPException)
    path = request.scope["path"]
    if path.startswith(TENSORFLOW_SERVING) and failed.status_code in {404, 405}:  # as TensorFlow Serving has it
        return JSONResponse({"error": f"Malformed request: {request.method} {path}"}, 400)
    sentence = f"{request.method} {path}: {failed.detail.lower()}; see /openapi.json for the paths that there are"
    return JSONResponse({"error": sentence}, failed.status_code, failed.headers)


async def _on_disconnect(_request: Request, _error: Exception) -> Response:
    return Response()  # to nobody: the caller went before its body had come


HANDLERS: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
    RequestError: _on_request_error,
    HTTPException: _on_http_error,
    ClientDisconnect: _on_disconnect,
}
"""Starlette's."""
