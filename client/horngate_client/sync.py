"""The blocking client."""

import queue
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import wait
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self, TypeVar

import grpc
from numpy.typing import ArrayLike

from horngate_client import calls, given
from horngate_client.base import BaseClient
from horngate_client.channels import path_of
from horngate_client.codec import Array
from horngate_client.errors import DeadlineExceeded, TryLater, Unavailable
from horngate_client.explanation import Explanation
from horngate_client.failures import failure
from horngate_client.images import Images
from horngate_client.job import Job, Send, Span
from horngate_client.names import AFTER_FAILURE_SECONDS
from horngate_client.pool import PROBE_SECONDS
from horngate_client.prediction import Prediction
from horngate_client.signature import ModelMetadata, ModelVersion, ServerInfo

T = TypeVar("T")


class Client(BaseClient):
    """Asks model servers, blocking; safe to share between threads.

    >>> with Client("localhost:8001") as client:  # doctest: +SKIP
    ...     client.predict("seven.png").label
    7
    """

    def predict(
        self, images: Images, *, resize: bool = False, invert: bool = False, timeout: float | None = None
    ) -> Prediction:
        """Classify one image or many, in order.

        Args:
            images: a PIL image, a path, an array, or a list of these; ``horngate_client.images`` has the
                table of shapes and values.
            resize: bring pictures to the model's size instead of refusing them.
            invert: swap black and white, for dark digits on light paper.
            timeout: seconds for the whole call, instead of the client's.

        Returns:
            Classes, int64 [N], and probabilities, floats [N, classes]; N is 1 for a single image.

        Raises:
            ConversionError: the images do not fit the model, or it takes none; nothing was sent.
            MissingExtra: a picture needs Pillow, which is not installed.
            ConfigurationError: the timeout is not a positive number of seconds.
            CallError: the servers refused, failed, or did not answer in time; its subclasses say which.
            ProtocolError: the answer is not one that the protocol allows.
            ClientClosed: the client was closed, before or meanwhile.
        """
        given.flags(resize=resize, invert=invert)
        span = self._span(timeout)
        call = calls.predict(
            self._signature(span), self._version, images, self._rows_per_request, resize=resize, invert=invert
        )
        return self._run(self._job(call, span), span)

    def explain(
        self,
        images: Images,
        target: ArrayLike | None = None,
        *,
        resize: bool = False,
        invert: bool = False,
        timeout: float | None = None,
    ) -> Explanation:
        """Say which parts of images speak for a class, and which against it.

        For a model with the signature ``explain``, as the trainer writes it. An explanation costs tens of predictions.

        Args:
            images: as for ``predict``.
            target: the class, one for all images or one for each; None, or -1: the one that is predicted.
            resize: as for ``predict``.
            invert: as for ``predict``.
            timeout: seconds for the whole call, instead of the client's.

        Raises:
            ConversionError: the images do not fit the model, or it has no such signature; nothing was sent.
            MissingExtra: a picture needs Pillow, which is not installed.
            ConfigurationError: the timeout is not a positive number of seconds.
            CallError: the servers refused, failed, or did not answer in time; its subclasses say which.
            ProtocolError: the answer is not one that the protocol allows.
            ClientClosed: the client was closed, before or meanwhile.
        """
        given.flags(resize=resize, invert=invert)
        span = self._span(timeout)
        call = calls.explain(
            self._signature(span),
            self._version,
            images,
            target,
            self._rows_per_request,
            resize=resize,
            invert=invert,
        )
        return self._run(self._job(call, span), span)

    def infer(
        self,
        inputs: Mapping[str, ArrayLike],
        *,
        outputs: Sequence[str] | None = None,
        signature: str = "",
        timeout: float | None = None,
    ) -> dict[str, Array]:
        """Run any model: arrays by input name to arrays by output name, rows in order.

        Many rows go in several requests, unless the model takes each request as a whole.

        Args:
            inputs: every input of the signature, with its batch axis where it has one. Strings (BYTES) are ``str``,
                which is sent as UTF-8, or ``bytes``, in lists or arrays of the types object, ``S`` or ``U``.
            outputs: the outputs to ask for; None: all.
            signature: the signature to run; empty: the model's default one.
            timeout: seconds for the whole call, instead of the client's.

        Returns:
            Arrays of the outputs' types and shapes. Strings are arrays of objects, each of them ``bytes``.

        Raises:
            ConversionError: an input is missing, unknown, or does not fit the signature; nothing was sent.
            ConfigurationError: the model has no such output or signature, or the timeout is not a positive number of
                seconds.
            CallError: the servers refused, failed, or did not answer in time; its subclasses say which.
            ProtocolError: the answer is not one that the protocol allows.
            ClientClosed: the client was closed, before or meanwhile.
        """
        given.inputs(inputs)
        given.text("signature", signature, '"serving_default"')
        if outputs is not None:
            given.texts("outputs", outputs, '["probabilities"]')
        span = self._span(timeout)
        call = calls.infer(
            self._signature(span), self._version, inputs, outputs, self._rows_per_request, signature=signature
        )
        return self._run(self._job(call, span), span)

    def model(self, *, refresh: bool = False, timeout: float | None = None) -> ModelMetadata:
        """Return the model's signature: names, datatypes and shapes.

        Args:
            refresh: read it again, though it was read before.
            timeout: seconds for the whole call, instead of the client's.

        Raises:
            ConfigurationError: the timeout is not a positive number of seconds.
            CallError: the servers refused, failed, or did not answer in time; its subclasses say which.
            ProtocolError: the answer is not one that the protocol allows.
            ClientClosed: the client was closed, before or meanwhile.
        """
        given.flags(refresh=refresh)
        if refresh:
            self._metadata = None
        return self._signature(self._span(timeout))

    def recorded(self, *, timeout: float | None = None) -> tuple[dict[str, Array], ...]:
        """Return requests that the model was trained for, as its version recorded them: examples to call it with.

        Args:
            timeout: seconds for the whole call, instead of the client's.

        Returns:
            For each request, arrays by input name, as ``infer`` takes them, 128 KiB in all at most; none where the
            version has none, or the server is no Horngate.

        Raises:
            ConfigurationError: the timeout is not a positive number of seconds.
            CallError: the servers refused, failed, or did not answer in time; its subclasses say which.
            ProtocolError: the answer is not one that the protocol allows.
            ClientClosed: the client was closed, before or meanwhile.
        """
        span = self._span(timeout)
        return self._run(self._job(calls.recorded(self._model, self._version), span), span)

    def ready(self, *, timeout: float | None = None) -> bool:
        """Return whether the model can be asked now.

        False while nobody answers, or the server or the model is not warm.

        Args:
            timeout: seconds for the whole call, instead of the client's.

        Raises:
            ConfigurationError: the timeout is not a positive number of seconds.
            CallError: what waiting does not cure, such as ModelNotFound, Unauthenticated, or an untrusted certificate.
            ProtocolError: the answer is not one that the protocol allows.
            ClientClosed: the client was closed, before or meanwhile.
        """
        call = calls.model_ready(self._model, self._version)
        span = self._span(timeout)
        try:
            self._locate(span)
            return self._run(self._poll(call, span), span)
        except (TryLater, DeadlineExceeded) as exc:
            if exc.lasting:
                raise
            return False

    def server(self, *, timeout: float | None = None) -> ServerInfo:
        """Return what the server says about itself; of several servers, one.

        Args:
            timeout: seconds for the whole call, instead of the client's.

        Raises:
            ConfigurationError: the timeout is not a positive number of seconds.
            CallError: the servers refused, failed, or did not answer in time; its subclasses say which.
            ProtocolError: the answer is not one that the protocol allows.
            ClientClosed: the client was closed, before or meanwhile.
        """
        span = self._span(timeout)
        asked = self._job(calls.server_ready(), span)
        ready = self._run(asked, span)
        return self._run(self._job(calls.server_info(ready=ready), span, first=asked.last_address), span)

    def models(self, *, timeout: float | None = None) -> tuple[ModelVersion, ...]:
        """Return every version that the server knows, of all models; of several servers, one is asked.

        Args:
            timeout: seconds for the whole call, instead of the client's.

        Raises:
            ConfigurationError: the timeout is not a positive number of seconds.
            CallError: the servers refused, failed, or did not answer in time; its subclasses say which.
            ProtocolError: the answer is not one that the protocol allows.
            ClientClosed: the client was closed, before or meanwhile.
        """
        span = self._span(timeout)
        return self._run(self._job(calls.models(), span), span)

    def promote(self, version: str, *, label: str = "stable", timeout: float | None = None) -> None:
        """Give a version of the model a label, on one server, which loads it first where that is needed.

        Args:
            version: its number.
            label: ``"stable"`` answers callers that name no version.
            timeout: seconds for the whole call, loading included.

        Raises:
            ConfigurationError: the version is no number, or the timeout is not a positive number of seconds.
            CallError: it cannot be served, with the reason; or the server runs without ``--admin``.
            ProtocolError: the answer is not one that the protocol allows.
            ClientClosed: the client was closed, before or meanwhile.
        """
        span = self._span(timeout)
        self._run(self._job(calls.promote(self._model, version, label), span), span)

    def close(self) -> None:
        """Close the connections; calls under way fail with ClientClosed."""
        with self._lock:
            self._closed = True
            lines = dict(self._lines)
            self._lines.clear()
        self._closing.set()
        for line in lines.values():
            line.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- private --------------------------------------------------------------------------------------------

    def _open(self) -> None:
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._lines: dict[str, _Line] = {}
        if self._endpoint.tls is not None:  # a file that cannot be read is said at once
            self._endpoint.credentials()

    def _signature(self, span: Span) -> ModelMetadata:
        if self._metadata is None:
            self._metadata = self._run(self._job(calls.model_metadata(self._model, self._version), span), span)
        return self._metadata

    def _locate(self, span: Span) -> None:
        """Look up the names where that is due; wait for it only where no address is known."""
        looking = self._look_up()
        while not self._pool.addresses:
            self._check_open()
            left = span.deadline - time.monotonic()
            if left <= 0:
                raise self._no_addresses(span)
            if looking is None:
                self._closing.wait(min(left, AFTER_FAILURE_SECONDS))
            else:
                wait([looking], timeout=left)
            if self._retry.attempts is not None and not self._pool.addresses:
                raise self._no_addresses(span)
            looking = self._look_up(failed=True)

    def _run(self, job: Job[T], span: Span) -> T:
        self._locate(span)
        for address in self._pool.due_probes():
            self._probe(address)
        try:
            return self._run_alone(job) if job.single else self._run_windowed(job)
        finally:
            job.abandon()

    def _run_alone(self, job: Job[T]) -> T:
        """Drive a call of one request, in this thread alone: gRPC's shortest way."""
        while (step := job.next()) is not None:
            if isinstance(step, Send):
                try:
                    payload = self._rpc(job.method, step.address)(
                        step.request, timeout=step.timeout, metadata=self._endpoint.metadata
                    )
                except grpc.RpcError as exc:
                    self._failed(job, step, exc)
                except ValueError:  # gRPC's word for a channel that was closed meanwhile
                    self._check_open()
                    raise
                else:
                    job.answered(step.part, payload)
            else:
                self._closing.wait(step.seconds)
                self._check_open()
        return job.result()

    def _run_windowed(self, job: Job[T]) -> T:
        """Drive a call of several requests; gRPC's thread hands the answers over."""
        arrived: queue.SimpleQueue[tuple[Send, Any]] = queue.SimpleQueue()
        flying: dict[int, Any] = {}
        try:
            while (step := job.next()) is not None:
                if isinstance(step, Send):
                    flying[step.part] = self._begin(job.method, step.address, step.request, step.timeout)
                    flying[step.part].add_done_callback(partial(_hand_over, arrived, step))
                    continue
                if not flying:
                    self._closing.wait(step.seconds)
                    self._check_open()
                    continue
                try:
                    sent, future = arrived.get(timeout=step.seconds)
                except queue.Empty:
                    continue
                del flying[sent.part]
                if future.code() is grpc.StatusCode.OK:
                    job.answered(sent.part, future.result())
                else:
                    self._failed(job, sent, future)
            return job.result()
        finally:
            for future in flying.values():
                future.cancel()

    def _failed(self, job: Job[T], sent: Send, exc: Any) -> None:
        self._check_open()  # what was under way when it was closed fails for that reason
        error = failure(exc, sent.address, job.method, self._endpoint)
        if isinstance(error, Unavailable):
            self._look_up(failed=True)
        job.failed(sent.part, error)

    def _probe(self, address: str) -> None:
        """Ask an ejected address whether it is well again, without waiting for it."""
        asked = self._begin("ModelReady", address, self._probe_request.request(0), PROBE_SECONDS)

        def heard(future: Any) -> None:
            ready = future.code() is grpc.StatusCode.OK and self._probe_request.answer(0, future.result())
            self._pool.probed(address, ready=ready)

        asked.add_done_callback(heard)

    def _begin(self, method: str, address: str, request: bytes, timeout: float) -> Any:
        try:
            return self._rpc(method, address).future(request, timeout=timeout, metadata=self._endpoint.metadata)
        except ValueError:
            self._check_open()
            raise

    def _rpc(self, method: str, address: str) -> "grpc.UnaryUnaryMultiCallable[bytes, bytes]":
        line = self._lines.get(address)
        if line is None:
            with self._lock:
                self._check_open()
                line = self._lines.get(address)
                if line is None:
                    line = _Line(self._endpoint.channel(address, self._names.name_of(address)))
                    # Calls under way keep the channel of an address that is gone open until they end.
                    known = self._pool.addresses
                    kept = {old: each for old, each in self._lines.items() if old in known}
                    self._lines = kept | {address: line}
        rpc = line.rpcs.get(method)
        if rpc is None:
            rpc = line.rpcs[method] = line.channel.unary_unary(path_of(method))
        return rpc


@dataclass(slots=True)
class _Line:
    """A channel to one address, and the methods that were called there."""

    channel: grpc.Channel
    rpcs: dict[str, "grpc.UnaryUnaryMultiCallable[bytes, bytes]"] = field(default_factory=dict)


def _hand_over(arrived: "queue.SimpleQueue[tuple[Send, Any]]", sent: Send, future: Any) -> None:
    arrived.put((sent, future))
