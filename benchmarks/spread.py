"""Callers who spread requests over replicas, in an open loop: by grpcio, by Horngate's client, or through a proxy.

Requests leave when they are due (`simulate.poisson`), from one caller after the other, and a latency counts from then.
A few hundred a second: what is measured is where they go and what becomes of them, not what a caller can do.
"""

import asyncio
import gc
import json
import multiprocessing
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import grpc
import numpy as np
import uvloop
from callers import INFER, infer_body
from simulate import Times, poisson

from horngate_client import AsyncClient, HorngateError

CLIENT = "client"
"""Stands for Horngate's client, where others have a service configuration."""
START_S = 60.0
OK = "OK"
DEADLINE_S = 2.0


@dataclass(frozen=True, slots=True)
class Spread:
    """What to send, and how.

    Attributes:
        addresses: the replicas' or the proxy's, host:port.
        how: gRPC's service configuration as JSON, or `CLIENT`.
        model: one whose input is ``x``, FP32 [-1, 1].
        rate: requests a second, on average.
        count: how many.
        callers: with connections of their own.
        deadline_s: of each request.
    """

    addresses: Sequence[str]
    how: str
    model: str
    rate: float
    count: int
    callers: int = 4
    deadline_s: float = DEADLINE_S


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of them.

    Attributes:
        arrivals: when each was due, in seconds.
        took: seconds of each from then.
        codes: how each ended.
    """

    arrivals: Times
    took: Times
    codes: Sequence[str]

    @property
    def failed(self) -> Counter[str]:
        """How many failed, by code."""
        return Counter(code for code in self.codes if code != OK)

    @property
    def last_failed_s(self) -> float:
        """When the last that failed was due; 0 where none did."""
        return max((float(at) for at, code in zip(self.arrivals, self.codes, strict=True) if code != OK), default=0.0)

    @property
    def per_second(self) -> float:
        """Answers a second until the last was due."""
        last = self.arrivals[-1]
        right = np.array([code == OK for code in self.codes])
        return float((right & (self.arrivals + self.took <= last)).sum() / last)

    def ms(self, *percentiles: float, since_s: float = 0.0) -> list[float]:
        """Return percentiles of milliseconds, of requests that were due since then, without the first fifth of all."""
        late = self.arrivals >= max(since_s, self.arrivals[len(self.arrivals) // 5])
        return [float(each) * 1000 for each in np.percentile(self.took[late], percentiles)]


def offer(what: Spread, after_s: float = 0.0, change: Callable[[], None] = lambda: None) -> Seen:
    """Send it, from a process of its own.

    Args:
        what: what to send.
        after_s: so long after the first request...
        change: ...this is called.
    """
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_send, args=(what, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        if not mine.poll(START_S):
            raise SystemExit("the callers did not start")
        mine.recv()
        if not mine.poll(after_s):
            change()
        seen: Seen = mine.recv()
    except EOFError:
        raise SystemExit("the callers failed; what they said is above") from None
    finally:
        process.join(10)
        process.kill()
    return seen


# --- private ------------------------------------------------------------------------------------------

Call = Callable[[], Awaitable[object]]


def _send(what: Spread, line: Connection) -> None:
    gc.disable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        line.send(runner.run(_sent(what, line)))


async def _sent(what: Spread, line: Connection) -> Seen:
    moments = poisson(what.rate, what.count)
    took, codes = np.zeros(what.count), [""] * what.count
    async with AsyncExitStack() as stack:
        calls = [await _caller(what, stack) for _ in range(what.callers)]
        for call in calls:
            await asyncio.gather(*(call() for _ in what.addresses))  # connections are made, signatures read
        line.send(None)
        began = time.perf_counter()

        async def one(number: int, due: float) -> None:
            try:
                await calls[number % len(calls)]()
                codes[number] = OK
            except grpc.aio.AioRpcError as error:
                codes[number] = error.code().name
            except HorngateError as error:
                codes[number] = type(error).__name__
            took[number] = time.perf_counter() - began - due

        async with asyncio.TaskGroup() as tasks:
            for number, due in enumerate(moments.tolist()):
                if (early := due - (time.perf_counter() - began)) > 0:
                    await asyncio.sleep(early)
                tasks.create_task(one(number, due))
    return Seen(moments, took, codes)


async def _caller(what: Spread, stack: AsyncExitStack) -> Call:
    if what.how == CLIENT:
        client = await stack.enter_async_context(AsyncClient(what.addresses, model=what.model, timeout=what.deadline_s))
        x = np.zeros((1, 1), np.float32)
        return lambda: client.infer({"x": x})
    json.loads(what.how)  # grpcio ignores one that it cannot read
    options: list[tuple[str, Any]] = [("grpc.service_config", what.how), ("grpc.use_local_subchannel_pool", 1)]
    target = f"ipv4:{','.join(what.addresses)}"
    channel = await stack.enter_async_context(grpc.aio.insecure_channel(target, options))
    infer: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(INFER)
    body = infer_body(what.model, "x", "FP32", (1, 1), bytes(4))
    return lambda: infer(body, timeout=what.deadline_s, wait_for_ready=False)
