"""Queues, work-conserving batches and balancers as discrete events, seeded: the same arguments, the same latencies.

A replica is what the server is: it takes whatever waits, up to a full batch, as soon as it is idle. What a batch takes
is a function of its requests. A balancer knows what it has sent itself, and nothing of the others: where each of many
sees little of a replica's load, the less busy of two is no longer known. The network, the callers' own time and the
neighbours on a machine are not in it. Nothing here is measured.
"""

import heapq
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.float64]
Pick = Callable[[random.Random, Sequence[int], int], int]
"""From a balancer's requests at each replica, and the number of its own request: where to."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """What answers.

    Attributes:
        replicas: how many.
        batch_s: seconds that a batch of so many requests takes.
        most: the most requests in a batch.
        slowness: by replica, what its batches' seconds are multiplied with; 1 for those that are not named.
    """

    replicas: int
    batch_s: Callable[[int], float]
    most: int = 1024
    slowness: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it.

    Attributes:
        arrivals: seconds, ascending.
        took: seconds from its arrival to the end of its batch, for each.
        places: the replica of each.
    """

    arrivals: Times
    took: Times
    places: npt.NDArray[np.int64]

    def ms(self, *percentiles: float) -> list[float]:
        """Return percentiles of the milliseconds, without the first fifth, in which queues only fill."""
        return [float(each) * 1000 for each in np.percentile(self.took[len(self.took) // 5 :], percentiles)]

    @property
    def per_second(self) -> float:
        """Answers a second until the last arrival."""
        last = float(self.arrivals[-1])
        return float((self.arrivals + self.took <= last).sum()) / last


def poisson(rate: float, count: int, seed: int = 1, *, at_once: int = 1) -> Times:
    """Return the moments at which so many requests come, in seconds: independent of each other, or so many at once."""
    gaps = np.random.default_rng(seed).exponential(at_once / rate, -(-count // at_once))
    return np.repeat(np.cumsum(gaps), at_once)[:count]


def round_robin(_randomly: random.Random, sent: Sequence[int], number: int) -> int:
    """One after the other: gRPC's round_robin."""
    return number % len(sent)


def two_choices(randomly: random.Random, sent: Sequence[int], _number: int) -> int:
    """The less busy of two: Envoy's LEAST_REQUEST, as far as this balancer knows."""
    first, second = int(randomly.random() * len(sent)), int(randomly.random() * len(sent))
    return first if sent[first] <= sent[second] else second


def pinned(connections: int) -> Pick:
    """So many connections, each opened to a replica at random: a virtual address, without a balancer for HTTP/2."""
    draws = [random.Random(each).random() for each in range(connections)]

    def pick(_randomly: random.Random, sent: Sequence[int], number: int) -> int:
        return int(draws[number % connections] * len(sent))

    return pick


def simulate(fleet: Fleet, arrivals: Times, pick: Pick, *, balancers: int = 1, seed: int = 1) -> Outcome:
    """Return what happens to requests that arrive at these moments, at one balancer after the other."""
    randomly = random.Random(seed)
    took, places = np.zeros(len(arrivals)), np.zeros(len(arrivals), np.int64)
    sent = [[0] * fleet.replicas for _ in range(balancers)]
    turns = [randomly.randrange(fleet.replicas) for _ in range(balancers)]
    waiting: list[deque[int]] = [deque() for _ in range(fleet.replicas)]
    running: list[list[int]] = [[] for _ in range(fleet.replicas)]
    ends: list[tuple[float, int]] = []
    moments = arrivals.tolist()

    def start(place: int, at: float) -> None:
        line = waiting[place]
        running[place] = [line.popleft() for _ in range(min(len(line), fleet.most))]
        heapq.heappush(ends, (at + fleet.batch_s(len(running[place])) * fleet.slowness.get(place, 1.0), place))

    def finish(until: float) -> None:
        while ends and ends[0][0] <= until:
            at, place = heapq.heappop(ends)
            for number in running[place]:
                took[number] = at - moments[number]
                sent[number % balancers][place] -= 1
            running[place] = []
            if waiting[place]:
                start(place, at)

    for number, now in enumerate(moments):
        finish(now)
        mine = number % balancers
        place = pick(randomly, sent[mine], turns[mine])
        turns[mine] += 1
        sent[mine][place] += 1
        places[number] = place
        waiting[place].append(number)
        if not running[place]:
            start(place, now)
    finish(float("inf"))
    return Outcome(arrivals, took, places)


def batches(request_s: float, ladder_ms: Sequence[tuple[int, float]] = ()) -> Callable[[int], float]:
    """Return what a batch of single rows takes: each request's own cost, and the model's next larger rung.

    Args:
        request_s: a request's own seconds: decoding, framing, answering.
        ladder_ms: rows and milliseconds of a batch, ascending; none where the model costs nothing.
    """

    def seconds(requests: int) -> float:
        rungs: Iterator[float] = (ms for rows, ms in ladder_ms if rows >= requests)
        return requests * request_s + next(rungs, ladder_ms[-1][1] if ladder_ms else 0.0) / 1000

    return seconds
