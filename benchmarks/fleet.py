"""What a fleet needs besides replicas, and at how many of them each part reaches its limit: arithmetic, no measurement.

Every replica gets the same number of requests a second, so all of it grows with the number of replicas.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

ADDRESS_BYTES = 16
"""Of a further address in the answer of a name server."""
NAME_BYTES = 80
"""Of the rest of that answer, about."""
MOST_REPLICAS = 1_000_000
KIB, GIB = 1 << 10, 1 << 30


@dataclass(frozen=True, slots=True)
class Costs:
    """What was measured.

    Attributes:
        request_s: seconds of Python's threads that a request costs a replica: they bound it.
        envoy_s: processor seconds that a request costs an Envoy between callers and replicas.
        connection_bytes: memory that a connection costs a replica.
        check_s: processor seconds that a health check costs a replica.
        scrape_s: processor seconds that a scrape costs a replica.
        scrape_bytes: what a scrape brings, with one model.
        model_scrape_bytes: and with each further one.
        series: time series of a replica with one model.
        model_series: and of each further one.
    """

    request_s: float
    envoy_s: float
    connection_bytes: float
    check_s: float
    scrape_s: float
    scrape_bytes: float
    model_scrape_bytes: float
    series: float
    model_series: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What was decided, or is assumed.

    Attributes:
        per_replica: requests a second of each.
        per_caller: requests a second of a calling process.
        busy: the share of a balancer's cores that is used.
        envoy_cores: cores, and threads, of an Envoy. Each thread connects to each replica.
        max_connections: of a replica (--max-connections).
        envoy_max_connections: from callers (deploy/envoy/envoy.yaml).
        envoy_connections: to replicas, before its circuit breaker counts an overflow (same file).
        check_every_s: seconds between an Envoy's health checks of a replica (same file).
        scrape_every_s: seconds between scrapes.
        models: in each replica.
        series_bytes: that Prometheus keeps in memory for a series; a rule of thumb, not measured here.
        prometheus_bytes: memory of one Prometheus.
        ready_s: from a new pod's start until the next may follow: a second, and minReadySeconds.
        rollout_s: how long an update may take.
    """

    per_replica: float = 10_000
    per_caller: float = 2_000
    busy: float = 0.6
    envoy_cores: int = 4
    max_connections: int = 1_000
    envoy_max_connections: int = 10_000
    envoy_connections: int = 1_024
    check_every_s: float = 1.0
    scrape_every_s: float = 15.0
    models: int = 1
    series_bytes: float = 4 * KIB
    prometheus_bytes: float = 8 * GIB
    ready_s: float = 36.0
    rollout_s: float = 3_600.0


@dataclass(frozen=True, slots=True)
class Need:
    """What so many replicas need.

    Attributes:
        requests: a second.
        load: the share of a replica's capacity that is used.
        envoy_cores: that requests keep busy.
        envoys: so that these are the planned share.
        callers: processes.
        direct: connections of a replica, where each caller connects to each.
        direct_bytes: memory that they take there.
        proxied: connections of a replica, where Envoys do.
        envoy_callers: connections that an Envoy has from callers, where each connects to each.
        envoy_replicas: and to replicas.
        checks: the share of a replica's core that health checks by all Envoys take.
        series: time series of all.
        prometheus_bytes: memory that they take.
        scrape_bytes: a second, of all.
        scrape: the share of a replica's core that scrapes take.
        rollout_s: an update's seconds, one replica after the other.
        rollout_quarter_s: a quarter at a time.
        dns_bytes: of a name server's answer with all addresses.
    """

    requests: float
    load: float
    envoy_cores: float
    envoys: int
    callers: int
    direct: int
    direct_bytes: float
    proxied: int
    envoy_callers: int
    envoy_replicas: int
    checks: float
    series: float
    prometheus_bytes: float
    scrape_bytes: float
    scrape: float
    rollout_s: float
    rollout_quarter_s: float
    dns_bytes: int


@dataclass(frozen=True, slots=True)
class Limit:
    """What reaches its limit, and when.

    Attributes:
        name: what it is.
        replicas: the fewest that are beyond it.
        limit: the most that it may be, in words.
        instead: what is to be done then.
    """

    name: str
    replicas: int
    limit: str
    instead: str


