"""The seam to the wire. A transport turns its server's calls into `Call` and hands answers back in batches.

Nothing else in Horngate knows which transport runs.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from horngate_server.core.errors import InvalidRequest
from horngate_server.core.request_context import RequestContext

if TYPE_CHECKING:  # they need NumPy, whose threads must not begin before signals are blocked
    from horngate_server.core.codec import Codec
    from horngate_server.core.inference import InferenceRequest

PRIORITY = "horngate-priority"
"""The metadata by which any protocol's caller says ``interactive``, which is the default, or ``bulk``."""


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
        bulk: its metadata say that it may wait (`PRIORITY`).
        origin: where it comes from, if it is to be told about.
        decoded: the request and what writes its answer, where the transport has read it: method and message are empty.
    """

    method: str
    message: bytes | memoryview
    deadline: float
    reply: Reply
    bulk: bool = False
    origin: RequestContext | None = None
    decoded: "tuple[Codec, InferenceRequest] | None" = None


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


class OwnReply:
    """A reply that does not go by the transport: others like it are answered together (`deliver_own`)."""

    __slots__ = ()

    @property
    def way(self) -> Hashable:
        """What it has in common with those that are answered together with it."""
        raise NotImplementedError

    def deliver(self, answers: "Sequence[Answer]") -> None:
        """Answer replies that go the same way, from any thread."""
        raise NotImplementedError


class PendingReply(OwnReply):
    """A reply that somebody else than the transport waits for. Made and awaited on one asyncio loop."""

    __slots__ = ("_loop", "future")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[bytes | Status] = self._loop.create_future()

    def done(self) -> bool:
        """Whether nobody waits any more (`Reply.done`)."""
        return self.future.done()

    @property
    def way(self) -> Hashable:
        """Its loop (`OwnReply.way`)."""
        return self._loop

    def deliver(self, answers: "Sequence[Answer]") -> None:
        """Answer, crossing to the loop's thread once (`OwnReply.deliver`)."""
        try:
            is_here = asyncio.get_running_loop() is self._loop
        except RuntimeError:  # there is none on this thread
            is_here = False
        if is_here:
            _set(answers)
        else:
            with suppress(RuntimeError):  # the loop has ended, and with it whoever waited
                self._loop.call_soon_threadsafe(_set, answers)

    def cancel(self) -> None:
        """Wait no more."""
        self.future.cancel()

    def __await__(self) -> "Generator[Any, None, bytes | Status]":
        """Wait for the answer."""
        return self.future.__await__()


def deliver_own(answers: "Sequence[Answer]") -> "Sequence[Answer]":
    """Answer what has its own way back, and return what is the transport's."""
    others = [each for each in answers if not isinstance(each[0], OwnReply)]
    if len(others) == len(answers):
        return answers
    ways: dict[Hashable, list[Answer]] = {}
    for reply, answer in answers:
        if isinstance(reply, OwnReply):
            ways.setdefault(reply.way, []).append((reply, answer))
    for together in ways.values():
        first = together[0][0]
        assert isinstance(first, OwnReply)
        first.deliver(together)
    return others


def _set(answers: "Sequence[Answer]") -> None:
    for reply, answer in answers:
        assert isinstance(reply, PendingReply)
        if not reply.done():
            reply.future.set_result(answer)


def bulk(priority: bytes | str) -> bool:
    """Read the value of `PRIORITY`.

    Raises:
        InvalidRequest: it is neither of the two.
    """
    value = priority.decode(errors="replace") if isinstance(priority, bytes) else priority
    if value not in {"interactive", "bulk"}:
        raise InvalidRequest(f"{PRIORITY}: {value}; expected interactive or bulk")
    return value == "bulk"


Answer = tuple[Reply, bytes | Status]
Deliver = Callable[[Sequence[Answer]], None]


class CallOptions(NamedTuple):
    """What the metadata of a streaming call say of each of its messages.

    Attributes:
        deadline: as a unary call's.
        bulk: as a unary call's.
        origin: says, for one message, where it comes from, if it is to be told about.
    """

    deadline: float
    bulk: bool
    origin: Callable[[], RequestContext | None]


Stream = Callable[[AsyncIterator[bytes], CallOptions], AsyncIterator[bytes]]
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
    """A gRPC server.

    Attributes:
        name: its, for people.
        may_compute: whether the thread that hands calls over may compute a short batch before it takes further ones.
    """

    name: str
    may_compute: bool

    def start(self, service: Service) -> int:
        """Listen, and return the port.

        Raises:
            SettingsError: the address cannot be listened on.
        """
        ...

    def deliver(self, answers: Sequence[Answer]) -> None:
        """Hand answers back, from any thread; those whose caller has gone are dropped."""
        ...

    def drain(self) -> None:
        """Listen no more, and tell all callers to open their next calls elsewhere (GOAWAY); go on answering."""
        ...

    def stop(self, grace_s: float) -> bool:
        """Refuse new calls, give those in flight so many seconds, and close; False if some had not ended by then."""
        ...
