"""What a fleet needs, and what breaks first."""

from dataclasses import replace
from pathlib import Path

import yaml
from fleet import Costs, Plan, limits, need

from horngate_server.core.settings import Settings

COSTS = Costs(
    request_s=50e-6,
    envoy_s=50e-6,
    connection_bytes=20_000,
    check_s=400e-6,
    scrape_s=0.002,
    scrape_bytes=10_000,
    model_scrape_bytes=5_000,
    series=100,
    model_series=60,
)
PLAN = Plan()


def test_the_plan_is_what_is_shipped() -> None:
    """Limits and times are those of the server, of Envoy's configuration and of the deployment."""
    deploy = Path(__file__).parents[2] / "deploy"
    deployment = yaml.safe_load((deploy / "kubernetes/base/deployment.yaml").read_text())
    envoy = yaml.safe_load((deploy / "envoy/envoy.yaml").read_text())
    (monitor,), (cluster,) = envoy["overload_manager"]["resource_monitors"], envoy["static_resources"]["clusters"]
    (thresholds,), (check,) = cluster["circuit_breakers"]["thresholds"], cluster["health_checks"]
    assert PLAN.max_connections == Settings().max_connections
    assert PLAN.envoy_max_connections == monitor["typed_config"]["max_active_downstream_connections"]
    assert PLAN.envoy_connections == thresholds["max_connections"]
    assert f"{PLAN.check_every_s:g}s" == check["interval"]
    assert PLAN.ready_s == deployment["spec"]["minReadySeconds"] + 1


def test_what_ten_replicas_need() -> None:
    """Envoys by their share of cores, callers by their rate, connections of each to each, series of all models."""
    ten = need(10, COSTS, replace(PLAN, models=3))
    assert (ten.requests, ten.load, ten.envoy_cores) == (100_000, 0.5, 5.0)
    assert (ten.envoys, ten.callers) == (3, 50)  # 5 cores at 60% are 8.3, of 4 each; 2,000 requests/s a caller
    assert (ten.direct, ten.proxied) == (50, 12)  # a caller has one connection, an Envoy one for each thread
    assert (ten.series, ten.scrape_bytes) == (2_200, 200_000 / 15)
    assert (ten.rollout_s, ten.rollout_quarter_s) == (360, 4 * 36)


def test_each_limit_is_where_it_is_first_passed() -> None:
    """With one replica fewer, each is still within it; and they come in the order in which they are met."""
    found = limits(COSTS, PLAN)
    assert [each.replicas for each in found] == sorted(each.replicas for each in found)
    first = {each.name: each.replicas for each in found}
    assert first["an update, one replica after the other"] == 101  # of 36 s each, an hour
    assert first["connections of each caller to each replica"] == 201  # five callers for each, and 1,000 connections
    envoy = first["one Envoy"]
    assert [need(count, COSTS, PLAN).envoys for count in (envoy - 1, envoy)] == [1, 2]


def test_what_never_reaches_its_limit_is_not_named() -> None:
    """Health checks that cost nothing break nothing."""
    assert "health checks by all Envoys" not in {each.name for each in limits(replace(COSTS, check_s=0.0), PLAN)}


def test_more_models_bring_prometheus_to_its_limit_sooner() -> None:
    """Series grow with the models of each replica."""
    one, many = (
        {each.name: each.replicas for each in limits(COSTS, replace(PLAN, models=models))}["one Prometheus"]
        for models in (1, 50)
    )
    assert many < one / 20
