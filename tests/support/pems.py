"""Certificates of an authority of the tests' own, as the files that operators have."""

from collections.abc import Mapping
from pathlib import Path

import trustme


def write(folder: Path, authority: trustme.CA, certificates: Mapping[str, trustme.LeafCert]) -> Path:
    """Write ca.pem, and NAME.pem and NAME.key for each certificate; return the folder."""
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for name, certificate in certificates.items():
        certificate.private_key_pem.write_to_path(folder / f"{name}.key")
        for blob in certificate.cert_chain_pems:
            blob.write_to_path(folder / f"{name}.pem", append=True)
    return folder