def need(replicas: int, costs: Costs, plan: Plan) -> Need:
    """Return what so many replicas need."""
    requests = replicas * plan.per_replica
    cores = requests * costs.envoy_s
    envoys = math.ceil(cores / (plan.envoy_cores * plan.busy))
    callers = math.ceil(requests / plan.per_caller)
    further = plan.models - 1
    series = replicas * (costs.series + further * costs.model_series)
    scraped = replicas * (costs.scrape_bytes + further * costs.model_scrape_bytes)
    quarter = math.ceil(replicas / 4)
    return Need(
        requests=requests,
        load=plan.per_replica * costs.request_s,
        envoy_cores=cores,
        envoys=envoys,
        callers=callers,
        direct=callers,
        direct_bytes=callers * costs.connection_bytes,
        proxied=envoys * plan.envoy_cores,
        envoy_callers=callers,
        envoy_replicas=replicas * plan.envoy_cores,
        checks=envoys * costs.check_s / plan.check_every_s,
        series=series,
        prometheus_bytes=series * plan.series_bytes,
        scrape_bytes=scraped / plan.scrape_every_s,
        scrape=costs.scrape_s / plan.scrape_every_s,
        rollout_s=replicas * plan.ready_s,
        rollout_quarter_s=math.ceil(replicas / quarter) * plan.ready_s,
        dns_bytes=NAME_BYTES + ADDRESS_BYTES * replicas,
    )


def limits(costs: Costs, plan: Plan) -> Sequence[Limit]:
    """Return what reaches its limit, the first first; what a million replicas would not reach is left out."""
    kinds: Sequence[tuple[str, Callable[[Need], float], float, str, str]] = (
        (
            "one Envoy", lambda n: n.envoys, 1,
            f"{plan.envoy_cores} cores, {plan.busy:.0%} busy", "several behind a headless name, or callers that spread",
        ),
        (
            "an update, one replica after the other", lambda n: n.rollout_s, plan.rollout_s,
            f"{plan.rollout_s / 60:.0f} minutes", "maxSurge: 25%",
        ),
        (
            "the name's addresses in one UDP packet", lambda n: n.dns_bytes, 1_232,
            "1,232 bytes", "nothing: name lookups go on over TCP",
        ),
        (
            "all addresses of a name", lambda n: n.dns_bytes, 65_535,
            "65,535 bytes", "several names, or xDS",
        ),
        (
            "connections of each caller to each replica", lambda n: n.direct, plan.max_connections,
            f"--max-connections {plan.max_connections:,}", "a larger one, or each caller only to some replicas",
        ),
        (
            "connections of each Envoy to each replica", lambda n: n.proxied, plan.max_connections,
            f"--max-connections {plan.max_connections:,}", "a larger one, or Envoys in cells with their own replicas",
        ),
        (
            "connections of each caller to each Envoy", lambda n: n.envoy_callers, plan.envoy_max_connections,
            f"{plan.envoy_max_connections:,} in envoy.yaml", "each caller only to some Envoys",
        ),
        (
            "an Envoy's connections to replicas", lambda n: n.envoy_replicas, plan.envoy_connections,
            f"{plan.envoy_connections:,} in envoy.yaml", "a larger one; each replica still gets one",
        ),
        (
            "health checks by all Envoys", lambda n: n.checks, 0.05,
            "5% of a replica's core", "rarer checks, or the control plane's instead of each Envoy's",
        ),
        (
            "one Prometheus", lambda n: n.prometheus_bytes, plan.prometheus_bytes,
            f"{plan.prometheus_bytes / GIB:.0f} GiB", "one for each cell, sums of them above",
        ),
    )  # fmt: skip
    found = []
    for name, value, most, words, instead in kinds:
        first = _first(partial(_needed, value, costs, plan), most)
        if first is not None:
            found.append(Limit(name, first, words, instead))
    return sorted(found, key=lambda each: each.replicas)


# --- private ------------------------------------------------------------------------------------------


def _needed(value: Callable[[Need], float], costs: Costs, plan: Plan, replicas: int) -> float:
    return value(need(replicas, costs, plan))


def _first(value: Callable[[int], float], most: float) -> int | None:
    """Return the fewest replicas with more than the most of what only grows with them."""
    low, high = 0, MOST_REPLICAS
    if value(high) <= most:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if value(middle) > most else (middle, high)
    return high
