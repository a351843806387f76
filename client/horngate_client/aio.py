"""The client for asyncio."""

# ruff: noqa: ASYNC109 - a timeout that the server learns of, as gRPC's deadline; asyncio.timeout stays outside

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Self, TypeVar

import grpc
import grpc.aio
from numpy.typing import ArrayLike

from horngate_client import calls, given
from horngate_client.base import BaseClient
from horngate_client.channels import path_of
from horngate_client.codec import Array
from horngate_client.errors import CallError, ClientClosed, DeadlineExceeded, HorngateError, TryLater, Unavailable
from horngate_client.explanation import Explanation
from horngate_client.failures import cancelled, failure
from horngate_client.images import Images
from horngate_client.job import Job, Send, Span
from horngate_client.names import AFTER_FAILURE_SECONDS
from horngate_client.pool import PROBE_SECONDS
from horngate_client.prediction import Prediction
from horngate_client.signature import ModelMetadata, ModelVersion, ServerInfo

T = TypeVar("T")


class AsyncClient(BaseClient):
    """Asks model servers from an event loop: ``Client``'s methods, to be awaited.

    It may be made anywhere, and belongs to the loop in which it is first used.

    >>> async with AsyncClient("localhost:8001") as client:  # doctest: +SKIP
    ...     (await client.predict("seven.png")).label
    7
    """

    async def predict(
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
            await self._signature(span),
            self._version,
            images,
            self._rows_per_request,
            resize=resize,
            invert=invert,
        )
        return await self._run(self._job(call, span), span)

    async def explain(
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
            await self._signature(span),
            self._version,
            images,
            target,
            self._rows_per_request,
            resize=resize,
            invert=invert,
        )
        return await self._run(self._job(call, span), span)

    async def infer(
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
            await self._signature(span), self._version, inputs, outputs, self._rows_per_request, signature=signature
        )
        return await self._run(self._job(call, span), span)

    async def model(self, *, refresh: bool = False, timeout: float | None = None) -> ModelMetadata:
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
        return await self._signature(self._span(timeout))

    async def recorded(self, *, timeout: float | None = None) -> tuple[dict[str, Array], ...]:
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
        return await self._run(self._job(calls.recorded(self._model, self._version), span), span)

    async def ready(self, *, timeout: float | None = None) -> bool:
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
            await self._locate(span)
            return await self._run(self._poll(call, span), span)
        except (TryLater, DeadlineExceeded) as exc:
            if exc.lasting:
                raise
            return False

    async def server(self, *, timeout: float | None = None) -> ServerInfo:
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
        ready = await self._run(asked, span)
        return await self._run(self._job(calls.server_info(ready=ready), span, first=asked.last_address), span)

    async def models(self, *, timeout: float | None = None) -> tuple[ModelVersion, ...]:
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
        return await self._run(self._job(calls.models(), span), span)

    async def promote(self, version: str, *, label: str = "stable", timeout: float | None = None) -> None:
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
        await self._run(self._job(calls.promote(self._model, version, label), span), span)

    async def close(self) -> None:
        """Close the connections; calls under way fail with ClientClosed."""
        self._closed = True
        self._closing.set()
        channels = list(self._channels.values())
        self._channels.clear()
        for channel in channels:
            await channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # --- private --------------------------------------------------------------------------------------------

    def _open(self) -> None:
        # Channels belong to an event loop, and there may be none yet: each is made when it is first needed.
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._closing = asyncio.Event()
        self._probes: set[asyncio.Task[None]] = set()
        if self._endpoint.tls is not None:  # a file that cannot be read is said at once
            self._endpoint.credentials()

    async def _signature(self, span: Span) -> ModelMetadata:
        if self._metadata is None:
            self._metadata = await self._run(self._job(calls.model_metadata(self._model, self._version), span), span)
        return self._metadata

    async def _locate(self, span: Span) -> None:
        """Look up the names where that is due; wait for it only where no address is known."""
        looking = self._look_up()
        while not self._pool.addresses:
            self._check_open()
            left = span.deadline - time.monotonic()
            if left <= 0:
                raise self._no_addresses(span)
            if looking is None:
                await self._pause(min(left, AFTER_FAILURE_SECONDS))
            else:
                await asyncio.wait([asyncio.wrap_future(looking)], timeout=left)
            if self._retry.attempts is not None and not self._pool.addresses:
                raise self._no_addresses(span)
            looking = self._look_up(failed=True)

    async def _pause(self, seconds: float | None) -> None:
        """Wait, but not longer than until the client is closed."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), seconds)
        self._check_open()

    async def _run(self, job: Job[T], span: Span) -> T:
        """Drive a call; the requests of a split fly as tasks, a single one needs none."""
        await self._locate(span)
        for address in self._pool.due_probes():
            probe = asyncio.create_task(self._probe(address))
            self._probes.add(probe)
            probe.add_done_callback(self._probes.discard)
        flying: set[asyncio.Task[tuple[Send, bytes | CallError]]] = set()
        try:
            while (step := job.next()) is not None:
                if isinstance(step, Send):
                    if job.single:
                        _report(job, *await self._send(job.method, step))
                    else:
                        flying.add(asyncio.create_task(self._send(job.method, step)))
                elif flying:
                    landed, _ = await asyncio.wait(flying, timeout=step.seconds, return_when=asyncio.FIRST_COMPLETED)
                    for task in landed:
                        flying.discard(task)  # one that raises leaves the others to the end, which hears them all
                        _report(job, *task.result())
                else:
                    await self._pause(step.seconds)
            return job.result()
        finally:
            job.abandon()
            for task in flying:
                task.cancel()
            await asyncio.gather(*flying, return_exceptions=True)

    async def _send(self, method: str, step: Send) -> tuple[Send, bytes | CallError]:
        try:
            channel = self._channel(step.address)  # held until the answer comes, should the address go meanwhile
            rpc: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path_of(method))
            return step, await rpc(step.request, timeout=step.timeout, metadata=self._endpoint.metadata)
        except grpc.RpcError as exc:
            self._check_open()
            error = failure(exc, step.address, method, self._endpoint)
            if isinstance(error, Unavailable):
                self._look_up(failed=True)
            return step, error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task and task.cancelling():
                raise
            if self._closed:  # gRPC cancels the calls of a closed channel
                raise ClientClosed(f"{self!r}") from None
            return step, cancelled(step.address)
        except (grpc.aio.UsageError, asyncio.InvalidStateError):  # gRPC's words for a channel that was closed
            self._check_open()
            raise

    async def _probe(self, address: str) -> None:
        """Ask an ejected address whether it is well again, beside the calls."""
        ready = False
        try:
            step = Send(0, address, self._probe_request.request(0), PROBE_SECONDS)
            _, heard = await self._send("ModelReady", step)
            ready = isinstance(heard, bytes) and self._probe_request.answer(0, heard)
        except HorngateError:
            ready = False
        finally:
            self._pool.probed(address, ready=ready)

    def _channel(self, address: str) -> grpc.aio.Channel:
        self._check_open()
        channel = self._channels.get(address)
        if channel is None:
            channel = self._endpoint.aio_channel(address, self._names.name_of(address))
            known = self._pool.addresses
            self._channels = {old: each for old, each in self._channels.items() if old in known} | {address: channel}
        return channel


def _report(job: Job[T], sent: Send, outcome: bytes | CallError) -> None:
    if isinstance(outcome, CallError):
        job.failed(sent.part, outcome)
    else:
        job.answered(sent.part, outcome)
