"""The blocking client."""

import itertools
import queue
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Self, TypeVar

import grpc
from numpy.typing import ArrayLike

from horngate_client import calls
from horngate_client.base import BaseClient
from horngate_client.channels import failure, path_of
from horngate_client.codec import Array
from horngate_client.errors import DeadlineExceeded, TryLater
from horngate_client.images import Images
from horngate_client.job import Job, Send, Span
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
                table.
            resize: bring pictures to the model's size instead of refusing them.
            invert: swap black and white, for dark digits on light paper.
            timeout: seconds for the whole call, instead of the client's.

        Raises:
            ConversionError: the images do not fit the model.
            CallError: the servers did not answer, or refused.
        """
        span = self._span(timeout)
        call = calls.predict(
            self._signature(span), self._version, images, self._rows_per_request, resize=resize, invert=invert
        )
        return self._run(self._job(call, span))

    def infer(
        self,
        inputs: Mapping[str, ArrayLike],
        *,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> dict[str, Array]:
        """Run any model: arrays by input name to arrays by output name, rows in order.

        Many rows go in several requests, unless the model takes each request as a whole.

        Args:
            inputs: every input of the signature, with its batch axis where it has one. Strings (BYTES) are ``str``,
                which is sent as UTF-8, or ``bytes``, in lists or arrays of the types object, ``S`` or ``U``.
            outputs: the outputs to ask for; None: all.
            timeout: seconds for the whole call, instead of the client's.

        Returns:
            Arrays of the outputs' types and shapes. Strings are arrays of objects, each of them ``bytes``.
        """
        span = self._span(timeout)
        call = calls.infer(self._signature(span), self._version, inputs, outputs, self._rows_per_request)
        return self._run(self._job(call, span))

    def model(self, *, refresh: bool = False, timeout: float | None = None) -> ModelMetadata:
        """Return the model's signature; read once, and again on ``refresh``."""
        if refresh:
            self._metadata = None
        return self._signature(self._span(timeout))

    def ready(self, *, timeout: float | None = None) -> bool:
        """Return whether the model can be asked now.

        False while nobody answers, or the server or the model is not warm; what waiting does not cure, such
        as an unknown model, is raised.
        """
        call = calls.model_ready(self._model, self._version)
        try:
            return self._run(self._job(call, self._span(timeout), policy=self._ask_each_once))
        except (TryLater, DeadlineExceeded):
            return False

    def server(self, *, timeout: float | None = None) -> ServerInfo:
        """Return what the server says about itself; of several servers, one."""
        span = self._span(timeout)
        same = itertools.repeat(next(self._turns))
        ready = self._run(self._job(calls.server_ready(), span, turns=same))
        return self._run(self._job(calls.server_info(ready=ready), span, turns=same))

    def models(self, *, timeout: float | None = None) -> tuple[ModelVersion, ...]:
        """Return every version that the server knows, of all models.

        Of several servers, one is asked.
        """
        return self._run(self._job(calls.models(), self._span(timeout)))

    def promote(self, version: str, *, label: str = "stable", timeout: float | None = None) -> None:
        """Give a version of the model a label, on one server, which loads it first where that is needed.

        Args:
            version: its number.
            label: ``"stable"`` answers callers that name no version.
            timeout: seconds for the whole call, loading included.

        Raises:
            CallError: it cannot be served, with the reason; or the server runs without ``--admin``.
        """
        self._run(self._job(calls.promote(self._model, version, label), self._span(timeout)))

    def close(self) -> None:
        """Close the connections; calls under way fail with ClientClosed."""
        self._closed = True
        self._closing.set()
        for channel in self._channels:
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- private --------------------------------------------------------------------------------------------

    def _open(self) -> None:
        self._closing = threading.Event()
        self._channels = [self._endpoint.channel(index) for index in range(len(self._endpoint.addresses))]
        self._rpcs: dict[tuple[str, int], grpc.UnaryUnaryMultiCallable[bytes, bytes]] = {}

    def _signature(self, span: Span) -> ModelMetadata:
        if self._metadata is None:
            self._metadata = self._run(self._job(calls.model_metadata(self._model, self._version), span))
        return self._metadata

    def _run(self, job: Job[T]) -> T:
        return self._run_alone(job) if job.single else self._run_windowed(job)

    def _run_alone(self, job: Job[T]) -> T:
        """Drive a call of one request, in this thread alone: gRPC's shortest way."""
        while (step := job.next()) is not None:
            if isinstance(step, Send):
                rpc = self._rpc(job.method, step.address)
                try:
                    payload = rpc(step.request, timeout=step.timeout, metadata=self._endpoint.metadata)
                except grpc.RpcError as exc:
                    self._failed(job, step, exc)
                else:
                    job.answered(step.part, payload)
            else:
                self._closing.wait(step.seconds)
        return job.result()

    def _run_windowed(self, job: Job[T]) -> T:
        """Drive a call of several requests; gRPC's thread hands the answers over."""
        arrived: queue.SimpleQueue[tuple[Send, Any]] = queue.SimpleQueue()
        flying: dict[int, Any] = {}
        try:
            while (step := job.next()) is not None:
                if isinstance(step, Send):
                    rpc = self._rpc(job.method, step.address)
                    flying[step.part] = rpc.future(step.request, timeout=step.timeout, metadata=self._endpoint.metadata)
                    flying[step.part].add_done_callback(partial(_hand_over, arrived, step))
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
        job.failed(sent.part, failure(exc, self._endpoint.addresses[sent.address], job.method))

    def _rpc(self, method: str, address: int) -> "grpc.UnaryUnaryMultiCallable[bytes, bytes]":
        self._check_open()
        rpc = self._rpcs.get((method, address))
        if rpc is None:
            rpc = self._rpcs[method, address] = self._channels[address].unary_unary(path_of(method))
        return rpc


def _hand_over(arrived: "queue.SimpleQueue[tuple[Send, Any]]", sent: Send, future: Any) -> None:
    arrived.put((sent, future))
