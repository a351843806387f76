"""Bearer tokens (RFC 6750): who may call. The file holds their SHA-256, so that whoever reads it cannot call.

A line per token: ``NAME sha256:HEX``, and ``admin`` behind it for those that may change what is served. A name may have
several: while callers move from the old one to the new one, both are good. Tokens are 256 random bits, which nobody
guesses: a slow hash, as for passwords, would only make every call slower.
"""

import hashlib
import logging
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from horngate_server.core.errors import SettingsError, Unauthenticated
from horngate_server.core.file_changes import Changes, reason

log = logging.getLogger(__name__)

PREFIX = "hg_"
"""What tokens begin with, so that scanners for leaked secrets can find them."""
UNKNOWN = "the token is not known here, or not any more"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LINE = re.compile(rf"(?P<name>{_NAME.pattern})\s+sha256:(?P<digest>[0-9a-f]{{64}})(?P<admin>\s+admin)?")
_SCHEME = b"bearer "


@dataclass(frozen=True, slots=True)
class Client:
    """Who called.

    Attributes:
        name: as the file says.
        admin: whether it may change what is served.
        digest: the SHA-256 of the token that it came with.
    """

    name: str
    admin: bool
    digest: bytes


class Tokens:
    """The tokens that are good. Lookups are thread-safe; `look` is one thread's.

    A token is good as long as its line stands in the file, whole. A line with an error in it lets nobody in and takes
    nobody else's token away; where the file is empty, gone or cannot be read, nobody is let in.

    Args:
        path: the file.
        clock: monotonic seconds.

    Raises:
        SettingsError: the file cannot be read or has an error in it.
    """

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._changes = Changes([path], clock)
        self._clients, errors = _read(path)
        if errors:
            raise SettingsError(errors[0])
        self._looked = clock()
        self._doubted = False
        self.valid = True

    @property
    def age_s(self) -> float:
        """Seconds since the file was last looked at: large where its disk does not answer."""
        return self._clock() - self._looked

    def client(self, authorization: bytes) -> Client:
        """Return whose token an ``authorization`` header has; empty where there was no header.

        Raises:
            Unauthenticated: there is none, or it is nobody's.
        """
        if not authorization:
            raise Unauthenticated("no token; expected the metadata authorization: Bearer TOKEN")
        if authorization[: len(_SCHEME)].lower() != _SCHEME:
            raise Unauthenticated("authorization is of another kind; expected Bearer TOKEN")
        # Looking up a digest tells nothing by the time it takes: nobody can choose what their guess is hashed to.
        client = self._clients.get(hashlib.sha256(authorization[len(_SCHEME) :].strip()).digest())
        if client is None:
            raise Unauthenticated(UNKNOWN)
        return client

    def good(self, client: Client) -> bool:
        """Whether the token that a client came with is still in the file."""
        return client.digest in self._clients

    def look(self) -> None:
        """Read the file again if it has changed; to be called once a second.

        Whoever lost their line is not let in from now on. Only a file without any good line is looked at once more
        before it is believed, a second later: editors empty a file, or rename it, before they write it anew.
        """
        if self._changes.seen() or self._doubted:
            self._read_again()
        self._looked = self._clock()

    # --- private --------------------------------------------------------------------------------------

    def _read_again(self) -> None:
        clients, errors = _read(self._path)
        if not clients and self._clients and not self._doubted:
            self._doubted = True
            return
        self._doubted = False
        revoked = sorted({each.name for digest, each in self._clients.items() if digest not in clients})
        self._clients = clients
        self.valid = not errors
        if errors:
            more = f" (and {len(errors) - 1} more like it)" if len(errors) > 1 else ""
            log.error("%s%s; only tokens whose lines are right are good", errors[0], more)
        log.info(
            "tokens: read again, %d of %d clients%s",
            len(clients),
            len({each.name for each in clients.values()}),
            f"; tokens of {', '.join(revoked)} are not good any more" if revoked else "",
        )


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
    except OSError as error:
        raise SettingsError(f"--file {path}: {reason(path, error)}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"--file {path}: {error}") from error
    return token


# --- private ------------------------------------------------------------------------------------------


def _read(path: Path) -> tuple[Mapping[bytes, Client], Sequence[str]]:
    """Return the clients by digest, and what is wrong with the file, a sentence for each error."""
    clients: dict[bytes, Client] = {}
    try:
        lines = path.read_bytes().decode(errors="replace").splitlines()
    except OSError as error:
        return clients, [f"--tokens {path}: {reason(path, error)}"]
    errors: list[str] = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        match = _LINE.fullmatch(text)
        if match is None:  # its text is not shown: it might be a token
            errors.append(f"--tokens {path}, line {number}: expected NAME sha256:64-HEX-DIGITS [admin]")
            continue
        digest = bytes.fromhex(match["digest"])
        if digest in clients:
            errors.append(f"--tokens {path}, line {number}: {clients[digest].name} has this token already")
            continue
        clients[digest] = Client(match["name"], match["admin"] is not None, digest)
    if not clients and not errors:
        errors.append(f"--tokens {path}: no tokens in it; horngate-server token NAME --file {path} adds one")
    return clients, errors
