"""Which requests are told about, in the access log and in traces: decided at the door, once for each."""

import random
import re
import secrets
from collections.abc import Callable

from horngate_server.core.request_context import RequestContext
from horngate_server.core.settings import Settings

_TRACEPARENT = re.compile(  # W3C Trace Context: ff is no version, and zeros are no ids
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})(?P<trace>[0-9a-f]{32})-(?!0{16})(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(-.*)?"
)


class Sampler:
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

    @classmethod
    def of(cls, settings: Settings) -> "Sampler":
        """Return what settings ask for."""
        return cls(settings.access_log, settings.trace_share if settings.otlp_endpoint else None, random.random)

    def origin(self, client: str, request_id: bytes, traceparent: bytes) -> RequestContext | None:
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
        return RequestContext(client, request_id.decode(errors="replace"), trace_id, span_id, traced, logged)


NOTHING = Sampler(0.0, None, lambda: 1.0)
"""Tells about nobody."""
