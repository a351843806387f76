"""The ports: whether one is free, how to keep it, and how to tell which one it is."""

import os
import socket
from dataclasses import replace
from pathlib import Path

from horngate_server.core import addresses
from horngate_server.core.errors import SettingsError
from horngate_server.core.settings import Settings, names


def check(settings: Settings) -> None:
    """Say at once where the server could not listen, or not write ``--port-file``; before anything is loaded.

    Raises:
        SettingsError: the flag, and why.
    """
    for name in ("grpc_port", "http_port", "grpc_web_port"):
        if (port := getattr(settings, name)) is not None:
            _free(settings.host, port, names(name)[0])
    if settings.port_file is not None:
        folder = settings.port_file.absolute().parent
        if not folder.is_dir():
            raise SettingsError(f"--port-file {settings.port_file}: there is no folder {folder}")
        if settings.port_file.is_dir() or not os.access(folder, os.W_OK):
            raise SettingsError(f"--port-file {settings.port_file}: no file can be written there")


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


def rest(settings: Settings, port: int | None) -> list[str]:
    """Return the banner's line about the port for REST; none where there is none."""
    return [] if port is None else [f"  rest       http://{settings.shown_host}:{port}/v1, the same as http"]


def write_port_file(settings: Settings, grpc_port: int, http_port: int, rest_port: int | None = None) -> None:
    """Write ``--port-file``, if there is one, so that no reader ever sees half of it.

    Raises:
        SettingsError: it cannot be written.
    """
    if settings.port_file is not None:
        rest = "" if rest_port is None else f"rest {rest_port}\n"
        try:
            _write(settings.port_file, f"grpc {grpc_port}\nhttp {http_port}\n{rest}")
        except OSError as error:
            raise SettingsError(f"--port-file {settings.port_file}: {error.strerror}") from error


# --- private ------------------------------------------------------------------------------------------


def _free(host: str, port: int, flag: str) -> int:
    """Return a port on which nobody listens: this one, or any for 0."""
    family, address = addresses.numeric(host)
    try:
        with socket.create_server((address, port), family=family) as probe:
            free: int = probe.getsockname()[1]
            return free
    except OSError as error:
        raise addresses.cannot_listen(host, port, flag, error) from error


def _reserved(host: str, port: int, flag: str) -> socket.socket:
    port = _free(host, port, flag)
    family, address = addresses.numeric(host)
    held = socket.socket(family)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        held.bind((address, port))
    except OSError as error:
        raise addresses.cannot_listen(host, port, flag, error) from error
    return held


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)
