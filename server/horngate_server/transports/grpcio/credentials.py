"""TLS for gRPC's own server: its certificate is renewed without a restart."""

import grpc

from horngate_server.core.clock import Clock
from horngate_server.core.settings import Tls
from horngate_server.transports.access.tls import Certificates, Pems, read


def server_credentials(tls: Tls, clock: Clock) -> grpc.ServerCredentials:
    """Return credentials that change with the files; gRPC asks at every handshake."""
    certificates = Certificates(tls, clock)

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        pems = certificates.renewed()
        return _configuration(pems) if pems else None

    return grpc.dynamic_ssl_server_credentials(
        _configuration(read(tls)),
        fetch,  # type: ignore[arg-type]  # None, its documentation says, keeps what there is
        require_client_authentication=tls.client_ca is not None,
    )


# --- private ------------------------------------------------------------------------------------------


def _configuration(pems: Pems) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(pems.key, pems.certificate)], root_certificates=pems.client_ca)
