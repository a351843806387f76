"""A load generator: so many callers, each sending its next request when its last is answered (a closed loop).

It never retries and counts every failure; of what ends in the measured window, every latency is kept, so that the
quantiles are exact.
"""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import lcm
from typing import Any

import grpc
import grpc.aio
import numpy as np
from numpy.typing import ArrayLike

from horngate_client import tensors
from horngate_client.channels import Endpoint, path_of
from horngate_client.codec import Array, RequestEncoder, decode
from horngate_client.errors import CallError, ConfigurationError, HorngateError, ProtocolError
from horngate_client.failures import failure
from horngate_client.signature import ModelMetadata, TensorSpec

Inputs = dict[str, Array]
"""A request's arrays by input name."""
_MOST, _MOST_BYTES = 4096, 1 << 26
"""Different requests that are sent, and their bytes where rows are sent more than once."""
_PAUSE_SECONDS = 0.01
"""After a failure a caller waits this long, or as long as the server asked, so that failing is no busy loop."""


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What to do.

    Attributes:
        concurrency: callers at the same time.
        connections: connections that they share; each goes to one server, in turn.
        rows: rows in each request.
        duration: seconds to measure.
        warmup: seconds before that, which do not count.
        timeout: seconds for one request.
    """

    concurrency: int = 128
    connections: int = 4
    rows: int = 1
    duration: float = 10.0
    warmup: float = 1.0
    timeout: float = 10.0


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What was measured; latencies are those of the requests that were answered well.

    Attributes:
        seconds: the measured window.
        requests: answered well in it.
        rows: in those requests.
        requests_per_second: throughput.
        rows_per_second: throughput.
        latency_ms: mean, p50, p90, p99 and max, exact; empty where nothing was answered.
        errors: failures in the window by status, and what one of them said.
    """

    seconds: float
    requests: int
    rows: int
    requests_per_second: float
    rows_per_second: float
    latency_ms: dict[str, float]
    errors: dict[str, int]
    error_messages: dict[str, str]

    def json(self) -> dict[str, Any]:
        """Return what json.dumps takes."""
        return asdict(self)


def cut(model: ModelMetadata, given: Sequence[Mapping[str, ArrayLike]], rows: int) -> list[Inputs]:
    """Return requests of so many rows, made of those given: each row comes as often as any other, as far as it goes.

    A model that takes requests whole gets the given ones as they are.

    Args:
        model: the model to ask.
        given: requests that fit it, of any number of rows.
        rows: in each request.

    Raises:
        ConfigurationError: the model takes requests whole, and ``rows`` is not 1.
        ConversionError: a request does not fit the model.
    """
    requests = [tensors.convert_inputs(model.inputs, each) for each in given]
    if not all(spec.in_rows for spec in model.inputs):
        if rows != 1:
            raise ConfigurationError(
                f"{model.name} takes requests whole: --rows is for models whose requests have rows"
            )
        return requests[:_MOST]
    alike: dict[tuple[tuple[int, ...], ...], list[Inputs]] = {}
    for request in requests:  # rows of different lengths cannot stand in one request
        alike.setdefault(tuple(array.shape[1:] for array in request.values()), []).append(request)
    return [each for group in alike.values() for each in _dealt(group, rows)][:_MOST]


def random_requests(model: ModelMetadata, rows: int) -> list[Inputs]:
    """Return requests of random values by the signature; see `cut`."""
    random = np.random.default_rng(0)
    return [{spec.name: _random(spec, rows, random) for spec in model.inputs} for _ in range(16)]


def encoded(model: ModelMetadata, version: str, requests: Iterable[Inputs]) -> list[bytes]:
    """Encode the requests that the callers send round and round.

    Args:
        model: the model to ask.
        version: the version to ask for, or empty.
        requests: what is sent.
    """
    encoder = RequestEncoder(model.name, version, model.inputs)
    return [encoder.encode(each) for each in requests]


async def run(
    endpoint: Endpoint,
    model: ModelMetadata,
    payloads: Sequence[bytes],
    plan: LoadPlan,
    progress: Callable[[str], None] = lambda _: None,
) -> LoadReport:
    """Put the load on and return what was measured.

    Args:
        endpoint: the servers.
        model: the signature that every answer is checked against.
        payloads: the requests.
        plan: how much and how long.
        progress: is given a line about every second.
    """
    tally = _Tally()
    channels = [
        endpoint.aio_channel(endpoint.addresses[index % len(endpoint.addresses)]) for index in range(plan.connections)
    ]
    turns = itertools.cycle(payloads)
    callers = []
    try:
        for number in range(plan.concurrency):
            index = number % plan.connections
            rpc: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channels[index].unary_unary(path_of("ModelInfer"))
            address = endpoint.addresses[index % len(endpoint.addresses)]
            callers.append(
                asyncio.create_task(
                    _caller(rpc, address=address, endpoint=endpoint, model=model, turns=turns, plan=plan, tally=tally)
                )
            )
        await asyncio.sleep(plan.warmup)
        started = tally.start()
        await _watch(tally, started, plan.duration, callers, progress)
        return tally.report(time.monotonic() - started, plan.rows)
    finally:
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        for channel in channels:
            await channel.close()


