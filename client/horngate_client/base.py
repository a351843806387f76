"""What the two clients share: their options, and the state that outlives a call."""

import math
import random
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import TypeVar

from horngate_client import calls, given
from horngate_client.budget import Bucket, RetryBudget
from horngate_client.calls import Call
from horngate_client.channels import Endpoint, TlsConfig
from horngate_client.errors import ClientClosed, ConfigurationError, Unavailable
from horngate_client.job import Job, Span
from horngate_client.names import AFTER_FAILURE_SECONDS, REFRESH_SECONDS, Names, Resolve, system_resolve
from horngate_client.pool import Pool
from horngate_client.retry import RetryPolicy
from horngate_client.signature import ModelMetadata
from horngate_client.split import ROWS_PER_REQUEST

T = TypeVar("T")


class BaseClient:
    """Options and bookkeeping of a client; it never touches the network, but for looking up names."""

    _resolve: Resolve = staticmethod(system_resolve)

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
                retry goes to another. A name is looked up every ten seconds while there are calls, and when a
                server fails; requests go to each of its addresses in turn.
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

        Raises:
            ConfigurationError: an option makes no sense, alone or beside another.
            ConversionError: an option is of a type that cannot be meant, such as version=9 for version="9".
        """
        given.text("model", model, '"mnist"')
        given.text("version", version, '"9", or a label')
        given.whole("rows_per_request", rows_per_request, "1024")
        given.whole("in_flight", in_flight, "8")
        given.kind("retry", retry, (RetryPolicy, type(None)), "a RetryPolicy, or None")
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
        self._names = Names(
            self._endpoint.addresses, resolve=self._resolve, clock=time.monotonic, found=self._found_addresses
        )
        self._pool = Pool(self._names.addresses, clock=time.monotonic, random=random.random)
        self._bucket = Bucket(self._retry.budget, time.monotonic())
        self._probe_request = calls.model_ready(model, version)
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

    def _job(self, call: Call[T], span: Span, *, first: str | None = None) -> Job[T]:
        return self._new_job(call, span, self._retry, self._bucket, first)

    def _poll(self, call: Call[T], span: Span) -> Job[T]:
        """Ask every address once, without waiting in between: asking whether it is ready is itself a poll."""
        addresses = max(1, len(self._pool.addresses))
        policy = replace(self._retry, attempts=addresses, initial_seconds=0)
        return self._new_job(call, span, policy, Bucket(RetryBudget(burst=addresses), time.monotonic()), None)

    def _new_job(self, call: Call[T], span: Span, policy: RetryPolicy, bucket: Bucket, first: str | None) -> Job[T]:
        self._check_open()
        return Job(
            call,
            policy=policy,
            span=span,
            window=self._in_flight,
            pool=self._pool,
            bucket=bucket,
            clock=time.monotonic,
            random=random.random,
            first=first,
        )

    def _found_addresses(self) -> None:
        if found := self._names.addresses:
            self._pool.replace(found)

    def _look_up(self, *, failed: bool = False) -> "Future[tuple[str, ...]] | None":
        return self._names.look_up(older_than=AFTER_FAILURE_SECONDS if failed else REFRESH_SECONDS)

    def _no_addresses(self, span: Span) -> Unavailable:
        error = Unavailable(
            f"{','.join(self._endpoint.addresses)}: no address was found: {self._names.problem or 'no answer'}",
            code="UNAVAILABLE",
            address=self._endpoint.addresses[0],
        )
        error.unsent, error.seconds = True, time.monotonic() - span.started
        return error


def _checked(timeout: float) -> float:
    given.number("timeout", timeout, "5, which is seconds")
    if not (0 < timeout < math.inf):
        raise ConfigurationError(f"a timeout is a positive, finite number of seconds, not {timeout}")
    return timeout
