"""The ports: whether one is free, how to keep it, and how to tell which one it is."""

import socket
from pathlib import Path

from horngate_server.core.errors import SettingsError
from horngate_server.core.settings import Settings


def reserve(host: str, port: int) -> socket.socket:
    """Take a gRPC port that nobody listens on, and keep it as long as the returned socket is open.

    Servers that share it (SO_REUSEPORT) say nothing of a stranger on it, so this looks first.

    Raises:
        SettingsError: somebody listens there, or the address is not ours.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.create_server((host, port), family=family) as probe:
            port = probe.getsockname()[1]
        held = socket.socket(family)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((host, port))
    except OSError as error:
        raise SettingsError(
            f"--host, --grpc-port: cannot listen on {host}:{port}: {error.strerror}; is another server there?"
        ) from error
    return held


def write_port_file(settings: Settings, grpc_port: int, http_port: int) -> None:
    """Write ``--port-file``, if there is one, so that no reader ever sees half of it."""
    if settings.port_file is not None:
        _write(settings.port_file, f"grpc {grpc_port}\nhttp {http_port}\n")


# --- private ------------------------------------------------------------------------------------------


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)
