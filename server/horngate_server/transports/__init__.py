"""The seam to the wire. A transport turns its server's calls into `Call` and hands answers back in batches.

Nothing else in Horngate knows which transport runs.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Reply(Protocol):
    """Where one answer goes; made by the transport, opaque to everyone else."""

    def done(self) -> bool:
        """Whether nobody waits any more: answered, cancelled or disconnected. Callable from any thread."""
        ...


class Call(NamedTuple):
    """One unary call.

    What is made for every request is a NamedTuple: as frozen as a dataclass, at a third of the cost.

    Attributes:
        method: its full name, ``/package.Service/Method``.
        message: the request's bytes.
        deadline: on the server's monotonic clock, in seconds; infinite where the caller set none.
        reply: where the answer goes.
    """

    method: str
    message: bytes | memoryview
    deadline: float
    reply: Reply


@dataclass(frozen=True, slots=True)
class Status:
    """How a call ends that has no answer.

    Attributes:
        code: gRPC's number for it.
        name: gRPC's name for it, as metrics label it.
        message: one sentence for the caller.
        trailers: metadata sent along.
    """

    code: int
    name: str
    message: str
    trailers: tuple[tuple[str, str | bytes], ...] = ()


Answer = tuple[Reply, bytes | Status]
Deliver = Callable[[Sequence[Answer]], None]
Stream = Callable[[AsyncIterator[bytes]], AsyncIterator[bytes]]
"""A streaming method: messages in, messages out, on an asyncio loop of the transport's."""


class Service(Protocol):
    """What a transport serves."""

    @property
    def methods(self) -> frozenset[str]:
        """The unary methods' full names."""
        ...

    @property
    def streams(self) -> Mapping[str, Stream]:
        """The streaming methods by full name."""
        ...

    def accept(self, calls: Sequence[Call]) -> None:
        """Take calls; each is answered exactly once through the transport's ``deliver``. Never blocks."""
        ...


class Transport(Protocol):
    """A gRPC server."""

    name: str

    def start(self, service: Service) -> int:
        """Listen, and return the port.

        Raises:
            SettingsError: the address cannot be listened on.
        """
        ...

    def deliver(self, answers: Sequence[Answer]) -> None:
        """Hand answers back, from any thread; those whose caller has gone are dropped."""
        ...

    def stop(self, grace_s: float) -> None:
        """Refuse new calls, give those in flight so many seconds, and close."""
        ...
