"""What is told of a request that has ended, and to whom."""

from collections.abc import Callable
from typing import NamedTuple

from horngate_server.core.request_context import RequestContext

ID_CHARACTERS = 128
"""Longer ids are cut."""


class RequestRecord(NamedTuple):
    """One request that was to be told about, and how it ended. Times are on the monotonic clock, in seconds.

    Attributes:
        origin: where it came from.
        protocol: in which it came.
        model: the model's name.
        version: that answered; empty where none did.
        rows: how many.
        id: the request's own, where its protocol has one.
        code: gRPC's name for the outcome.
        message: what its caller was told, where it failed.
        arrived: when.
        began: when its (first) batch was taken from the queue; infinite where it never was.
        computed: when its outputs were there; infinite as well.
        ended: when its answer was handed to the transport.
    """

    origin: RequestContext
    protocol: str
    model: str
    version: str
    rows: int
    id: str
    code: str
    message: str
    arrived: float
    began: float
    computed: float
    ended: float

    @property
    def request_id(self) -> str:
        """What its caller calls it, in the metadata or else in the request."""
        return (self.origin.request_id or self.id)[:ID_CHARACTERS]


RequestObserver = Callable[[RequestRecord], None]
"""Tells about a request in its own way; must be quick."""
