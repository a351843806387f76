"""Replicas behind balancers: measured with 1, 2 and 4 at a fixed service time, simulated to 1,000.

python benchmarks/scaling.py [--quick] [--rounds 2] [--seconds 5] [--no-save]

- Points: 1, 2 and 4 replicas whose model sleeps (`sleeping_server`), so that cores do not decide; callers in an open
  loop (`spread`): grpcio's round robin, Horngate's client, Envoy as it is shipped (`proxy`). The same moments of
  arrival are simulated (`simulate`), from what a batch and a request alone took.
- Faults: one of four replicas is ten times as slow, is killed, or stops without a word, behind each kind of balancing.
- Costs: what a request costs Envoy, and a connection, a health check and a scrape a replica.
- Fleet: from these, and from what a request costs a replica (results/growth.json), up to 1,000 replicas with 10,000
  requests a second each: latencies by simulation, the rest by arithmetic (`fleet`); and the queues of one to ten.

All on one machine. ``--quick``: the least of each, for `smoke`.
"""

import itertools
import json
import signal
import statistics
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import harness
import scaling_costs
from fleet import Costs, Plan, limits, need
from prometheus_client.parser import text_string_to_metric_families
from proxy import Change, Proxy, as_shipped, bare, impatient, in_turn, without_checks
from replicas import RETRIES
from serving_process import Server
from simulate import Fleet, Outcome, Pick, batches, pinned, poisson, round_robin, simulate, two_choices
from spread import CLIENT, DEADLINE_S, Seen, Spread, offer

MODEL = "m"
BATCH_MS = 40.0
ROWS = 4
SLOWER = 10.0
CAPACITY = ROWS / BATCH_MS * 1000
"""Requests a second of one replica, at most."""
REPLICAS = (1, 2, 4)
LOADS = (0.5, 0.8, 1.5)
FAULT_LOAD = 0.5
CALLERS = 4
ROUND_ROBIN: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}]}
FLEETS = (1, 2, 4, 10, 30, 100, 300, 1000)
LADDER_MS = ((1, 0.04), (64, 0.09), (128, 0.15), (256, 0.34), (512, 0.83), (1024, 1.21))
"""Milliseconds per batch of the reference model on two cores, as the server's log shows them at start."""
REQUEST_S = 20e-6
"""1 / (requests a second of one replica on two cores of its own), for the queues of few replicas."""
Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Way:
    """How callers reach replicas.

    Attributes:
        how: `spread.Spread.how`.
        proxy: what is changed of the Envoy between; None for no Envoy.
        pick: what it is in the simulation.
        balancers: and how many of them; each knows only its own requests.
    """

    how: str
    proxy: Change | None = None
    pick: Pick = round_robin
    balancers: int = CALLERS


PLAIN = Way(json.dumps(ROUND_ROBIN))
SHIPPED = "Envoy, as shipped"
WAYS: Mapping[str, Way] = {
    "grpcio, round robin": PLAIN,
    "Horngate's client": Way(CLIENT),
    SHIPPED: Way(PLAIN.how, as_shipped, two_choices, 1),
}
FAULTY_WAYS: Mapping[str, Way] = {
    "grpcio, round robin": PLAIN,
    "grpcio, round robin, its retries": Way(json.dumps(ROUND_ROBIN | RETRIES)),
    "Horngate's client": WAYS["Horngate's client"],
    "Envoy, no checks, ejection, retries": Way(PLAIN.how, bare),
    "Envoy, no checks": Way(PLAIN.how, without_checks),
    "Envoy, round robin": Way(PLAIN.how, in_turn),
    SHIPPED: WAYS[SHIPPED],
    "Envoy, as shipped, 0.2 s a try": Way(PLAIN.how, impatient(0.2)),
}
FAULTS: Mapping[str, Callable[[Server], None] | None] = {
    "slow": None,
    "killed": lambda server: server.process.send_signal(signal.SIGKILL),
    "stopped": lambda server: server.process.send_signal(signal.SIGSTOP),
}
"""What befalls one replica, a third into the time; a slow one is so from the start."""


@contextmanager
def replicas(count: int, *, slow: bool = False) -> Iterator[list[Server]]:
    """Run so many, the last of them slow if it is to be."""
    with tempfile.TemporaryDirectory() as models, ExitStack() as stack:
        scaling_costs.sleeping_models(Path(models), MODEL)
        servers = []
        for number in range(count):
            milliseconds = BATCH_MS * (SLOWER if slow and number == count - 1 else 1)
            server = scaling_costs.sleeping_server(Path(models), milliseconds, ROWS)
            servers.append(stack.enter_context(server))
        try:
            yield servers
        finally:
            for server in servers:
                if server.process.poll() is None:
                    server.process.send_signal(signal.SIGCONT)


