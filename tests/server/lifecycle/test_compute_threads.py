"""How a model's threads are chosen: by what its runs take, alone and side by side."""

import threading
from collections.abc import Sequence
from functools import partial

import numpy as np

from horngate_server.core.model import Array
from horngate_server.lifecycle import compute_threads
from horngate_server.lifecycle.compute_threads import Threads, best_way
from support.in_process import SIGNATURE, WAIT_S, Clock, FakeModel, double

REQUEST = [np.ones((1, 2), np.int32)]


def test_what_one_request_takes_is_measured_warm() -> None:
    """The first run may take longer: the fastest one counts."""
    clock, model = Clock(), FakeModel()
    took = iter([0.4, 0.25, 0.3])

    def compute(inputs: Sequence[Array]) -> Sequence[Array]:
        clock.now += next(took)
        return double(inputs)

    model.compute = compute
    assert compute_threads.seconds_of(model, SIGNATURE, REQUEST, clock) == 0.25


def test_models_that_are_measured_side_by_side_run_at_the_same_time() -> None:
    """Each waits in its first run until the other is in one, too."""
    models = [FakeModel(), FakeModel()]
    running = [threading.Event(), threading.Event()]

    def meet(place: int, inputs: Sequence[Array]) -> Sequence[Array]:
        running[place].set()
        assert running[1 - place].wait(WAIT_S)
        return double(inputs)

    for place, model in enumerate(models):
        model.compute = partial(meet, place)
    assert compute_threads.rate(models, SIGNATURE, REQUEST) > 0


def test_the_usual_way_is_left_for_one_that_brings_much_more() -> None:
    """A little more may be chance; what could not be tried is not chosen."""
    usual, every, beside = Threads(1), Threads(2), Threads(1, 2)
    assert best_way(usual, {usual: 100, every: 110, beside: 120}) == (usual, 1.0)
    assert best_way(usual, {usual: 100, every: 150, beside: 200}) == (beside, 2.0)
    assert best_way(usual, {usual: 100, every: 150, beside: 0}) == (every, 1.5)
    assert best_way(usual, {}) == (usual, 1.0)
