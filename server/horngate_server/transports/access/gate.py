"""Who is let in, what they may do, and how much at once: asked by a transport before it reads a message.

Health is open to everyone, since probes have no tokens. Where there are neither tokens nor limits per client, there is
nobody to tell apart, and a call costs nothing here.
"""

import threading
from collections import Counter
from collections.abc import Callable, Mapping

from horngate_server.core.errors import Forbidden, QueueFull, RequestError, Unauthenticated
from horngate_server.core.file_changes import every_second
from horngate_server.core.methods import ADMIN, CHECK, WATCH
from horngate_server.core.settings import Settings
from horngate_server.telemetry.refusal_log import RefusalLog
from horngate_server.transports.access.byte_budget import ByteBudget
from horngate_server.transports.access.tokens import UNKNOWN, Client, Tokens

OPEN = frozenset([CHECK, WATCH])
RETRY_S = 0.1
"""When a client whose limit is reached may come again: its own calls have to end first."""
_REASONS: Mapping[type[RequestError], str] = {Unauthenticated: "unauthenticated", Forbidden: "forbidden"}


class Gate:
    """One transport's, callable from any thread.

    Args:
        memory: what all clients share.
        tokens: who may call; None for everyone.
        max_client_requests: of one client at once; 0 for as many as there is room for.
        max_client_bytes: of one client's requests at once; 0 for as many as there is room for.
        tell: takes the reason and an example of every refusal.

    Attributes:
        memory: as above.
        wide_open: everyone may come, and `enter` need not be asked.
    """

    def __init__(
        self,
        memory: ByteBudget,
        tokens: Tokens | None = None,
        *,
        max_client_requests: int = 0,
        max_client_bytes: int = 0,
        tell: Callable[[str, str], None] = lambda _reason, _example: None,
    ) -> None:
        self.memory = memory
        self._tokens = tokens
        self._tell = tell
        self._clients = _Clients(max_client_requests, max_client_bytes, self._refuse)
        self.wide_open = tokens is None and not self._clients.limited
        self._refused: Counter[str] = Counter()
        self._counting = threading.Lock()

    @classmethod
    def of(cls, settings: Settings, clock: Callable[[], float]) -> "Gate":
        """Return those that the settings ask for.

        Raises:
            SettingsError: the file with the tokens is not as it should be.
        """
        tokens = None
        if settings.tokens:
            tokens = Tokens(settings.tokens, clock)
            every_second(tokens.look, "tokens")
        return cls._with(settings, tokens, RefusalLog(clock).note)

    def beside(self, settings: Settings) -> "Gate":
        """Return those of another thread: the same tokens, memory and counts of their own."""
        return self._with(settings, self._tokens, self._tell)

    @property
    def tokens(self) -> Tokens | None:
        """Who may call; None for everyone."""
        return self._tokens

    @property
    def refused(self) -> Mapping[str, int]:
        """How many were refused here, by reason."""
        return dict(self._refused)

    def enter(self, method: str, authorization: bytes, peer: str) -> ByteBudget:
        """Let a gRPC call in, as `admit` does; health is open to everyone."""
        return self.memory if method in OPEN else self.admit(method, authorization, peer)

    def admit(self, method: str, authorization: bytes, peer: str) -> ByteBudget:
        """Let a call in, and return where its bytes are counted: taking them is what its client's limits are about.

        Args:
            method: its full name, or an HTTP path.
            authorization: the header's value; empty where there was none.
            peer: the address that it comes from: the client's name where there are no tokens.

        Raises:
            Unauthenticated: no token, or one that nobody has.
            Forbidden: the token may not do this.
        """
        if self.wide_open:
            return self.memory
        if self._tokens is None:
            return ClientBudget(peer, self.memory, self._clients)
        try:
            client = self._admitted(method, self._tokens.client(authorization))
        except RequestError as error:
            self._refuse(_REASONS[type(error)], f"{error} (from {peer})")
            raise
        return ClientBudget(client.name, self.memory, self._clients, lambda: self._check(client, peer))

    # --- private --------------------------------------------------------------------------------------

    @classmethod
    def _with(cls, settings: Settings, tokens: Tokens | None, tell: Callable[[str, str], None]) -> "Gate":
        return cls(
            ByteBudget(settings.max_request_bytes),
            tokens,
            max_client_requests=settings.max_client_requests,
            max_client_bytes=settings.max_client_bytes,
            tell=tell,
        )

    def _refuse(self, reason: str, example: str) -> None:
        """Count a refusal."""
        with self._counting:
            self._refused[reason] += 1
        self._tell(reason, example)

    def _admitted(self, method: str, client: Client) -> Client:
        if method in ADMIN and not client.admin:
            raise Forbidden(f"{client.name}'s token may not call {method}; expected one with admin in --tokens")
        return client

    def _check(self, client: Client, peer: str) -> None:
        """Refuse what comes by way of a call that was let in before its token was revoked: a stream's next message."""
        assert self._tokens
        if not self._tokens.good(client):
            self._refuse(_REASONS[Unauthenticated], f"{UNKNOWN} (from {peer})")
            raise Unauthenticated(UNKNOWN)


