"""Bearer tokens (RFC 6750): who may call. The file holds their SHA-256, so that whoever reads it cannot call.

A line per token: ``NAME sha256:HEX``, and ``admin`` behind it for those that may change what is served. A name may have
several: while callers move from the old one to the new one, both are good. Tokens are 256 random bits, which nobody
guesses: a slow hash, as for passwords, would only make every call slower.
"""

import hashlib
import logging
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from horngate_server.changes import Changes
from horngate_server.errors import SettingsError, Unauthenticated

log = logging.getLogger(__name__)

PREFIX = "hg_"
"""What tokens begin with, so that scanners for leaked secrets can find them."""
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LINE = re.compile(rf"(?P<name>{_NAME.pattern})\s+sha256:(?P<digest>[0-9a-f]{{64}})(?P<admin>\s+admin)?")
_SCHEME = b"bearer "


@dataclass(frozen=True, slots=True)
class Client:
    """Who called.

    Attributes:
        name: as the file says.
        admin: whether it may change what is served.
    """

    name: str
    admin: bool


class Tokens:
    """The file's content, read again when it changes; one with an error in it changes nothing. Thread-safe.

    Args:
        path: the file.
        clock: monotonic seconds.

    Raises:
        SettingsError: the file cannot be read or has an error in it.
    """

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path = path
        self._changes = Changes([path], clock)
        self._clients = _read(path)

    def client(self, authorization: bytes) -> Client:
        """Return whose token an ``authorization`` header has; empty where there was no header.

        Raises:
            Unauthenticated: there is none, or it is nobody's.
        """
        if self._changes.seen():
            self._read_again()
        if not authorization:
            raise Unauthenticated("no token; expected the metadata authorization: Bearer TOKEN")
        if authorization[: len(_SCHEME)].lower() != _SCHEME:
            raise Unauthenticated("authorization is of another kind; expected Bearer TOKEN")
        # Looking up a digest tells nothing by the time it takes: nobody can choose what their guess is hashed to.
        client = self._clients.get(hashlib.sha256(authorization[len(_SCHEME) :].strip()).digest())
        if client is None:
            raise Unauthenticated("the token is not known here, or not any more")
        return client

    # --- private --------------------------------------------------------------------------------------

    def _read_again(self) -> None:
        try:
            self._clients = _read(self._path)
        except SettingsError as error:
            log.error("%s; the tokens from before stay good", error)
        else:
            names = {client.name for client in self._clients.values()}
            log.info("tokens: read again, %d of %d clients", len(self._clients), len(names))


def add(path: Path, name: str, *, admin: bool) -> str:
    """Make a token, add its digest to the file, and return it: it is kept nowhere.

    Raises:
        SettingsError: no name for a client, or the file cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise SettingsError(f"NAME {name!r}: expected 1 to 64 letters, digits, dots, dashes and underscores")
    token = PREFIX + secrets.token_urlsafe(32)
    line = f"{name} sha256:{hashlib.sha256(token.encode()).hexdigest()}{' admin' if admin else ''}\n"
    try:
        path.touch(0o600)
        text = path.read_text()
        with path.open("a") as file:
            file.write(line if not text or text.endswith("\n") else f"\n{line}")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"--file {path}: {error}") from error
    return token


# --- private ------------------------------------------------------------------------------------------


def _read(path: Path) -> Mapping[bytes, Client]:
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"--tokens {path}: {error}") from error
    clients: dict[bytes, Client] = {}
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        match = _LINE.fullmatch(text)
        if match is None:  # its text is not shown: it might be a token
            raise SettingsError(f"--tokens {path}, line {number}: expected NAME sha256:64-HEX-DIGITS [admin]")
        digest = bytes.fromhex(match["digest"])
        if digest in clients:
            raise SettingsError(f"--tokens {path}, line {number}: {clients[digest].name} has this token already")
        clients[digest] = Client(match["name"], match["admin"] is not None)
    if not clients:
        raise SettingsError(f"--tokens {path}: no tokens in it; horngate-server token NAME --file {path} adds one")
    return clients
