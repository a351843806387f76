"""The address that a host's name stands for."""

import errno
import os
import socket

from horngate_server.core.errors import SettingsError

_IN_WORDS = {
    errno.EADDRINUSE: "another server listens there",
    errno.EADDRNOTAVAIL: "that is no address of this machine",
    errno.EACCES: "this user may not listen there; ports below 1024 are the administrator's",
}


def numeric(host: str) -> tuple[socket.AddressFamily, str]:
    """Return the family and the address to listen on for a host; IPv4 where it has both, as localhost does.

    Raises:
        SettingsError: it is neither an address nor a known name.
    """
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "that is no name"
        raise SettingsError(f"--host {host}: {why}; expected an address of this machine, such as 127.0.0.1") from error
    family, _, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    return family, str(address[0])


def cannot_listen(host: str, port: int, flag: str, error: OSError) -> SettingsError:
    """Return what there is to say where nobody can listen."""
    number = error.errno or 0
    why = _IN_WORDS.get(number) or os.strerror(number)
    return SettingsError(f"--host {host}, {flag} {port}: cannot listen: {why}")
