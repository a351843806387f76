"""What is asked of Envoy while it runs, over its admin interface."""

from pathlib import Path

from horngate_server.transports.http import unix_client


class EnvoyAdmin:
    """The admin interface of the Envoy that this process runs in.

    Args:
        socket: where it listens.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def live(self) -> bool:
        """Whether Envoy listens for calls."""
        return self._ask("/ready") == "LIVE\n"

    def drain(self) -> None:
        """Let it stop listening; a connection's GOAWAY goes with its next answer."""
        for query in ("?graceful&skip_exit", ""):
            self._ask(f"/drain_listeners{query}", method="POST")

    def unanswered(self) -> bool:
        """Whether it still has calls whose answers have not left."""
        stats = self._ask("/stats?filter=^http.ingress_http.downstream_rq_active$")
        return bool(stats) and stats.strip() != "http.ingress_http.downstream_rq_active: 0"

    # --- private --------------------------------------------------------------------------------------

    def _ask(self, url: str, method: str = "GET") -> str:
        """Return what it answers; empty while it does not."""
        try:
            return unix_client.ask(self._socket, url, method=method).body.decode()
        except OSError:
            return ""
