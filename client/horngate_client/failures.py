"""The one place where gRPC's errors become ours, and where the causes of failed connections get their names."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import grpc

from horngate_client import errors
from horngate_client.channels import Endpoint, path_of
from horngate_client.errors import CallError
from horngate_client.retry import pushback_seconds


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
    cause = _cause(details, endpoint) if unsent else None
    if cause is not None:
        said = cause.say(details, address)
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
    translated.lasting = cause is not None and cause.lasting
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


class _Cause(NamedTuple):
    """Why a connection could not be made.

    Attributes:
        say: makes a sentence of gRPC's details and the address.
        lasting: time does not cure it.
    """

    say: Callable[[str, str], str]
    lasting: bool = True


def _untrusted(details: str, _address: str) -> str:
    found = re.search(r"CERTIFICATE_VERIFY_FAILED: ([^:]+)", details)
    why = found[1] if found else "it could not be verified"
    if "expired" in why or "not yet valid" in why:
        return f"its certificate is not valid now ({why}): renew it, or set this machine's clock"
    return f"its certificate is not trusted here ({why}): name its authority with TlsConfig(ca=...) or --tls-ca"


def _other_name(_details: str, _address: str) -> str:
    return (
        "its certificate is for another name: connect to that name, or say it with TlsConfig(server_name=...) or "
        "--tls-server-name"
    )


def _no_tls(_details: str, _address: str) -> str:
    return "it speaks no TLS: leave out tls (--tls), or name the port that does"


def _http(_details: str, _address: str) -> str:
    return "HTTP answers there, not gRPC: name the server's gRPC port (8001 unless it was changed)"


def _nobody(_details: str, _address: str) -> str:
    return "nothing listens there (connection refused): does the server run, and is this its gRPC port?"


def _silent(_details: str, _address: str) -> str:
    return "something listens there and says nothing: is it a gRPC server?"


def _unknown_name(_details: str, address: str) -> str:
    return f"the name cannot be looked up: is it written as it should be? ({address})"


def _hung_up(_details: str, _address: str) -> str:
    return "it hangs up on callers without TLS: does it speak TLS (tls=True or --tls)?"


def _wants_certificate(_details: str, _address: str) -> str:
    return "it hangs up: does it want our certificate (TlsConfig(cert=..., key=...) or --tls-cert and --tls-key)?"


_CAUSES = {
    "CERTIFICATE_VERIFY_FAILED": _Cause(_untrusted),
    "Hostname Verification Check failed": _Cause(_other_name),
    "WRONG_VERSION_NUMBER": _Cause(_no_tls),
    "http1.x server": _Cause(_http),
    "Expected SETTINGS frame": _Cause(_http),
    "Connection refused": _Cause(_nobody, lasting=False),
    "before receiving SETTINGS": _Cause(_silent, lasting=False),
    "errors resolving": _Cause(_unknown_name, lasting=False),
}
"""By what gRPC's details hold of them; of several, the first counts."""
_CLOSED = ("Socket closed", "Connection reset")


def _cause(details: str, endpoint: Endpoint) -> _Cause | None:
    for words, cause in _CAUSES.items():
        if words in details:
            return cause
    if any(words in details for words in _CLOSED):  # a server that stops does so, too: it may be there again soon
        if endpoint.tls is None:
            return _Cause(_hung_up, lasting=False)
        if endpoint.tls.cert is None:
            return _Cause(_wants_certificate, lasting=False)
    return None
