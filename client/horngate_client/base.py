"""What the two clients share: their options, and the state that outlives a call."""

import itertools
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from horngate_client.calls import Call
from horngate_client.channels import Endpoint, TlsConfig
from horngate_client.errors import ClientClosed, ConfigurationError
from horngate_client.job import Job, Span
from horngate_client.retry import RetryPolicy
from horngate_client.signature import ModelMetadata
from horngate_client.split import ROWS_PER_REQUEST

T = TypeVar("T")


class BaseClient:
    """Options and bookkeeping of a client; it never touches the network."""

    def __init__(
        self,
        servers: str | Sequence[str] = "localhost:8001",
        *,
        model: str = "mnist",
        version: str = "",
        timeout: float = 10.0,
        rows_per_request: int = ROWS_PER_REQUEST,
        in_flight: int = 8,
        retry: RetryPolicy | None = None,
        tls: bool | TlsConfig = False,
        token: str | None = None,
        allow_plaintext_token: bool = False,
        bulk: bool = False,
    ) -> None:
        """Check the options; nothing is sent before the first call.

        Args:
            servers: ``host:port``, several separated by commas, or a list. Requests go to each in turn, and a
                retry goes to the next. A name with several addresses in DNS is spread over as well.
            model: the model's name.
            version: a version to insist on; empty: the server's choice.
            timeout: seconds for a whole call: reading the signature, all requests of a split, retries. Each
                call can give its own.
            rows_per_request: the most rows in one request. Fewer go where 4 MiB are reached first.
            in_flight: the most requests of one call that are unanswered at a time.
            retry: when to try again; ``RetryPolicy(attempts=1)`` never does.
            tls: True for TLS with the usual authorities, or a TlsConfig.
            token: sent as ``authorization: Bearer ...``. Refused without TLS, except to this machine itself.
            allow_plaintext_token: send the token without TLS all the same.
            bulk: stand back behind interactive callers: a Horngate server computes these requests in the room that
                those leave, and never delays one of them by more than a batch.
        """
        self._endpoint = Endpoint.of(
            servers, tls=tls, token=token, allow_plaintext_token=allow_plaintext_token, bulk=bulk
        )
        if not model:
            raise ConfigurationError("the model's name is empty")
        if rows_per_request < 1 or in_flight < 1:
            raise ConfigurationError("rows_per_request and in_flight are at least 1")
        self._model = model
        self._version = version
        self._timeout = _checked(timeout)
        self._rows_per_request = rows_per_request
        self._in_flight = in_flight
        self._retry = retry or RetryPolicy()
        # Asking whether it is ready is itself a poll: every address once, without waiting in between.
        self._ask_each_once = replace(self._retry, attempts=len(self._endpoint.addresses), initial_seconds=0)
        self._turns = itertools.count()
        self._metadata: ModelMetadata | None = None
        self._closed = False
        self._open()

    def __repr__(self) -> str:
        state = " closed" if self._closed else ""
        return f"<{type(self).__name__} {','.join(self._endpoint.addresses)} model={self._model}{state}>"

    def _open(self) -> None:
        """Make what the driver needs."""

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosed(f"{self!r}")

    def _span(self, timeout: float | None) -> Span:
        now = time.monotonic()
        return Span(now, now + (self._timeout if timeout is None else _checked(timeout)))

    def _job(
        self,
        call: Call[T],
        span: Span,
        *,
        policy: RetryPolicy | None = None,
        turns: Iterator[int] | None = None,
    ) -> Job[T]:
        self._check_open()
        return Job(
            call,
            policy=policy or self._retry,
            span=span,
            window=self._in_flight,
            addresses=self._endpoint.addresses,
            turns=turns or self._turns,
            clock=time.monotonic,
            random=random.random,
        )


def _checked(timeout: float) -> float:
    if not (0 < timeout < math.inf):
        raise ConfigurationError(f"a timeout is a positive, finite number of seconds, not {timeout}")
    return timeout
