"""The one place where gRPC's errors become ours, and where the causes of failed connections get their names."""

import re
import socket
from contextlib import suppress
from typing import Any

import grpc

from horngate_client import errors
from horngate_client.channels import Endpoint, TlsConfig, path_of
from horngate_client.errors import CallError
from horngate_client.retry import pushback_seconds
from horngate_protos.connection_causes import Cause, cause


def failure(error: grpc.RpcError, address: str, method: str, endpoint: Endpoint) -> CallError:
    """Turn gRPC's error into ours.

    Args:
        error: what the call raised.
        address: where it went.
        method: the RPC's name.
        endpoint: how the server is reached, which says what may be wrong with that.
    """
    status: Any = error  # what a call raises has these, in both of gRPC's APIs; the base class does not say so
    code, details = status.code().name, status.details() or ""
    trailers = {str(key): value for key, value in status.trailing_metadata() or ()}
    kind = _KINDS.get(code, errors.ServerFault)
    said = details or code
    unsent = code == "UNAVAILABLE" and any(words in details for words in _NEVER_SENT)
    why = cause(details) if unsent else None
    if why is not None:
        said = _sentence(why, details, endpoint.tls)
        if why is Cause.NOBODY and (there := _other_localhost(address)):
            said = f"something listens at {there}, and gRPC cannot talk to it: name that address, and the cause is told"
    elif code == "RESOURCE_EXHAUSTED" and "larger than max" in details:  # gRPC itself, not a queue: no time cures it
        kind, said = errors.InvalidRequest, f"{details}: lower rows_per_request"
    elif code == "UNIMPLEMENTED":
        said = f"it does not know {path_of(method)}: is this an Open Inference Protocol server? ({said})"
    elif code == "CANCELLED":
        said = f"the server cancelled it ({said})"
    elif code == "DEADLINE_EXCEEDED":
        said = f"no answer in time ({said})"
    elif code == "UNAUTHENTICATED" and endpoint.token is None:
        said = f"{said}: no token was sent (token=, --token or HORNGATE_TOKEN)"
    elif code == "INTERNAL" or code not in _KINDS:
        said = f"{code}: {said}"
    if unsent and (proxy := endpoint.proxy_of(address)):
        said = f"{said} (there may be a proxy between: {proxy} names one, and no_proxy excepts hosts)"
    translated = kind(
        f"{address}: {said}",
        code=code,
        details=details,
        address=address,
        pushback=pushback_seconds(trailers.get("grpc-retry-pushback-ms")),
    )
    translated.unsent = unsent
    translated.lasting = why in _LASTING
    translated.__cause__ = error  # it is raised later, when no retry is left
    return translated


def cancelled(address: str) -> CallError:
    """Return what a call became that the server cancelled; asyncio shows it as if a task had been cancelled."""
    return errors.Unavailable(f"{address}: the server cancelled it", code="CANCELLED", address=address)


# --- private ------------------------------------------------------------------------------------------------

_KINDS: dict[str, type[CallError]] = {
    "INVALID_ARGUMENT": errors.InvalidRequest,
    "OUT_OF_RANGE": errors.InvalidRequest,
    "NOT_FOUND": errors.ModelNotFound,
    "UNAUTHENTICATED": errors.Unauthenticated,
    "PERMISSION_DENIED": errors.Unauthenticated,
    "DEADLINE_EXCEEDED": errors.DeadlineExceeded,
    "RESOURCE_EXHAUSTED": errors.Overloaded,
    "UNAVAILABLE": errors.Unavailable,
    "CANCELLED": errors.Unavailable,  # by the server, as it stops: what we cancel ourselves is never reported
}

_NEVER_SENT = ("failed to connect to all addresses", "connections to all backends failing", "errors resolving")
"""What gRPC's load balancing says of a connection that it could not make."""


_LASTING = frozenset([Cause.UNTRUSTED, Cause.OTHER_NAME, Cause.NO_TLS, Cause.HTTP])
"""What time does not cure. A server that stops hangs up as well, and may be there again soon."""
_LOOPBACK_SECONDS = 0.05
"""This machine itself answers in far less; an event loop may wait for it."""
_SENTENCES = {
    Cause.OTHER_NAME: "its certificate is for another name: connect to that name, or say it with "
    "TlsConfig(server_name=...) or --tls-server-name",
    Cause.NO_TLS: "it speaks no TLS: leave out tls (--tls), or name the port that does",
    Cause.HTTP: "HTTP answers there, not gRPC: name the server's gRPC port (8001 unless it was changed)",
    Cause.NOBODY: "nothing listens there (connection refused): does the server run, and is this its gRPC port?",
    Cause.SILENT: "something listens there and says nothing: is it a gRPC server?",
    Cause.UNKNOWN_NAME: "the name cannot be looked up: is it written as it should be?",
}


def _sentence(why: Cause, details: str, tls: TlsConfig | None) -> str:
    if why is Cause.UNTRUSTED:
        return _untrusted(details)
    if why is Cause.HUNG_UP and tls is None:
        return "it hangs up on callers without TLS: does it speak TLS (tls=True or --tls)?"
    if why is Cause.HUNG_UP and tls is not None and tls.cert is None:
        return "it hangs up: does it want our certificate (TlsConfig(cert=..., key=...) or --tls-cert and --tls-key)?"
    return _SENTENCES.get(why, details)


def _other_localhost(address: str) -> str | None:
    """Return the address of localhost at which somebody listens, should gRPC have told of the other one alone."""
    host, _, port = address.rpartition(":")
    for family, loopback in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")) if host == "localhost" else ():
        with suppress(OSError), socket.socket(family) as probe:
            probe.settimeout(_LOOPBACK_SECONDS)
            probe.connect((loopback, int(port)))
            return f"[{loopback}]:{port}" if ":" in loopback else f"{loopback}:{port}"
    return None


def _untrusted(details: str) -> str:
    found = re.search(r"CERTIFICATE_VERIFY_FAILED: ([^:]+)", details)
    why = found[1] if found else "it could not be verified"
    if "expired" in why or "not yet valid" in why:
        return f"its certificate is not valid now ({why}): renew it, or set this machine's clock"
    return f"its certificate is not trusted here ({why}): name its authority with TlsConfig(ca=...) or --tls-ca"
