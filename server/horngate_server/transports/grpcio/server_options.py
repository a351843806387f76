"""The limits that gRPC's own server is given."""

STREAMS_PER_CONNECTION = 256
"""Calls of a connection that are open; callers let further ones wait (`SETTINGS_MAX_CONCURRENT_STREAMS`)."""
CANCELLED_PER_CONNECTION = 768
"""Calls of a connection that are cancelled, and that Python has not seen to be so; gRPC refuses new ones beyond it. So
a caller may cancel hundreds at once, and one that does nothing else leaves room for others."""
PENDING_CALLS = 5 * (STREAMS_PER_CONNECTION + CANCELLED_PER_CONNECTION)
"""Calls that gRPC holds until Python takes them; it ends further ones with CANCELLED. Beyond its own 1,000 it would end
some, at random. Four connections that do nothing but cancel leave room for the calls of others; each call of these may
have half a megabyte of headers, so more room would be dear."""
HANDSHAKE_MS = 10_000
"""How long a new connection may take until it speaks TLS and HTTP/2."""
IDLE_MS = 300_000
"""A connection without calls for this long is closed; clients open it again when they need it."""
KEEPALIVE_MS = 60_000
"""A connection from which nothing came for this long is asked whether it is alive, and closed after 20 s more."""
CALLERS_KEEPALIVE_MS = 10_000
"""How often idle callers may ask whether we are alive; gRPC would end their connections below its own 5 minutes."""


def server_options(
    *, max_message_bytes: int, max_connections: int, max_connection_age_s: float, shared: bool
) -> list[tuple[str, int]]:
    """Return them as ``grpc.aio.server`` takes them (the arguments are `GrpcioTransport`'s)."""
    options = [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_allowed_incoming_connections", max_connections),
        ("grpc.server.max_pending_requests", PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", PENDING_CALLS),
        ("grpc.max_concurrent_streams", STREAMS_PER_CONNECTION),
        ("grpc.http2.max_deallocating_streams", CANCELLED_PER_CONNECTION),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
        ("grpc.max_connection_idle_ms", IDLE_MS),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", CALLERS_KEEPALIVE_MS),
        ("grpc.so_reuseport", int(shared)),  # two servers on one port by mistake must be an error
    ]
    if max_connection_age_s:
        options.append(("grpc.max_connection_age_ms", round(1000 * max_connection_age_s)))
    return options
