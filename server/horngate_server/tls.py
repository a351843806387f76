"""What TLS needs."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files for TLS.

    Attributes:
        certificate: the server's, with its chain.
        key: the certificate's.
        client_ca: the authorities whose clients may come (mutual TLS); None lets everyone in.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None