def ask(  # noqa: PLR0917
    servers: Sequence[Server],
    way: Way,
    load: float,
    seconds: float,
    after_s: float = 0.0,
    change: Callable[[], None] = lambda: None,
) -> tuple[Seen, Figures]:
    """Offer a share of the capacity of so many replicas for so long; return what Envoy counted, too."""
    addresses = [server.grpc for server in servers]
    with ExitStack() as stack:
        proxy = stack.enter_context(Proxy(addresses, way.proxy)) if way.proxy else None
        rate = load * CAPACITY * len(servers)
        what = Spread(
            [proxy.target] if proxy else addresses, way.how, MODEL, rate, round(rate * seconds), callers=CALLERS
        )
        seen = offer(what, after_s, change)
        counted = proxy.counted() if proxy else {}
    return seen, counted


def calibrate(seconds: float) -> tuple[float, float]:
    """Return what a batch takes a replica, by its own count, and what a request alone takes beside it, in seconds."""
    with replicas(1) as servers:
        before = _sum_and_count(servers[0])
        alone, _ = ask(servers, PLAIN, 0.1, max(2.0, seconds))
        spent, batches_run = (after - at for after, at in zip(_sum_and_count(servers[0]), before, strict=True))
        batch_s = spent / batches_run
        took = sorted(alone.took)
        return batch_s, max(0.0, statistics.median(took[: len(took) // 2]) - batch_s)


def simulated(count: int, way: Way, load: float, seconds: float, batch_s: float, **options: Any) -> Outcome:
    """Simulate the same moments of arrival."""
    rate = load * CAPACITY * count
    fleet = Fleet(count, lambda _requests: batch_s, ROWS, **options)
    return simulate(fleet, poisson(rate, round(rate * seconds)), way.pick, balancers=way.balancers)


def points(counts: Sequence[int], loads: Sequence[float], rounds: int, seconds: float) -> Figures:
    """Measure each way with so many replicas, and simulate the same.

    Of all rounds that counts which was disturbed least: neighbours on the machine only ever add to a latency.
    """
    batch_s, beside_s = calibrate(seconds)
    print(f"a batch {batch_s * 1e3:.2f} ms, a request beside it {beside_s * 1e3:.2f} ms", flush=True)
    runs: dict[tuple[int, str, float], list[Seen]] = {}
    with replicas(max(counts)) as servers:
        for _, count, load, (name, way) in itertools.product(range(rounds), counts, loads, WAYS.items()):
            runs.setdefault((count, name, load), []).append(ask(servers[:count], way, load, seconds)[0])
    found = []
    for (count, name, load), seen in runs.items():
        outcome = simulated(count, WAYS[name], load, seconds, batch_s)
        best = min(seen, key=lambda each: each.ms(99))
        found.append(
            _shown(
                {
                    "replicas": count, "way": name, "load": load, "offered": load * CAPACITY * count,
                    "measured": _figures(best.per_second, best.ms(50, 99)),
                    "simulated": _figures(outcome.per_second, [each + beside_s * 1000 for each in outcome.ms(50, 99)]),
                    "failed": best.failed.total() / len(best.took),
                }
            )
        )  # fmt: skip
    return {"batch_s": batch_s, "beside_s": beside_s, "points": found}


def faults(ways: Mapping[str, Way], kinds: Sequence[str], seconds: float, batch_s: float) -> list[Figures]:
    """Let one of four replicas be at fault, behind each way."""
    found = []
    for kind in kinds:
        happen = FAULTS[kind]
        for name, way in ways.items():
            with replicas(REPLICAS[-1], slow=happen is None) as servers:
                at_s = seconds / 3 if happen else 0.0
                change = (lambda server=servers[-1], happen=happen: happen(server)) if happen else (lambda: None)
                before = _sum_and_count(servers[-1])[1] if happen is None else 0
                seen, counted = ask(servers, way, FAULT_LOAD, seconds, at_s, change)
                p50, p99 = seen.ms(50, 99, since_s=at_s)
                figures = {
                    "fault": kind, "way": name, "requests": len(seen.took), "failed": dict(seen.failed),
                    "last_failed_s": max(0.0, seen.last_failed_s - at_s) if seen.failed else None,
                    "p50_ms": p50, "p99_ms": p99, **counted,
                }  # fmt: skip
                if happen is None:
                    figures["slow_batches"] = _sum_and_count(servers[-1])[1] - before
                if happen is None and name == SHIPPED:
                    slow = {REPLICAS[-1] - 1: SLOWER}
                    outcome = simulated(REPLICAS[-1], way, FAULT_LOAD, seconds, batch_s, slowness=slow)
                    figures["simulated"] = dict(zip(("p50_ms", "p99_ms"), outcome.ms(50, 99), strict=True))
            found.append(_shown(figures))
    return found


def fleets(costs: Costs, plan: Plan, counts: Sequence[int], requests: int) -> list[Figures]:
    """Simulate ever more replicas with the same load each, by each kind of balancing; and say what else they need."""
    found = []
    for count in counts:
        needs = need(count, costs, plan)
        fleet = Fleet(count, batches(costs.request_s))
        arrivals = poisson(needs.requests, max(requests, 200 * count))
        kinds: Mapping[str, tuple[Pick, int]] = {
            "round robin of each caller": (round_robin, needs.callers),
            "two choices of each Envoy": (two_choices, needs.envoys),
            "two choices of one that knows all": (two_choices, 1),
        }
        latencies = {}
        for name, (pick, balancers) in kinds.items():
            p50, p99 = simulate(fleet, arrivals, pick, balancers=balancers).ms(50, 99)
            latencies[name] = {"p50_ms": p50, "p99_ms": p99}
        found.append(_shown({"replicas": count, **asdict(needs), "latencies": latencies}))
    return found


def queues(requests: int) -> list[Figures]:
    """Simulate a few replicas of the reference model, near their capacity and in bursts."""
    batch_s = batches(REQUEST_S, LADDER_MS)
    capacity = 1024 / batch_s(1024)
    kinds: Mapping[str, Pick] = {"round robin": round_robin, "two choices": two_choices, "pinned": pinned(12)}
    found = []
    for count, load, name, at_once in (
        (1, 0.5, "round robin", 1), (1, 0.8, "round robin", 1), (1, 0.95, "round robin", 1),
        (4, 0.6, "round robin", 1), (4, 0.6, "two choices", 1), (4, 0.6, "pinned", 1),
        (4, 0.6, "round robin", 500), (4, 0.6, "two choices", 500),
        (3, 0.8, "two choices", 1), (3, 0.8, "two choices", 500),
        (10, 0.8, "round robin", 1), (10, 0.8, "two choices", 1),
    ):  # fmt: skip
        arrivals = poisson(load * capacity * count, requests, at_once=at_once)
        p50, p99, p999 = simulate(Fleet(count, batch_s), arrivals, kinds[name]).ms(50, 99, 99.9)
        found.append(
            {
                "replicas": count, "load": load, "balancing": name, "at_once": at_once, "p50_ms": p50, "p99_ms": p99,
                "p999_ms": p999,
            }
        )  # fmt: skip
    return found


def main() -> None:
    """Measure, simulate, save."""
    parser = harness.options(__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5.0)
    asked = parser.parse_args()
    quick = asked.quick
    seconds = 1.0 if quick else asked.seconds
    plan = Plan()
    busy = harness.busy()
    counts, loads, rounds = (REPLICAS[:2], LOADS[:1], 1) if quick else (REPLICAS, LOADS, asked.rounds)
    ways, kinds = ({SHIPPED: WAYS[SHIPPED]}, ["killed"]) if quick else (FAULTY_WAYS, list(FAULTS))
    content: Figures = {
        "seconds": seconds, "rounds": rounds, "busy": busy, "batch_ms": BATCH_MS, "rows": ROWS, "callers": CALLERS,
        "fault_load": FAULT_LOAD, "deadline_s": DEADLINE_S,
        **points(counts, loads, rounds, seconds),
    }  # fmt: skip
    content["faults"] = faults(ways, kinds, 1.5 * seconds, content["batch_s"])
    costs = scaling_costs.measured(seconds)
    content |= {
        "costs": asdict(costs),
        "plan": asdict(plan),
        "fleets": fleets(costs, plan, FLEETS[:4] if quick else FLEETS, 2_000 if quick else 100_000),
        "limits": [asdict(limit) for limit in limits(costs, plan)],
        "queues": queues(2_000 if quick else 300_000),
    }
    for limit in content["limits"]:
        _shown(limit)
    if asked.save:
        print(harness.save("scaling", content))


# --- private ------------------------------------------------------------------------------------------


def _figures(per_second: float, latencies: Sequence[float]) -> Figures:
    return dict(zip(("per_second", "p50_ms", "p99_ms"), (per_second, *latencies), strict=True))


def _sum_and_count(server: Server) -> tuple[float, float]:
    """Return the seconds of all batches that a replica ran, and how many there were."""
    with urllib.request.urlopen(f"{server.http}/metrics", timeout=10) as response:
        samples = [
            each for family in text_string_to_metric_families(response.read().decode()) for each in family.samples
        ]
    spent, count = (
        sum(each.value for each in samples if each.name == f"horngate_batch_seconds_{what}")
        for what in ("sum", "count")
    )
    return spent, count


def _shown(figures: Figures) -> Figures:
    print("  " + json.dumps(figures, default=str), flush=True)
    return figures


if __name__ == "__main__":
    main()
