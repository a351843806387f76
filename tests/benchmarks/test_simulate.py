"""The simulation of queues and balancers: against formulas, and against what was measured."""

import json
from pathlib import Path

import numpy as np
import pytest
from scaling import WAYS, simulated
from simulate import Fleet, Times, batches, pinned, poisson, round_robin, simulate, two_choices

RESULTS = Path(__file__).parents[2] / "benchmarks/results/scaling.json"


def one_each(_requests: int) -> float:
    """A request takes a second, and shares its batch with none."""
    return 1.0


def test_one_replica_waits_as_long_as_queueing_theory_says() -> None:
    """With Poisson arrivals and a constant time of service, the mean wait is load / (2 (1 - load)) of that time."""
    load = 0.7
    outcome = simulate(Fleet(1, one_each, most=1), poisson(load, 100_000), round_robin)
    assert np.mean(outcome.took) - 1 == pytest.approx(load / (2 * (1 - load)), rel=0.03)


def test_what_waits_forms_the_next_batch_up_to_the_most() -> None:
    """The first of five requests runs alone; of the four that wait, three make a full batch, one is left."""
    fleet = Fleet(1, one_each, most=3)
    outcome = simulate(fleet, np.array([0.0, 0.1, 0.2, 0.3, 0.4]), round_robin)
    assert outcome.arrivals + outcome.took == pytest.approx([1, 2, 2, 2, 3])


def test_a_batch_costs_its_requests_and_the_models_next_rung() -> None:
    """Beyond the last rung, that one is taken."""
    seconds = batches(0.001, ((1, 1.0), (4, 2.0)))
    assert [seconds(rows) for rows in (1, 2, 4, 5)] == pytest.approx([0.002, 0.004, 0.006, 0.007])


def test_round_robin_spreads_evenly_whatever_the_replicas_do() -> None:
    """Each replica gets as many, the slow one too."""
    fleet = Fleet(4, one_each, slowness={0: 10.0})
    places = simulate(fleet, poisson(2.0, 400), round_robin).places
    assert np.bincount(places).tolist() == [100] * 4


def test_two_choices_avoid_a_slow_replica() -> None:
    """It gets less than half of its share, and the 99th percentile is lower than with round robin."""
    fleet = Fleet(4, one_each, most=1, slowness={0: 10.0})
    arrivals = poisson(1.5, 4_000)
    busy, turns = (simulate(fleet, arrivals, pick) for pick in (two_choices, round_robin))
    assert np.mean(busy.places == 0) < 0.125
    assert busy.ms(99) < turns.ms(99)


def test_balancers_that_see_little_of_the_load_choose_worse() -> None:
    """A hundred that know only their own requests have longer queues than one that knows all."""
    fleet, arrivals = Fleet(20, one_each, most=1), poisson(16.0, 40_000)
    all_known, little_known = (simulate(fleet, arrivals, two_choices, balancers=each) for each in (1, 100))
    assert all_known.ms(99)[0] < 0.7 * little_known.ms(99)[0]


def test_a_connection_stays_where_it_was_opened() -> None:
    """All requests of one of three connections go to the same replica."""
    places = simulate(Fleet(10, one_each), poisson(1.0, 30), pinned(3)).places
    assert all(len(set(places[start::3])) == 1 for start in range(3))


def test_bursts_arrive_at_one_moment_at_the_same_mean_rate() -> None:
    """Of 1,000 requests in bursts of 50 there are 20 moments, about 50 seconds apart at one a second."""
    arrivals: Times = poisson(1.0, 1_000, at_once=50)
    moments, counts = np.unique(arrivals, return_counts=True)
    assert set(counts) == {50}
    assert 20 < np.mean(np.diff(moments)) < 100


def test_beyond_capacity_it_answers_what_it_can() -> None:
    """Of four requests a second, a replica with batches of three answers three."""
    outcome = simulate(Fleet(1, one_each, most=3), poisson(4.0, 2_000), round_robin)
    assert outcome.per_second == pytest.approx(3.0, rel=0.02)


def test_the_results_are_what_is_simulated_today_and_near_what_was_measured() -> None:
    """Medians of all points below capacity: p50 within a tenth, p99 within a fifth of what was measured."""
    measured = json.loads(RESULTS.read_text())
    errors: dict[str, list[float]] = {"p50_ms": [], "p99_ms": []}
    for point in (each for each in measured["points"] if each["load"] < 1):
        way = WAYS[point["way"]]
        outcome = simulated(point["replicas"], way, point["load"], measured["seconds"], measured["batch_s"])
        for name, queued in zip(errors, outcome.ms(50, 99), strict=True):
            latency = queued + measured["beside_s"] * 1000
            assert latency == pytest.approx(point["simulated"][name]), (point["way"], name)
            errors[name].append(abs(latency / point["measured"][name] - 1))
    assert np.median(errors["p50_ms"]) < 0.1
    assert np.median(errors["p99_ms"]) < 0.2
