"""Where a request comes from, for those few that are to be told about: access log lines and traces.

Who is told about is decided at the door, once: a request that is not costs nothing afterwards.
"""

from typing import NamedTuple

TRACEPARENT = "traceparent"
REQUEST_ID = "x-request-id"


class RequestContext(NamedTuple):
    """What is known of a request beside the request.

    Attributes:
        client: its token's name, or its address.
        request_id: the caller's name for it (``x-request-id``); empty for none.
        trace_id: 32 hexadecimal digits; empty where it is part of no trace.
        span_id: the caller's span, 16 hexadecimal digits; empty where the trace begins here.
        traced: spans are wanted.
        logged: a line in the access log is wanted.
        decoded: when it had been decoded, on the monotonic clock; 0 before.
    """

    client: str
    request_id: str
    trace_id: str
    span_id: str
    traced: bool
    logged: bool
    decoded: float = 0.0
