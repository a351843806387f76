"""Who is let in, what they may do, and how much at once: asked by a transport before it reads a message.

Health is open to everyone, since probes have no tokens. Where there are neither tokens nor limits per client, there is
nobody to tell apart, and a call costs nothing here.
"""

import threading
from collections import Counter
from collections.abc import Callable, Mapping

from horngate_server import health
from horngate_server.errors import Forbidden, QueueFull, RequestError, Unauthenticated
from horngate_server.names import ADMIN
from horngate_server.settings import Settings
from horngate_server.tokens import Client, Tokens
from horngate_server.transports.memory import Memory

OPEN = frozenset([health.CHECK, health.WATCH])
RETRY_S = 0.1
"""When a client whose limit is reached may come again: its own calls have to end first."""
_REASONS: Mapping[type[RequestError], str] = {
    Unauthenticated: "unauthenticated", Forbidden: "forbidden", QueueFull: "client_limit",
}  # fmt: skip


class Doors:
    """One transport's. `enter` on one thread; what it returns is given back from any.

    Args:
        memory: what all clients share.
        tokens: who may call; None for everyone.
        max_client_requests: of one client at once; 0 for as many as there is room for.
        max_client_bytes: of one client's requests at once; 0 for as many as there is room for.

    Attributes:
        memory: as above.
        wide_open: everyone may come, and `enter` need not be asked.
    """

    def __init__(
        self,
        memory: Memory,
        tokens: Tokens | None = None,
        *,
        max_client_requests: int = 0,
        max_client_bytes: int = 0,
    ) -> None:
        self.memory = memory
        self._tokens = tokens
        self._limits = (max_client_requests, max_client_bytes)
        self.wide_open = tokens is None and not any(self._limits)
        self._guests: dict[str, Guest] = {}
        self._lock = threading.Lock()
        self._refused: Counter[str] = Counter()

    @classmethod
    def of(cls, settings: Settings, clock: Callable[[], float]) -> "Doors":
        """Return those that the settings ask for.

        Raises:
            SettingsError: the file with the tokens is not as it should be.
        """
        return cls(
            Memory(settings.max_request_bytes),
            Tokens(settings.tokens, clock) if settings.tokens else None,
            max_client_requests=settings.max_client_requests,
            max_client_bytes=settings.max_client_bytes,
        )

    @property
    def refused(self) -> Mapping[str, int]:
        """How many were refused here, by reason."""
        return dict(self._refused)

    def enter(self, method: str, authorization: bytes, peer: str) -> Memory:
        """Let a call in, and return where its bytes are counted: taking them is what its client's limits are about.

        Args:
            method: its full name, or an HTTP path.
            authorization: the header's value; empty where there was none.
            peer: the address that it comes from: the client's name where there are no tokens.

        Raises:
            Unauthenticated: no token, or one that nobody has.
            Forbidden: the token may not do this.
        """
        if self.wide_open or method in OPEN:
            return self.memory
        try:
            name = peer if self._tokens is None else self._admitted(method, self._tokens.client(authorization))
        except RequestError as error:
            self._refused[_REASONS[type(error)]] += 1
            raise
        with self._lock:
            guest = self._guests.get(name)
            if guest is None:
                guest = self._guests[name] = Guest(name, self.memory, self._limits, lock=self._lock, left=self._left)
            return guest

    # --- private --------------------------------------------------------------------------------------

    def _admitted(self, method: str, client: Client) -> str:
        if method in ADMIN and not client.admin:
            raise Forbidden(f"{client.name}'s token may not call {method}; expected one with admin in --tokens")
        return client.name

    def _left(self, guest: "Guest", *, refused: bool) -> None:
        """Forget a client that has nothing here any more (the lock is held)."""
        if refused:
            self._refused[_REASONS[QueueFull]] += 1
        if not guest.requests and self._guests.get(guest.name) is guest:
            del self._guests[guest.name]


class Guest(Memory):
    """One client's part of the memory."""

    def __init__(
        self,
        name: str,
        memory: Memory,
        limits: tuple[int, int],
        *,
        lock: threading.Lock,
        left: Callable[..., None],
    ) -> None:
        self.name = name
        self.requests = 0
        self._bytes = 0
        self.memory = memory
        self._max_requests, self._max_bytes = limits
        self._lock = lock
        self._left = left

    def take(self, size: int, *, force: bool = False) -> None:
        """Take so many, for one request (`Memory.take`)."""
        with self._lock:
            if not force:
                self._check(size)
            self.requests += 1
            self._bytes += size
        try:
            self.memory.take(size, force=force)
        except QueueFull:
            self._release(size)
            raise

    def give(self, size: int) -> None:
        """Give a request's bytes back (`Memory.give`)."""
        self._release(size)
        self.memory.give(size)

    # --- private --------------------------------------------------------------------------------------

    def _check(self, size: int) -> None:
        if self._max_requests and self.requests >= self._max_requests:
            said = f"{self.requests} requests in flight; expected at most {self._max_requests} (--max-client-requests)"
        elif self._max_bytes and self._bytes + size > self._max_bytes:
            said = (
                f"{self._bytes} bytes in flight, no room for {size} more; expected at most {self._max_bytes} "
                "(--max-client-bytes)"
            )
        else:
            return
        self._left(self, refused=True)
        raise QueueFull(f"client {self.name} has {said}", retry_after_s=RETRY_S)

    def _release(self, size: int) -> None:
        with self._lock:
            self.requests -= 1
            self._bytes -= size
            self._left(self, refused=False)
