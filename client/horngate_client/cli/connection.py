"""The servers that a command asks, the model that it means, and the time that it has."""

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from horngate_client.channels import Endpoint, TlsConfig
from horngate_client.errors import CallError, ConfigurationError
from horngate_client.retry import RetryPolicy
from horngate_client.signature import ModelVersion
from horngate_client.sync import Client

USUAL = "mnist"
"""The model that is meant where the server has several and none is named."""
_LEAST_SECONDS = 0.001


class SeveralModels(ConfigurationError):
    """It cannot be told which model is meant."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(f"the server has the models {', '.join(names)}: choose one with --model NAME")
        self.names = list(names)


@dataclass(frozen=True, slots=True)
class Asking:
    """A client on its way through a command.

    Attributes:
        client: asks.
        model: the model's name.
        deadline: when the command's time is up, on the monotonic clock.
    """

    client: Client
    model: str
    deadline: float

    def left(self) -> float:
        """Return the seconds that the command has left: the timeout of its next call."""
        return max(_LEAST_SECONDS, self.deadline - time.monotonic())


@contextmanager
def connected(
    args: argparse.Namespace, server: str | None = None, *, retry: RetryPolicy | None = None
) -> Iterator[Asking]:
    """Open a client for the model that is meant, until the block ends.

    Args:
        args: the command's.
        server: one of its servers; None: all of them.
        retry: when to try again; None: as usual.

    Raises:
        SeveralModels: the server has several, none of them is named and none is the usual one.
    """
    deadline = time.monotonic() + args.timeout
    model = args.model
    if model is None:
        with client(args, server, retry=retry) as usual:
            asking = Asking(usual, USUAL, deadline)
            model = meant(_known(asking))
            if model == USUAL:
                yield asking
                return
    with client(args, server, model=model, retry=retry) as named:
        yield Asking(named, model, deadline)


def meant(known: tuple[ModelVersion, ...]) -> str:
    """Return the model that is meant where none is named: the only one, else the usual one.

    Args:
        known: what the server has; none where it does not say.

    Raises:
        SeveralModels: there are several, and none is the usual one.
    """
    names = sorted({each.name for each in known if each.state != "ended"})
    if len(names) == 1:
        return names[0]
    if names and USUAL not in names:
        raise SeveralModels(names)
    return USUAL


def client(
    args: argparse.Namespace, server: str | None = None, *, model: str = USUAL, retry: RetryPolicy | None = None
) -> Client:
    """Return a client with the command's options; see `connected`."""
    return Client(
        server or args.server or "localhost:8001",
        model=model,
        version=args.model_version,
        timeout=args.timeout,
        retry=retry,
        tls=_tls(args),
        token=args.token,
        allow_plaintext_token=args.allow_plaintext_token,
        bulk=args.bulk,
    )


def endpoint(args: argparse.Namespace) -> Endpoint:
    """Return the command's servers."""
    return Endpoint.of(
        args.server or "localhost:8001",
        tls=_tls(args),
        token=args.token,
        allow_plaintext_token=args.allow_plaintext_token,
        bulk=args.bulk,
    )


# --- private ---------------------------------------------------------------------------------------------


def _known(asking: Asking) -> tuple[ModelVersion, ...]:
    try:
        return asking.client.models(timeout=asking.left())
    except CallError as exc:
        if exc.code == "UNIMPLEMENTED":  # the list of models is an extension of the protocol
            return ()
        raise


def _tls(args: argparse.Namespace) -> bool | TlsConfig:
    if args.tls_ca or args.tls_cert or args.tls_key or args.tls_server_name:
        return TlsConfig(args.tls_ca, args.tls_cert, args.tls_key, args.tls_server_name)
    return bool(args.tls)
