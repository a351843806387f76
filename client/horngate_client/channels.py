"""Addresses, TLS, tokens and gRPC's channels."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from horngate_client import given
from horngate_client.errors import ConfigurationError
from horngate_client.names import proxy_variable

DEFAULT_PORT = 8001
SERVICE = "inference.GRPCInferenceService"
MAX_ANSWER_BYTES = 1 << 30
"""A bound on what one answer may take of our memory: far above what the rows of one request give."""

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """How to speak TLS; every field may be left out.

    Attributes:
        ca: a PEM file of authorities to trust; None: those that come with gRPC.
        cert: a PEM file with our own certificate, where the server asks for one (mutual TLS).
        key: the PEM file of its key.
        server_name: the name in the server's certificate, where it is not the one in the address.

    Raises:
        ConfigurationError: a certificate without its key, or the other way round.
        ConversionError: a field is of a type that cannot be meant.
    """

    ca: str | Path | None = None
    cert: str | Path | None = None
    key: str | Path | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        for name in ("ca", "cert", "key"):
            given.optional_path(name, getattr(self, name))
        given.kind("server_name", self.server_name, (str, type(None)), "text, or None")
        if (self.cert is None) != (self.key is None):
            raise ConfigurationError("a certificate and its key come together: give both or neither")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and how to reach the servers.

    Attributes:
        addresses: gRPC targets, tried in turn.
        tls: None is plaintext.
        token: sent as ``authorization: Bearer`` with every call; not shown by repr.
        bulk: every call says that it may wait for interactive ones.
    """

    addresses: tuple[str, ...]
    tls: TlsConfig | None = None
    token: str | None = field(default=None, repr=False)
    bulk: bool = False

    @classmethod
    def of(
        cls,
        servers: str | Sequence[str],
        *,
        tls: bool | TlsConfig,
        token: str | None,
        allow_plaintext_token: bool,
        bulk: bool = False,
    ) -> "Endpoint":
        """Check and complete what the user wrote."""
        if not isinstance(servers, str):
            given.texts("servers", servers, '"localhost:8001" or ["a:8001", "b:8001"]')
        given.kind("tls", tls, (bool, TlsConfig), "True, False or a TlsConfig")
        given.kind("token", token, (str, type(None)), "text, or None")
        given.flags(allow_plaintext_token=allow_plaintext_token, bulk=bulk)
        listed = [servers] if isinstance(servers, str) else list(servers)
        names = [name.strip() for item in listed for name in item.split(",")]
        addresses = tuple(_address(name) for name in names)
        if not addresses:
            raise ConfigurationError("no server is given: name at least one, such as localhost:8001")
        config = TlsConfig() if tls is True else tls or None
        if token is not None and not (token and token.isascii() and token.isprintable() and " " not in token):
            raise ConfigurationError("the token is empty or has characters that cannot travel in a header")
        far = [address for address in addresses if not _is_local(address)]
        if token and config is None and far and not allow_plaintext_token:
            raise ConfigurationError(
                f"the token would travel readable by anyone on the way to {far[0]}: use TLS, or say "
                "allow_plaintext_token=True where the network itself is encrypted"
            )
        return cls(addresses, config, token, bulk)

    @property
    def metadata(self) -> Metadata:
        """What goes with every call."""
        token = (("authorization", f"Bearer {self.token}"),) if self.token else ()
        return (*token, ("horngate-priority", "bulk")) if self.bulk else token

    def proxy_of(self, address: str) -> str | None:
        """Return the variable that names the proxy by which gRPC goes to an address; None where it goes straight."""
        # An address that we looked up ourselves is reached straight.
        straight = address not in self.addresses or _is_local(address)
        return None if straight else proxy_variable(address.rpartition(":")[0])

    def channel(self, address: str, name: str | None = None) -> grpc.Channel:
        """Open a channel; it connects when it is first used.

        Args:
            address: where to.
            name: the ``host:port`` that the address was found under: what certificates and proxies know.
        """
        options = self._options(address, name)
        if self.tls is None:
            return grpc.insecure_channel(address, options)
        return grpc.secure_channel(address, self.credentials(), options)

    def aio_channel(self, address: str, name: str | None = None) -> grpc.aio.Channel:
        """Open a channel for the running event loop; see ``channel``."""
        options = self._options(address, name)
        if self.tls is None:
            return grpc.aio.insecure_channel(address, options)
        return grpc.aio.secure_channel(address, self.credentials(), options)

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the TLS files; a ConfigurationError where that is not possible."""
        tls = self.tls or TlsConfig()
        try:
            ca, key, cert = (None if path is None else Path(path).read_bytes() for path in (tls.ca, tls.key, tls.cert))
        except OSError as exc:
            raise ConfigurationError(f"a TLS file cannot be read: {exc}") from exc
        return grpc.ssl_channel_credentials(ca, key, cert)

    def _options(self, address: str, name: str | None) -> list[tuple[str, Any]]:
        options: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
            ("grpc.max_send_message_length", -1),
            ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
            ("grpc.enable_retries", 0),  # horngate_client.retry is the one who retries
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2000),
            ("grpc.min_reconnect_backoff_ms", 3000),  # the time for a connection: 20 s otherwise
            ("grpc.dns_min_time_between_resolutions_ms", 2000),
            ("grpc.use_local_subchannel_pool", 1),  # a channel is a connection of its own
            ("grpc.enable_http_proxy", 0 if name or _is_local(address) else 1),
        ]
        if name:
            options.append(("grpc.default_authority", name))
        if self.tls is not None and self.tls.server_name:
            options.append(("grpc.ssl_target_name_override", self.tls.server_name))
        return options


def path_of(method: str) -> str:
    """Return the path of an RPC."""
    return f"/{SERVICE}/{method}"


# --- private ------------------------------------------------------------------------------------------------


def _address(name: str) -> str:
    if not name:
        raise ConfigurationError("an address is empty: write host:port, such as localhost:8001")
    if name.startswith(("http:", "https:", "grpc:", "grpcs:")):
        raise ConfigurationError(f"{name}: write host:port without a scheme (the gRPC port, not the HTTP one)")
    if name.startswith(("unix:", "unix-abstract:", "dns:", "ipv4:", "ipv6:", "xds:")):
        return name
    host, port = name, str(DEFAULT_PORT)
    if name.startswith("["):
        host, _, rest = name.partition("]")
        host, port = f"{host}]", rest.removeprefix(":") or port
    elif name.count(":") == 1:
        host, port = name.split(":")
    elif ":" in name:
        raise ConfigurationError(f"{name}: write an IPv6 address in brackets, as [::1]:8001")
    if not host or "/" in name or not (port.isdecimal() and 0 < int(port) < 65536):
        raise ConfigurationError(f"{name!r} is no address: write host:port, such as localhost:8001")
    return f"{host}:{port}"


def _is_local(address: str) -> bool:
    host = address.rpartition(":")[0]
    return address.startswith("unix") or host in ("localhost", "[::1]") or host.startswith("127.")
