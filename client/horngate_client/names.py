"""Names become addresses: looked up before the first call, every ten seconds while there are calls, and on failure."""

import ipaddress
import socket
import threading
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import Future

REFRESH_SECONDS = 10.0
AFTER_FAILURE_SECONDS = 1.0
"""A failure asks for the names again, but not more often than this."""

Resolve = Callable[[str, int], Sequence[str]]
"""A host and a port to ``address:port``s; OSError where the name is not known."""


def system_resolve(host: str, port: int) -> list[str]:
    """Ask the system: DNS, the hosts file."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    hosts = dict.fromkeys(str(address[0]) for *_, address in found)
    return [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host in hosts]


def proxy_variable(host: str) -> str | None:
    """Return the environment's variable that names the proxy on gRPC's way to a host; None where there is none."""
    proxies = urllib.request.getproxies_environment()
    found = next((f"{kind}_proxy" for kind in ("grpc", "https", "http") if kind in proxies), None)
    return None if found is None or urllib.request.proxy_bypass(host) else found


class Names:
    """The addresses behind what the user wrote; safe to share between threads.

    Addresses, ``localhost``, targets with one of gRPC's schemes and names that are reached through a proxy stay as
    they are: gRPC knows them.
    """

    def __init__(
        self, servers: Sequence[str], *, resolve: Resolve, clock: Callable[[], float], found: Callable[[], None]
    ) -> None:
        self._servers = tuple(servers)
        self._resolve = resolve
        self._clock = clock
        self._found = found  # called on the look-up's thread
        self._known: dict[str, tuple[str, ...]] = {s: () if _is_name(s) else (s,) for s in servers}
        self._lock = threading.Lock()
        self._under_way: Future[tuple[str, ...]] | None = None
        self._looked_up = clock() - REFRESH_SECONDS
        self._has_names = any(_is_name(server) for server in servers)
        self.problem = ""

    @property
    def addresses(self) -> tuple[str, ...]:
        """What the last look-up found, each once."""
        return tuple(dict.fromkeys(address for server in self._servers for address in self._known[server]))

    def name_of(self, address: str) -> str | None:
        """Return the name that an address was found under; None where the user wrote the address."""
        for server, found in self._known.items():
            if address in found and address != server:
                return server
        return None

    def look_up(self, *, older_than: float) -> "Future[tuple[str, ...]] | None":
        """Look up all names, on a thread of their own; None where the last time is not so long ago."""
        with self._lock:
            if self._under_way is not None:
                return self._under_way
            if not self._has_names or self._clock() - self._looked_up < older_than:
                return None
            future: Future[tuple[str, ...]] = Future()
            self._under_way = future
        threading.Thread(target=self._work, args=(future,), daemon=True, name="horngate-names").start()
        return future

    def _work(self, future: "Future[tuple[str, ...]]") -> None:
        problem = ""
        for server in self._servers:
            if _is_name(server):
                host, _, port = server.rpartition(":")
                try:
                    found = tuple(self._resolve(host, int(port)))
                except OSError as exc:
                    problem = f"{host} cannot be looked up: {exc}"  # what was known stays in use
                else:
                    self._known[server] = found or self._known[server]
        self.problem = problem
        with self._lock:
            self._looked_up = self._clock()
            self._under_way = None
        self._found()
        future.set_result(self.addresses)


def _is_name(server: str) -> bool:
    host, _, port = server.rpartition(":")
    if not port.isdecimal() or ":" in host or host == "localhost":
        return False  # a scheme, IPv6 in brackets, this machine
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return proxy_variable(host) is None
    return False
