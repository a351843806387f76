"""The client for asyncio."""

# ruff: noqa: ASYNC109 - a timeout that the server learns of, as gRPC's deadline; asyncio.timeout stays outside

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from typing import Self, TypeVar

import grpc
import grpc.aio
from numpy.typing import ArrayLike

from horngate_client import calls
from horngate_client.base import BaseClient
from horngate_client.channels import failure, path_of
from horngate_client.codec import Array
from horngate_client.errors import CallError, ClientClosed, DeadlineExceeded, TryLater
from horngate_client.images import Images
from horngate_client.job import Job, Send, Span
from horngate_client.prediction import Prediction
from horngate_client.signature import ModelMetadata, ModelVersion, ServerInfo

T = TypeVar("T")


class AsyncClient(BaseClient):
    """Asks model servers from an event loop: ``Client``'s methods, to be awaited.

    It may be made anywhere, and belongs to the loop in which it is first used.
    """

    async def predict(
        self, images: Images, *, resize: bool = False, invert: bool = False, timeout: float | None = None
    ) -> Prediction:
        """Classify one image or many, in order; see ``Client.predict``."""
        span = self._span(timeout)
        call = calls.predict(
            await self._signature(span),
            self._version,
            images,
            self._rows_per_request,
            resize=resize,
            invert=invert,
        )
        return await self._run(self._job(call, span))

    async def infer(
        self,
        inputs: Mapping[str, ArrayLike],
        *,
        outputs: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> dict[str, Array]:
        """Run any model; see ``Client.infer``."""
        span = self._span(timeout)
        call = calls.infer(await self._signature(span), self._version, inputs, outputs, self._rows_per_request)
        return await self._run(self._job(call, span))

    async def model(self, *, refresh: bool = False, timeout: float | None = None) -> ModelMetadata:
        """Return the model's signature; see ``Client.model``."""
        if refresh:
            self._metadata = None
        return await self._signature(self._span(timeout))

    async def ready(self, *, timeout: float | None = None) -> bool:
        """Return whether the model can be asked now; see ``Client.ready``."""
        call = calls.model_ready(self._model, self._version)
        try:
            return await self._run(self._job(call, self._span(timeout), policy=self._ask_each_once))
        except (TryLater, DeadlineExceeded):
            return False

    async def server(self, *, timeout: float | None = None) -> ServerInfo:
        """Return what the server says about itself; of several servers, one."""
        span = self._span(timeout)
        same = itertools.repeat(next(self._turns))
        ready = await self._run(self._job(calls.server_ready(), span, turns=same))
        return await self._run(self._job(calls.server_info(ready=ready), span, turns=same))

    async def models(self, *, timeout: float | None = None) -> tuple[ModelVersion, ...]:
        """Return every version that the server knows, of all models.

        Of several servers, one is asked.
        """
        return await self._run(self._job(calls.models(), self._span(timeout)))

    async def promote(self, version: str, *, label: str = "stable", timeout: float | None = None) -> None:
        """Give a version of the model a label, on one server, which loads it first where that is needed.

        Args:
            version: its number.
            label: ``"stable"`` answers callers that name no version.
            timeout: seconds for the whole call, loading included.

        Raises:
            CallError: it cannot be served, with the reason; or the server runs without ``--admin``.
        """
        await self._run(self._job(calls.promote(self._model, version, label), self._span(timeout)))

    async def close(self) -> None:
        """Close the connections; calls under way fail with ClientClosed."""
        self._closed = True
        for channel in self._channels.values():
            await channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # --- private --------------------------------------------------------------------------------------------

    def _open(self) -> None:
        # Channels belong to an event loop, and there may be none yet: each is made when it is first needed.
        self._channels: dict[int, grpc.aio.Channel] = {}
        self._rpcs: dict[tuple[str, int], grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = {}

    async def _signature(self, span: Span) -> ModelMetadata:
        if self._metadata is None:
            self._metadata = await self._run(self._job(calls.model_metadata(self._model, self._version), span))
        return self._metadata

    async def _run(self, job: Job[T]) -> T:
        """Drive a call; the requests of a split fly as tasks, a single one needs none."""
        flying: set[asyncio.Task[tuple[Send, bytes | CallError]]] = set()
        try:
            while (step := job.next()) is not None:
                if isinstance(step, Send):
                    if job.single:
                        _report(job, *await self._send(job.method, step))
                    else:
                        flying.add(asyncio.create_task(self._send(job.method, step)))
                elif flying:
                    landed, flying = await asyncio.wait(
                        flying, timeout=step.seconds, return_when=asyncio.FIRST_COMPLETED
                    )
                    for task in landed:
                        _report(job, *task.result())
                else:
                    await asyncio.sleep(step.seconds or 0)
            return job.result()
        finally:
            for task in flying:
                task.cancel()
            await asyncio.gather(*flying, return_exceptions=True)

    async def _send(self, method: str, step: Send) -> tuple[Send, bytes | CallError]:
        try:
            rpc = self._rpc(method, step.address)
            return step, await rpc(step.request, timeout=step.timeout, metadata=self._endpoint.metadata)
        except grpc.RpcError as exc:
            self._check_open()
            return step, failure(exc, self._endpoint.addresses[step.address], method)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._closed and not (task and task.cancelling()):  # gRPC cancels the calls of a closed channel
                raise ClientClosed(f"{self!r}") from None
            raise

    def _rpc(self, method: str, address: int) -> "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]":
        self._check_open()
        rpc = self._rpcs.get((method, address))
        if rpc is None:
            if address not in self._channels:
                self._channels[address] = self._endpoint.aio_channel(address)
            rpc = self._rpcs[method, address] = self._channels[address].unary_unary(path_of(method))
        return rpc


def _report(job: Job[T], sent: Send, outcome: bytes | CallError) -> None:
    if isinstance(outcome, CallError):
        job.failed(sent.part, outcome)
    else:
        job.answered(sent.part, outcome)