def latency_ms(seconds: Sequence[float]) -> dict[str, float]:
    """Return the mean, p50, p90, p99 and the longest of some times, exact, in milliseconds; nothing of none."""
    if not seconds:
        return {}
    ordered = np.sort(np.array(seconds)) * 1000
    found = {"mean": float(ordered.mean())}
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        found[name] = float(np.quantile(ordered, share, method="inverted_cdf"))
    return {**found, "max": float(ordered[-1])}


# --- private ---------------------------------------------------------------------------------------------


def _dealt(requests: Sequence[Inputs], rows: int) -> Iterator[Inputs]:
    """Deal the rows of some requests into requests of ``rows``: once, or until they come out even, if they are few."""
    joined = {name: np.concatenate([each[name] for each in requests]) for name in requests[0]}
    total = len(next(iter(joined.values())))
    size = rows * sum(array.nbytes for array in joined.values()) // total
    even, once = lcm(total, rows) // rows, -(-total // rows)
    for number in range(min(even, max(once, _MOST_BYTES // max(1, size)), _MOST)):
        chosen = np.arange(number * rows, (number + 1) * rows) % total
        yield {name: array[chosen] for name, array in joined.items()}


@dataclass(slots=True)
class _Tally:
    """What the callers saw since the measured window began."""

    latencies: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    messages: dict[str, str] = field(default_factory=dict)

    def start(self) -> float:
        self.latencies.clear()
        self.errors.clear()
        self.messages.clear()
        return time.monotonic()

    def fail(self, error: HorngateError) -> None:
        code = error.code if isinstance(error, CallError) else type(error).__name__
        self.errors[code] += 1
        self.messages.setdefault(code, str(error))

    def report(self, seconds: float, rows: int) -> LoadReport:
        count = len(self.latencies)
        return LoadReport(
            seconds=seconds,
            requests=count,
            rows=count * rows,
            requests_per_second=count / seconds,
            rows_per_second=count * rows / seconds,
            latency_ms=latency_ms(self.latencies),
            errors=dict(self.errors),
            error_messages=dict(self.messages),
        )


async def _caller(
    rpc: "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]",
    *,
    address: str,
    endpoint: Endpoint,
    model: ModelMetadata,
    turns: Iterator[bytes],
    plan: LoadPlan,
    tally: _Tally,
) -> None:
    metadata = endpoint.metadata
    while True:
        sent = time.perf_counter()
        try:
            payload = await rpc(next(turns), timeout=plan.timeout, metadata=metadata)
            took = time.perf_counter() - sent
            _check(payload, model, plan.rows)
        except grpc.RpcError as exc:
            error = failure(exc, address, "ModelInfer", endpoint)
            tally.fail(error)
            await asyncio.sleep(max(_PAUSE_SECONDS, error.pushback or 0))
        except ProtocolError as exc:
            tally.fail(exc)
            await asyncio.sleep(_PAUSE_SECONDS)
        else:
            tally.latencies.append(took)


def _check(payload: bytes, model: ModelMetadata, rows: int) -> None:
    in_rows = all(spec.in_rows for spec in model.outputs)
    answer = decode(payload, rows=rows if in_rows else None, wanted=[spec.name for spec in model.outputs])
    for spec in model.outputs:
        shape = answer.outputs[spec.name].shape
        if spec.shape != (-1,) and not spec.fits(shape):  # [-1] is any shape as well
            raise ProtocolError(f"{spec.name} came in the shape {list(shape)}; the signature says {spec}")


async def _watch(
    tally: _Tally,
    started: float,
    duration: float,
    callers: Sequence["asyncio.Task[None]"],
    progress: Callable[[str], None],
) -> None:
    """Wait for the end of the window, with a word each second; a caller that breaks ends it, with its exception."""
    seen = 0
    while (left := started + duration - time.monotonic()) > 0:
        broken, _ = await asyncio.wait(callers, timeout=min(1.0, left), return_when=asyncio.FIRST_EXCEPTION)
        for caller in broken:
            caller.result()
        fresh = tally.latencies[seen:]
        seen += len(fresh)
        median = f"{np.median(fresh) * 1000:.2f} ms" if fresh else "-"
        progress(
            f"{time.monotonic() - started:5.0f} s  {len(fresh):>8} requests  p50 {median}"
            f"  errors {tally.errors.total()}"
        )


def _random(spec: TensorSpec, rows: int, random: np.random.Generator) -> Array:
    """Make values that any model survives: bytes for integers, 0..1 for floats, one of each axis left open."""
    if spec.shape[:1] != (-1,):
        raise ConfigurationError(f"{spec} has no axis of rows, so random data cannot be made for it: use --input")
    shape = (rows, *(1 if axis == -1 else axis for axis in spec.shape[1:]))
    dtype = spec.numpy
    if spec.datatype == "BYTES":
        return np.full(shape, b"horngate", dtype=object)
    if dtype.kind == "f":
        return random.random(shape).astype(dtype)
    if dtype.kind == "b":
        return random.integers(0, 2, shape).astype(dtype)
    if spec.datatype == "BF16":
        return np.zeros(shape, dtype)
    return random.integers(0, 128 if dtype == np.int8 else 256, shape).astype(dtype)
