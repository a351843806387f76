"""What a call's metadata ask for: a deadline, a priority, a log line or a trace. The same on every transport."""

from collections.abc import Callable, Mapping
from functools import partial
from math import inf
from typing import Generic, TypeVar

from horngate_server.core.clock import Clock
from horngate_server.core.request_context import REQUEST_ID, TRACEPARENT, RequestContext
from horngate_server.core.rpc import PRIORITY, CallOptions, bulk
from horngate_server.telemetry.sampling import Sampler

_Key = TypeVar("_Key", str, bytes)


class MetadataReader(Generic[_Key]):
    """Reads metadata whose names are text (grpcio) or bytes (ASGI).

    Args:
        key: turns a name into what the metadata have: ``str`` or ``str.encode``.
        clock: the monotonic clock of deadlines.
        sampler: decides which calls are logged and traced.

    Attributes:
        samples: any are.
    """

    def __init__(self, key: Callable[[str], _Key], clock: Clock, sampler: Sampler) -> None:
        self._priority: _Key = key(PRIORITY)
        self._request_id: _Key = key(REQUEST_ID)
        self._traceparent: _Key = key(TRACEPARENT)
        self._clock = clock
        self._sampler = sampler
        self.samples = sampler.wanted

    def deadline(self, timeout_s: float | None) -> float:
        """Return the deadline of a call that comes now; infinite without a timeout."""
        return inf if timeout_s is None else self._clock() + timeout_s

    def bulk(self, metadata: Mapping[_Key, str | bytes]) -> bool:
        """Return whether a call is bulk.

        Raises:
            InvalidRequest: its priority is none.
        """
        priority = metadata.get(self._priority)
        return priority is not None and bulk(priority)

    def context(self, metadata: Mapping[_Key, str | bytes], client: str) -> RequestContext | None:
        """Return what its log line and its trace say of a request; None where it gets neither.

        Args:
            metadata: the call's.
            client: its token's name, or its address.
        """
        if not self.samples:
            return None
        request_id, traceparent = metadata.get(self._request_id), metadata.get(self._traceparent)
        return self._sampler.origin(client, as_bytes(request_id), as_bytes(traceparent))

    def options(self, metadata: Mapping[_Key, str | bytes], timeout_s: float | None, client: str) -> CallOptions:
        """Return all of it, for a call of several messages: each may be logged and traced.

        Raises:
            InvalidRequest: its priority is none.
        """
        context = partial(self.context, metadata, client)
        return CallOptions(self.deadline(timeout_s), self.bulk(metadata), context)


def as_bytes(value: str | bytes | None) -> bytes:
    """Return a metadata value as bytes; empty where there is none."""
    return value.encode() if isinstance(value, str) else value or b""
