"""What TLS needs, and its renewal: certificates are read again when they change, and no connection notices."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from horngate_server.core.errors import SettingsError
from horngate_server.core.file_changes import Changes, every_second
from horngate_server.core.settings import Tls

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pems:
    """The files' content."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None


class Certificates:
    """The files, read again when they change; those that do not fit together change nothing.

    Args:
        tls: where they are.
        clock: monotonic seconds.
    """

    def __init__(self, tls: Tls, clock: Callable[[], float]) -> None:
        self._tls = tls
        self._changes = Changes([path for path in (tls.certificate, tls.key, tls.client_ca) if path], clock)

    def renewed(self) -> Pems | None:
        """Return the new ones if they have changed; None otherwise."""
        if not self._changes.seen():
            return None
        try:
            pems = read(self._tls)
        except SettingsError as error:
            log.error("%s; the certificate from before stays", error)
            return None
        log.info("tls: the certificate was read again; new connections get it")
        return pems


def read(tls: Tls) -> Pems:
    """Read the files.

    Raises:
        SettingsError: they cannot be read, are no PEM, or the key is another certificate's.
    """
    import ssl  # noqa: PLC0415 - who does not ask for TLS need not wait for it

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(tls.certificate, tls.key, password=lambda: b"")
        if tls.client_ca:
            context.load_verify_locations(tls.client_ca)
        return Pems(
            tls.certificate.read_bytes(), tls.key.read_bytes(), tls.client_ca.read_bytes() if tls.client_ca else None
        )
    except (OSError, ValueError) as error:  # ssl's errors are OSErrors
        raise SettingsError(
            f"--tls-cert {tls.certificate}, --tls-key {tls.key}: expected a certificate, its key without a passphrase, "
            f"and authorities in PEM: {error}"
        ) from error


def renew(certificates: Certificates, use: Callable[[Pems], None]) -> None:
    """Look once a second from now on, on a thread of its own that does not keep the process."""

    def look() -> None:
        pems = certificates.renewed()
        if pems is not None:
            use(pems)

    every_second(look, "certificates")
