"""HTTP to another process of ours, over a Unix socket."""

import http.client
import socket
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

TIMEOUT_S = 5.0


class Fetched(NamedTuple):
    """What comes back: HTTP's status, its headers with lower-case names, the body to be read, and closed."""

    status: int
    headers: Mapping[str, str]
    body: http.client.HTTPResponse


class Answer(NamedTuple):
    """What came back: HTTP's status, its headers with lower-case names, the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def ask(
    path: Path,
    url: str,
    *,
    method: str = "GET",
    body: bytes | bytearray = b"",
    headers: Mapping[str, str] = MappingProxyType({}),
    timeout_s: float = TIMEOUT_S,
) -> Answer:
    """Ask the process that listens on the socket.

    Raises:
        OSError: nobody answers there.
    """
    connection = _Connection(path, timeout_s)
    try:
        connection.request(method, url, body, dict(headers))
        response = connection.getresponse()
        given = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, given, response.read())
    except http.client.HTTPException as error:
        raise ConnectionError(f"{path}: {error}") from error
    finally:
        connection.close()


def fetch(path: Path, url: str, *, method: str, headers: Mapping[str, str], timeout_s: float) -> Fetched:
    """Ask the process that listens on the socket, and leave the body to be read piece by piece.

    Raises:
        OSError: nobody answers there.
    """
    connection = _Connection(path, timeout_s)
    try:
        connection.request(method, url, headers={**headers, "connection": "close"})  # it ends with the body
        response = connection.getresponse()
    except http.client.HTTPException as error:
        connection.close()
        raise ConnectionError(f"{path}: {error}") from error
    except OSError:
        connection.close()
        raise
    return Fetched(response.status, {name.lower(): value for name, value in response.getheaders()}, response)


# --- private ------------------------------------------------------------------------------------------


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
