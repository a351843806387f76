"""What runs cost, as measured, and which sizes they have."""

import pytest

from horngate_server.engine.batching import ladder
from horngate_server.engine.cost_model import KINDS, CostModel


@pytest.mark.parametrize(("top", "rungs"), [(1, (1,)), (2, (1, 2)), (8, (1, 2, 4, 8)), (10, (1, 2, 4, 8, 10))])
def test_the_ladder_climbs_in_powers_of_two_and_ends_at_the_limit(top: int, rungs: tuple[int, ...]) -> None:
    """Every batch size up to the limit has a rung at most twice its size."""
    assert ladder(top) == rungs


def test_costs_follow_measurements_without_believing_a_single_hiccup() -> None:
    """One slow run moves the estimate by a tenth of its surprise."""
    costs = CostModel(ladder(8))
    assert costs.wait(100) == 0.0
    costs.measured("s", 8, 1.0, 0.0)
    costs.measured("s", 8, 11.0, 0.0)
    assert costs.wait(8) == pytest.approx(2.0)
    assert costs.least("s", 5, 0.0) == pytest.approx(2.0)
    assert costs.report("s") == {8: pytest.approx(2.0)}


def test_a_batch_is_expected_to_take_what_its_size_took_lately_and_for_ever_if_it_never_ran() -> None:
    """A size that never ran, or was slow just now, is not taken for quick."""
    costs = CostModel(ladder(8))
    assert costs.expected("s", 3) == float("inf")
    costs.measured("s", 4, 0.001, 0.0)
    assert costs.expected("s", 3) == 0.001
    costs.measured("s", 4, 1.0, 0.0)
    assert costs.expected("s", 4) == 1.0


def test_an_old_measurement_or_another_kinds_says_nothing_about_a_request() -> None:
    """What a run takes at least is known for ten seconds after one of its own kind and size, and then no more."""
    costs = CostModel(ladder(8))
    costs.measured("large", 1, 4.5, 0.0)
    assert costs.least("small", 1, 0.0) is None
    assert costs.least("large", 1, 10.0) == 4.5
    assert costs.least("large", 1, 10.1) is None


def test_one_fast_run_is_believed_at_once_when_it_comes_to_refusing() -> None:
    """The least that a run takes is the smaller one of the average and the last time."""
    costs = CostModel(ladder(8))
    costs.measured("s", 1, 4.0, 0.0)
    costs.measured("s", 1, 0.008, 1.0)
    assert costs.least("s", 1, 1.0) == 0.008


def test_the_cheapest_kind_of_row_is_what_waiting_rows_cost_at_least() -> None:
    """Of several kinds the least counts, also after it has become dearer."""
    costs = CostModel(ladder(8))
    costs.measured("large", 1, 4.0, 0.0)
    costs.measured("small", 4, 1.0, 0.0)
    assert costs.wait(8) == 2.0
    for _ in range(1000):
        costs.measured("small", 4, 80.0, 0.0)
    assert costs.wait(2) == 8.0


def test_batches_beyond_the_ladder_are_taken_for_the_next_power_of_two() -> None:
    """A request that has a run of its own may be larger than any batch."""
    assert CostModel(ladder(6)).rung(7) == 8
    assert CostModel(ladder(6)).rung(5) == 6


def test_the_kinds_whose_costs_are_remembered_are_bounded() -> None:
    """Callers can make any number of kinds with free axes; the oldest ones are forgotten."""
    costs = CostModel(ladder(8))
    for kind in range(KINDS + 1):
        costs.measured(kind, 1, 1.0, 0.0)
    assert costs.least(0, 1, 0.0) is None
    assert costs.least(KINDS, 1, 0.0) == 1.0


def test_a_turn_has_the_fewest_rows_that_are_computed_at_nearly_the_best_rate() -> None:
    """Longer runs that bring little are not worth the others' wait; of an unknown kind, as many as there may be."""
    costs = CostModel(ladder(64))
    for rows, seconds in {1: 1.0, 2: 1.0, 4: 1.1, 8: 1.9, 16: 3.6, 64: 14.0}.items():
        costs.measured("s", rows, seconds, 0.0)
    assert costs.turn("s", 64) == 8
    assert costs.turn("s", 4) == 4
    assert costs.turn("other", 16) == 16


def test_a_run_that_does_not_fill_its_size_does_not_make_it_look_fast() -> None:
    """Batches of nine rows count as of size 16, and a turn has four rows still."""
    costs = CostModel(ladder(16))
    for rows in (1, 2, 4, 8, 16):
        costs.measured("s", rows, max(4.0, rows), 0.0)
    for _ in range(100):
        costs.measured("s", 16, 9.0, 0.0, 9)
    assert costs.turn("s", 16) == 4
