"""Where a request comes from, for those few that are to be told about: access log lines and traces.

Who is told about is decided at the door, once: a request that is not costs nothing afterwards.
"""

import re
import secrets
from collections.abc import Callable
from typing import NamedTuple

TRACEPARENT = "traceparent"
REQUEST_ID = "x-request-id"
_TRACEPARENT = re.compile(  # W3C Trace Context: ff is no version, and zeros are no ids
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})(?P<trace>[0-9a-f]{32})-(?!0{16})(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(-.*)?"
)


class Origin(NamedTuple):
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


class Notes:
    """Decides which requests are told about.

    Args:
        access_log: the share of requests that get a log line, 0 to 1.
        traces: the share of requests without a trace of their callers' that begin one; None where nobody collects
            traces. With a caller's trace, the caller decides (W3C Trace Context, the flag ``sampled``).
        random: returns a number from 0 to 1.
    """

    def __init__(self, access_log: float, traces: float | None, random: Callable[[], float]) -> None:
        self._access_log = access_log
        self._traces = traces
        self._random = random
        self.wanted = access_log > 0 or traces is not None

    def origin(self, client: str, request_id: bytes, traceparent: bytes) -> Origin | None:
        """Return what is to be remembered of a request; None for nothing."""
        logged = self._access_log >= 1 or (self._access_log > 0 and self._random() < self._access_log)
        if not logged and self._traces is None:
            return None
        match = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
        trace_id, span_id = (match["trace"].decode(), match["span"].decode()) if match else ("", "")
        if self._traces is None:
            traced = False
        elif match:
            traced = bool(int(match["flags"], 16) & 1)
        else:
            traced = self._random() < self._traces
            trace_id = secrets.token_hex(16) if traced else ""
        if not (logged or traced):
            return None
        return Origin(client, request_id.decode(errors="replace"), trace_id, span_id, traced, logged)


NOTHING = Notes(0.0, None, lambda: 1.0)
"""Tells about nobody."""
