"""Recorded requests are sent again, when they came or as fast as they can be, and the answers compared.

Nothing waits for an answer before it is sent (an open loop): a server that is slow gets as many requests as then. As in
`load`, nothing is retried.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import cycle
from math import inf
from typing import Any

import grpc
import grpc.aio

from horngate_client.channels import Endpoint, path_of
from horngate_client.codec import decode
from horngate_client.comparison import TOLERANCE, Comparison
from horngate_client.errors import CallError, HorngateError, ProtocolError
from horngate_client.failures import failure
from horngate_client.load import latency_ms
from horngate_client.records import RecordedRequest

MOST_IN_FLIGHT = 1000
"""Requests at the same time, however late the answers are."""
PROGRESS_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """What to do.

    Attributes:
        speed: how many times as fast as the requests came; infinite: as fast as they can be sent.
        model: to ask; empty: whom each was for.
        version: to ask for; empty: the server's choice.
        tolerance: see `Comparison`.
        concurrency: requests at the same time where they have no time, or are sent as fast as possible.
        connections: connections, dealt to the servers in turn.
        timeout: seconds for one request.
    """

    speed: float = 1.0
    model: str = ""
    version: str = ""
    tolerance: float = TOLERANCE
    concurrency: int = 64
    connections: int = 4
    timeout: float = 10.0


@dataclass(slots=True)
class ReplayReport:
    """What came of it.

    Attributes:
        comparison: the answers beside the recorded ones.
        requests: sent.
        answered: of these, how many were.
        seconds: that it took.
        recorded_seconds: from the first request to the last, when they were recorded; 0 where that is not known.
        recorded_by: requests by model and version that they were recorded of.
        answered_by: answers by version.
        latency_ms: as this client saw it: mean, p50, p90, p99 and max.
        recorded_latency_ms: the same in the server that recorded, of the requests that were answered now.
        behind_ms: by how much requests were sent later than they should; empty where there is no schedule.
        errors: failures by status.
        error_messages: what one of each said.
    """

    comparison: Comparison
    requests: int = 0
    answered: int = 0
    seconds: float = 0.0
    recorded_seconds: float = 0.0
    recorded_by: dict[str, int] = field(default_factory=dict)
    answered_by: dict[str, int] = field(default_factory=dict)
    latency_ms: dict[str, float] = field(default_factory=dict)
    recorded_latency_ms: dict[str, float] = field(default_factory=dict)
    behind_ms: dict[str, float] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    error_messages: dict[str, str] = field(default_factory=dict)

    @property
    def same(self) -> bool:
        """Whether every request was answered, and every recorded answer came again."""
        return bool(self.requests) and not self.errors and not self.comparison.different

    def json(self) -> dict[str, Any]:
        """Return what json.dumps takes."""
        return {"same": self.same, **asdict(self)}


async def run(
    endpoint: Endpoint,
    requests: Iterable[RecordedRequest],
    plan: ReplayPlan,
    progress: Callable[[str], None] = lambda _: None,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> ReplayReport:
    """Send requests, and return what came of it.

    Args:
        endpoint: the servers.
        requests: by the time at which they arrived; read while they are sent.
        plan: how.
        progress: is given a line about every second.
        clock: monotonic seconds, which the schedule is on.
        sleep: waits for so many of them.

    Raises:
        ConversionError: a request cannot be read, or it is not known whom to ask.
    """
    replay = _Replay(endpoint, plan, clock, sleep)
    try:
        return await replay.run(requests, progress)
    finally:
        await replay.close()


# --- private ------------------------------------------------------------------------------------------------


class _Replay:
    def __init__(
        self,
        endpoint: Endpoint,
        plan: ReplayPlan,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._endpoint = endpoint
        self._plan = plan
        self._clock = clock
        self._sleep = sleep
        self._report = ReplayReport(Comparison(plan.tolerance))
        self._took: list[float] = []
        self._recorded_took: list[float] = []
        self._behind: list[float] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._on_time = asyncio.Semaphore(MOST_IN_FLIGHT)
        self._at_once = asyncio.Semaphore(plan.concurrency)
        self._broken: BaseException | None = None
        addresses = [endpoint.addresses[each % len(endpoint.addresses)] for each in range(plan.connections)]
        self._channels = [endpoint.aio_channel(each) for each in addresses]
        calls: list[grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = [
            channel.unary_unary(path_of("ModelInfer")) for channel in self._channels
        ]
        self._turns = cycle(zip(addresses, calls, strict=True))

    async def run(self, requests: Iterable[RecordedRequest], progress: Callable[[str], None]) -> ReplayReport:
        plan, report = self._plan, self._report
        began = told = self._clock()
        first = last = 0.0
        for request in requests:
            if request.arrived:
                first = first or request.arrived
                last = max(last, request.arrived)
            room = self._at_once
            if plan.speed < inf and request.arrived:
                room = self._on_time
                due = began + (request.arrived - first) / plan.speed
                await self._sleep(max(0.0, due - self._clock()))
                self._behind.append(max(0.0, self._clock() - due))
            await room.acquire()
            if self._broken is not None:
                raise self._broken
            payload = request.encoded(plan.model, plan.version)
            self._tasks.add(task := asyncio.create_task(self._send(request, payload)))
            task.add_done_callback(partial(self._ended, room))
            report.requests += 1
            _count(report.recorded_by, f"{request.model} version {request.version or '?'}")
            if (now := self._clock()) - told >= PROGRESS_SECONDS:
                told = now
                progress(self._line(now - began))
        while self._tasks:
            await asyncio.gather(*self._tasks)
        report.seconds = self._clock() - began
        report.recorded_seconds = last - first
        report.latency_ms = latency_ms(self._took)
        report.recorded_latency_ms = latency_ms(self._recorded_took)
        report.behind_ms = latency_ms(self._behind)
        return report

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for channel in self._channels:
            await channel.close()

    def _ended(self, room: asyncio.Semaphore, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        room.release()
        if not task.cancelled() and (error := task.exception()):
            self._broken = error

    async def _send(self, request: RecordedRequest, payload: bytes) -> None:
        address, call = next(self._turns)
        sent = time.perf_counter()
        try:
            answer = decode(await call(payload, timeout=self._plan.timeout, metadata=self._endpoint.metadata))
        except grpc.RpcError as exc:
            self._fail(failure(exc, address, "ModelInfer", self._endpoint))
            return
        except ProtocolError as exc:
            self._fail(exc)
            return
        self._took.append(time.perf_counter() - sent)
        if request.took is not None:
            self._recorded_took.append(request.took)
        self._report.answered += 1
        _count(self._report.answered_by, answer.version)
        if request.outputs:
            self._report.comparison.add(request.outputs, answer.outputs, request.place)

    def _fail(self, error: HorngateError) -> None:
        code = error.code if isinstance(error, CallError) else type(error).__name__
        _count(self._report.errors, code)
        self._report.error_messages.setdefault(code, str(error))

    def _line(self, seconds: float) -> str:
        report = self._report
        return (
            f"{seconds:5.0f} s  {report.requests:>8} requests  {report.comparison.different} differ"
            f"  errors {sum(report.errors.values())}"
        )


def _count(counts: dict[str, int], key: str) -> None:
    counts[key] = counts.get(key, 0) + 1
