"""How many threads a model computes with, and how many of its batches at once: found out by running it.

One run with every core is soonest over, where its operations are large enough to be divided. Those of a loop over a
text are not: there, several batches side by side, with a thread each, use the cores.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from horngate_server.core.model import Model
from horngate_server.core.signature import Signature
from horngate_server.lifecycle.probe_inputs import Rows
from horngate_server.lifecycle.trial_runs import TrialRuns, computed

SOON_S = 0.001
"""A run that is over this soon is no longer than handing it to another thread is worth: the core that serves is better
left to serve."""
LARGE_S = 0.005
"""A model that computes longer for one request gets every core, also the one that takes requests in."""
GAIN = 1.25
"""So many times the requests a second must another way bring: several runs at once make each of them longer, and every
core for a short one leaves none to serve."""
LONG_S = 0.5
"""A request that takes longer is not computed again to see what another way would bring."""
WATCHED_S = 0.1
ROUNDS = 2
"""Each way is watched so often for so long, and the better time counts."""


@dataclass(frozen=True, slots=True)
class Threads:
    """How a model computes.

    Attributes:
        each: threads that one operation may use; 0 where nobody has looked.
        at_once: batches that are computed side by side.
        why: how that is known.
    """

    each: int = 0
    at_once: int = 1
    why: str = ""

    def __str__(self) -> str:
        return f"{self.each} for one batch, {self.at_once} at once ({self.why})"


def seconds_of(model: Model, signature: Signature, request: Rows, clock: Callable[[], float]) -> float:
    """Return what a request takes, warm, by this clock."""
    return TrialRuns(model, signature, clock).timed(request, LONG_S)[0]


def rate(models: Sequence[Model], signature: Signature, request: Rows) -> float:
    """Return how many such requests these models compute a second, all at once.

    Args:
        models: may run at the same time.
        signature: of theirs.
        request: one that they accept.
    """
    return max(_rate(models, signature, request) for _ in range(ROUNDS))


def best_way(usual: Threads, rates: Mapping[Threads, float]) -> tuple[Threads, float]:
    """Return how a model is to compute: as usual, unless another way brings much more; and how much more.

    Args:
        usual: what it does where nothing is to be gained.
        rates: requests a second of the ways that were tried.
    """
    best = max(rates, key=lambda way: rates[way], default=usual)
    gain = rates[best] / rates[usual] if rates.get(usual) else 1.0
    return (best, gain) if gain >= GAIN else (usual, 1.0)


# --- private ------------------------------------------------------------------------------------------


def _rate(models: Sequence[Model], signature: Signature, request: Rows) -> float:
    runs = [0] * len(models)
    began = time.perf_counter()

    def run(place: int) -> None:
        while time.perf_counter() < began + WATCHED_S:
            computed(models[place], signature, request)
            runs[place] += 1

    others = [threading.Thread(target=run, args=(place,)) for place in range(1, len(models))]
    for each in others:
        each.start()
    run(0)
    for each in others:
        each.join()
    return sum(runs) / (time.perf_counter() - began)
