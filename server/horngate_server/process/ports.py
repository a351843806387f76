"""The ports: whether one is free, how to keep it, and how to tell which one it is."""

import socket
from dataclasses import replace
from pathlib import Path

from horngate_server.core.errors import SettingsError
from horngate_server.core.settings import Settings, names


def reserve(settings: Settings) -> tuple[Settings, list[socket.socket]]:
    """Take the ports for gRPC and gRPC-Web, on which nobody may listen, as long as the returned sockets are open.

    Servers that share them (SO_REUSEPORT) say nothing of a stranger there, so this looks first.

    Returns:
        The settings with the ports that were free where they asked for any, and the sockets that keep them.

    Raises:
        SettingsError: somebody listens there, or the address is not ours.
    """
    held = []
    for name in ("grpc_port", "grpc_web_port"):
        if (port := getattr(settings, name)) is not None:
            held.append(_reserved(settings.host, port, names(name)[0]))
            settings = replace(settings, **{name: held[-1].getsockname()[1]})
    return settings, held


def grpc_web(settings: Settings) -> list[str]:
    """Return the banner's line about gRPC-Web; none where it is off."""
    if settings.grpc_web_port is None:
        return []
    scheme = "http" if settings.tls is None else "https"
    pages = ", ".join(settings.grpc_web_origins) or "no origin yet (--grpc-web-origins)"
    return [f"  grpc-web   {scheme}://{settings.shown_host}:{settings.grpc_web_port}, for pages of {pages}"]


def write_port_file(settings: Settings, grpc_port: int, http_port: int) -> None:
    """Write ``--port-file``, if there is one, so that no reader ever sees half of it."""
    if settings.port_file is not None:
        _write(settings.port_file, f"grpc {grpc_port}\nhttp {http_port}\n")


# --- private ------------------------------------------------------------------------------------------


def _reserved(host: str, port: int, flag: str) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.create_server((host, port), family=family) as probe:
            port = probe.getsockname()[1]
        held = socket.socket(family)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((host, port))
    except OSError as error:
        raise SettingsError(
            f"--host, {flag}: cannot listen on {host}:{port}: {error.strerror}; is another server there?"
        ) from error
    return held


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)
