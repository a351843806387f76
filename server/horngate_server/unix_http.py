"""HTTP to another process of ours, over a Unix socket."""

import http.client
import socket
from pathlib import Path

TIMEOUT_S = 5.0


def get(path: Path, url: str) -> tuple[int, bytes]:
    """Ask; return the status and the body.

    Raises:
        OSError: nobody answers there.
    """
    connection = _Connection(path)
    try:
        connection.request("GET", url)
        response = connection.getresponse()
        return response.status, response.read()
    except http.client.HTTPException as error:
        raise ConnectionError(f"{path}: {error}") from error
    finally:
        connection.close()


# --- private ------------------------------------------------------------------------------------------


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