class ClientBudget(ByteBudget):
    """The memory as one client may use it.

    Args:
        name: the client's.
        memory: everyone's.
        clients: know what this one has.
        check: raises where it is not let in any more.
    """

    def __init__(
        self, name: str, memory: ByteBudget, clients: "_Clients", check: Callable[[], None] = lambda: None
    ) -> None:
        self.name = name
        self._memory = memory
        self._clients = clients
        self._check = check

    def take(self, size: int, *, force: bool = False) -> None:
        """Take so many, for one request (`ByteBudget.take`)."""
        if not force:
            self._check()
        self._clients.take(self.name, size, force=force)
        try:
            self._memory.take(size, force=force)
        except QueueFull:
            self._clients.give(self.name, size)
            raise

    def grow(self, size: int) -> None:
        """Take so many more for a request that has taken some (`ByteBudget.grow`)."""
        self._clients.take(self.name, size, requests=0)
        try:
            self._memory.take(size)
        except QueueFull:
            self._clients.shrink(self.name, size)
            raise

    def give(self, size: int) -> None:
        """Give a request's bytes back (`ByteBudget.give`)."""
        self._clients.give(self.name, size)
        self._memory.give(size)


# --- private ------------------------------------------------------------------------------------------


class _Clients:
    """What every client has here: requests and bytes. Those who have nothing are not remembered. Thread-safe."""

    def __init__(self, max_requests: int, max_bytes: int, refuse: Callable[[str, str], None]) -> None:
        self.limited = bool(max_requests or max_bytes)
        self._refuse = refuse
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._held: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()

    def take(self, name: str, size: int, *, force: bool = False, requests: int = 1) -> None:
        """Count a request in, or, with 0 for ``requests``, more of one.

        Raises:
            QueueFull: the client has as much as it may, and the request is not ``force``d.
        """
        with self._lock:
            others, held = self._held.get(name, (0, 0))
            if not force:
                self._check(name, others if requests else 0, held, size)
            self._held[name] = (others + requests, held + size)

    def shrink(self, name: str, size: int) -> None:
        """Count a part of a request out."""
        with self._lock:
            requests, held = self._held[name]
            self._held[name] = (requests, held - size)

    def give(self, name: str, size: int) -> None:
        """Count a request out."""
        with self._lock:
            requests, held = self._held.pop(name)
            if requests > 1:
                self._held[name] = (requests - 1, held - size)

    def _check(self, name: str, requests: int, held: int, size: int) -> None:
        if self._max_requests and requests >= self._max_requests:
            said = f"{requests} requests in flight; expected at most {self._max_requests} (--max-client-requests)"
        elif self._max_bytes and held + size > self._max_bytes:
            said = (
                f"{held} bytes in flight, no room for {size} more; expected at most {self._max_bytes} "
                "(--max-client-bytes)"
            )
        else:
            return
        message = f"client {name} has {said}"
        self._refuse("client_limit", message)
        raise QueueFull(message, retry_after_s=RETRY_S)
