"""How many replicas for how much load: a simulation of queues, batches and balancing, for deploy/SCALING.md.

A replica is what the server is: it takes whatever waits, up to a full batch, as soon as it is idle. A request costs it
`--request-us` (decoding, framing, answering), a batch what the model's ladder says (`horngate-server inspect --json`).
Arrivals are Poisson's, or come in bursts. Prints a table; nothing is measured here but the simulation itself.
"""

import argparse
import heapq
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

LADDER_MS = {1: 0.04, 64: 0.09, 128: 0.15, 256: 0.34, 512: 0.83, 1024: 1.21}
"""Milliseconds per batch of the reference model on two cores, as the server's log shows them at start."""


@dataclass(slots=True)
class Replica:
    """One server.

    Attributes:
        waiting: arrival times of what has not been taken.
        running: arrival times of what is computed.
    """

    waiting: deque[float] = field(default_factory=deque)
    running: list[float] = field(default_factory=list)

    def load(self) -> int:
        """Return how many requests are here: what a least-request balancer counts."""
        return len(self.waiting) + len(self.running)


def batch_s(requests: int, request_s: float, ladder_ms: Mapping[int, float] = LADDER_MS) -> float:
    """Return how long a batch of single rows takes: every request's own cost, and the model's next larger rung."""
    rung = next((ms for rows, ms in ladder_ms.items() if rows >= requests), max(ladder_ms.values(), default=0.0))
    return requests * request_s + rung / 1000


Pick = Callable[[Sequence[Replica], int], int]


def round_robin(replicas: Sequence[Replica], number: int) -> int:
    """GRPC's round_robin in one client, or DNS with many."""
    return number % len(replicas)


def pinned(replicas: Sequence[Replica], number: int) -> int:
    """Twelve clients with a connection each, opened at random: a virtual address without a balancer for HTTP/2."""
    return random.Random(number % 12).randrange(len(replicas))


def two_choices(replicas: Sequence[Replica], _number: int) -> int:
    """Envoy's LEAST_REQUEST: the less busy of two."""
    first, second = random.randrange(len(replicas)), random.randrange(len(replicas))
    return first if replicas[first].load() <= replicas[second].load() else second


def simulate(
    replicas: int,
    rate: float,
    pick: Pick,
    *,
    request_s: float,
    requests: int,
    burst: int,
    ladder_ms: Mapping[int, float] = LADDER_MS,
) -> list[float]:
    """Return the latencies of so many requests, in seconds, sorted.

    Args:
        replicas: how many servers.
        rate: requests a second, all together.
        pick: the balancer.
        request_s: a request's own cost.
        requests: how many to simulate; the first fifth is not counted.
        burst: how many arrive at one moment; 1 for Poisson arrivals.
        ladder_ms: milliseconds of a batch by its rows, ascending, beside its requests' own cost; none for nothing.
    """
    random.seed(1)
    servers = [Replica() for _ in range(replicas)]
    ends: list[tuple[float, int]] = []
    latencies: list[float] = []
    now, number = 0.0, 0

    def start(place: int, at: float) -> None:
        server = servers[place]
        count = min(len(server.waiting), 1024)
        server.running = [server.waiting.popleft() for _ in range(count)]
        heapq.heappush(ends, (at + batch_s(count, request_s, ladder_ms), place))

    while number < requests:
        now += random.expovariate(rate / burst)
        while ends and ends[0][0] <= now:
            at, place = heapq.heappop(ends)
            server = servers[place]
            latencies += [at - arrived for arrived in server.running]
            server.running = []
            if server.waiting:
                start(place, at)
        for _ in range(burst):
            place = pick(servers, number)
            servers[place].waiting.append(now)
            number += 1
            if not servers[place].running:
                start(place, now)
    return sorted(latencies[requests // 5 :])


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--request-us", type=float, default=20.0, help="1e6 / (requests a second of one replica)")
    parser.add_argument("--requests", type=int, default=300_000)
    asked = parser.parse_args()
    request_s = asked.request_us / 1e6
    capacity = 1024 / batch_s(1024, request_s)
    print(f"one replica answers at most {capacity:,.0f} requests/s\n")
    print("| replicas | load of each | balancing | arrivals | p50 ms | p99 ms | p99.9 ms |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for replicas, load, pick, burst in (
        (1, 0.5, round_robin, 1), (1, 0.8, round_robin, 1), (1, 0.95, round_robin, 1),
        (4, 0.6, round_robin, 1), (4, 0.6, two_choices, 1), (4, 0.6, pinned, 1),
        (4, 0.6, round_robin, 500), (4, 0.6, two_choices, 500),
        (3, 0.8, two_choices, 1), (3, 0.8, two_choices, 500),
        (10, 0.8, round_robin, 1), (10, 0.8, two_choices, 1),
    ):  # fmt: skip
        latencies = simulate(
            replicas, load * capacity * replicas, pick, request_s=request_s, requests=asked.requests, burst=burst
        )
        p50, p99, p999 = (latencies[int(share * (len(latencies) - 1))] * 1000 for share in (0.5, 0.99, 0.999))
        name = pick.__name__.replace("_", " ")
        arrivals = "Poisson" if burst == 1 else f"{burst} at once"
        print(f"| {replicas} | {load:.0%} | {name} | {arrivals} | {p50:.2f} | {p99:.2f} | {p999:.2f} |")


if __name__ == "__main__":
    main()
