"""Asks a running server from outside whether it serves: ``horngate-server health``. Never by way of a proxy."""

import urllib.request
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from horngate_protos.connection_causes import Cause, cause
from horngate_server.core.methods import CHECK


def ask(address: str, model: str, timeout_s: float) -> str:
    """Ask a running server whether it serves.

    Args:
        address: its gRPC port.
        model: one of its models; empty: the whole server.
        timeout_s: how long it may take to answer.

    Returns:
        Why it does not, in words; empty where it does.
    """
    with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        check = channel.unary_unary(
            CHECK,
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )
        try:
            response = check(HealthCheckRequest(service=model), timeout=timeout_s)
        except grpc.RpcError as error:
            return f"{address}: {_reason(error, timeout_s)}"
    if response.status == HealthCheckResponse.SERVING:
        return ""
    who = f"{model} is not" if model else "no model is"
    return f"{address}: it answers, and takes no traffic: {who} warm, or it drains"


def ask_ready(url: str, timeout_s: float) -> str:
    """Ask a running server's ``/readyz``; see `ask`."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=timeout_s):
            return ""
    except HTTPError as error:
        return f"{url}: {error.code}: {error.read(1000).decode(errors='replace').strip()}"
    except URLError as error:
        return f"{url}: {_NOBODY if isinstance(error.reason, ConnectionRefusedError) else error.reason}"
    except (OSError, HTTPException) as error:
        return f"{url}: {str(error) or type(error).__name__}: is this its HTTP port?"


# --- private ------------------------------------------------------------------------------------------

_NOBODY = "nothing listens there (connection refused)"
_CAUSES = {
    Cause.NOBODY: _NOBODY,
    Cause.HTTP: "HTTP answers there, not gRPC: name its gRPC port",
    Cause.HUNG_UP: "it hangs up on callers without TLS; without --server, /readyz is asked where TLS is set",
    Cause.UNKNOWN_NAME: "the name cannot be looked up",
    Cause.SILENT: "something listens there and says nothing: is it a gRPC server?",
}


def _reason(error: Any, timeout_s: float) -> str:
    """Say why a call failed; `error` is a call, too."""
    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"no answer in {timeout_s:g} s"
    if code is grpc.StatusCode.UNAVAILABLE and (found := _CAUSES.get(cause(details))):  # type: ignore[arg-type]  # None is no key
        return found
    return f"{code.name}: {details}"
