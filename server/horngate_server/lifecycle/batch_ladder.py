"""How many rows pay and fit in one run, and what larger inputs will need: found by running larger and larger ones."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import log as logarithm
from typing import NamedTuple

import numpy as np

from horngate_server.core.errors import OutOfMemory, RequestError
from horngate_server.core.settings import Limits
from horngate_server.core.signature import Growth
from horngate_server.engine.batching import ladder
from horngate_server.lifecycle.probe_inputs import Rows
from horngate_server.lifecycle.row_independence import Doubt, Seen, compare
from horngate_server.lifecycle.trial_runs import TrialRuns, joined, size_of

log = logging.getLogger(__name__)

SHORT_S = 0.01
"""A run that is over this soon may grow even if it gains nothing: noise is larger, and the wait does not matter."""
GAIN = 1.05
"""A larger batch must bring so many times the rows a second, or it only makes callers wait."""
IDLE_RUNGS = 2
"""So many rungs in a row that bring nothing, measured twice each, end the ladder: one may have been unlucky."""
CLEAR_BYTES = 16 << 20
"""Growth of the process below this may be anything."""
TELLING_BYTES = 1024
"""What comes out of less input says nothing about more of it: there are constants."""
LONGER = 1.25
"""A rung is not tried that is expected to take so many times what a batch may: expectations are less than certain."""
LONG_S = 0.25
"""Longer inputs than one that takes so long are not tried."""
STEEPEST = 4.0
"""The highest power of its size that a need is taken to grow with."""


class Rungs(NamedTuple):
    """What the ladder has told.

    Attributes:
        seconds: what a run of each size takes that pays.
        top: the largest of them, in rows.
    """

    seconds: dict[int, float]
    top: int


class Scale(NamedTuple):
    """What inputs of other sizes take.

    Attributes:
        memory: bytes that a run needs, by the bytes of its inputs.
        answer: bytes of its outputs.
        byte_seconds: of the largest input that was tried; 0 where none was.
    """

    memory: Growth
    answer: Growth
    byte_seconds: float


def climb(runs: TrialRuns, seen: Seen, limits: Limits, shared: frozenset[int] | None, *, gpu: bool = False) -> Rungs:
    """Run larger and larger batches, as long as they pay and fit, and see that their rows are the same.

    Args:
        runs: of the signature.
        seen: rows that it takes.
        limits: how long and large a run may be.
        shared: the outputs without rows; None where nothing is to be compared.
        gpu: computed on one.

    Raises:
        Doubt: rows are not the same in a large batch.
    """
    runs.forget_memory()
    rng = np.random.default_rng(0)
    seconds: dict[int, float] = {}
    needs = {0: 0}
    best = 0.0
    top, idle = 1, 0
    end = "as many as set"
    for rows in ladder(limits.max_batch_rows):
        last = max(seconds, default=0)
        if last and (reason := _too_much(needs, seconds, rows, limits)):
            end = reason
            break
        order = [int(place) for place in rng.integers(len(seen.rows), size=rows)]
        request = joined(seen.rows, order)
        try:
            took, answers = runs.timed(request, limits.target_batch_s)
            if took > SHORT_S and rows / took < best * GAIN:  # is the machine busy with something else?
                took = min(took, runs.timed(request, took)[0])
        except RequestError as error:
            if not last:
                raise Doubt(f"one row alone fails the second time: {error}") from error
            end = f"{rows} rows {'find no memory' if isinstance(error, OutOfMemory) else 'fail'}: {error}"
            break
        if shared is not None:
            compare(runs.signature, seen, order, answers, shared, gpu=gpu)
        del answers
        needs[rows] = max(needs[last], runs.need())
        if last and took > limits.target_batch_s:
            end = "more take too long"
            break
        seconds[rows] = took
        rate = rows / max(took, 1e-9)
        if not last or took <= SHORT_S or rate >= best * GAIN:
            top, idle = rows, 0
        else:
            idle += 1
        best = max(best, rate)
        if idle == IDLE_RUNGS or took > limits.target_batch_s:
            end = "more bring no more a second" if idle else "one takes longer than a batch should"
            break
    log.debug("signature %s: batches of up to %d rows; %s", runs.signature.name, top, end)
    return Rungs({rows: took for rows, took in seconds.items() if rows <= top}, top)


def scale(runs: TrialRuns, requests: Iterator[Rows], limits: Limits) -> Scale:
    """Run larger and larger requests until one takes long or much, and say what all others will take.

    Args:
        runs: of the signature; it does not change what it remembers.
        requests: growing; those that are refused are left out.
        limits: what a run may need.
    """
    sizes: list[int] = []
    needs: list[int] = []
    answers: list[int] = []
    byte_seconds = 0.0
    for request in requests:
        size = size_of(request)
        if sizes and size <= sizes[-1]:
            continue
        runs.forget_memory()
        began = runs.clock()
        got = runs.tried(request)
        if got is None:
            continue
        took = runs.clock() - began
        sizes.append(size)
        needs.append(runs.need())
        answers.append(size_of(got))
        byte_seconds = took / max(1, size)
        if took > LONG_S or needs[-1] > limits.model_memory_bytes / STEEPEST:
            break
    answer = _growth(sizes, answers, TELLING_BYTES)
    memory = _growth(sizes, needs, CLEAR_BYTES)
    at_least = 2 * (1 + answer.per_byte)
    if memory.per_byte < at_least:
        memory = Growth(at_least, answer.power, answer.beyond)
    return Scale(memory, answer, byte_seconds)


# --- private ------------------------------------------------------------------------------------------


def _too_much(needs: Mapping[int, int], seconds: Mapping[int, float], rows: int, limits: Limits) -> str:
    """Say what so many rows will have too little of, as far as fewer tell; empty where they may be tried."""
    if _expected(needs, rows) > limits.model_memory_bytes:
        return "more would not fit the memory"
    if _expected(seconds, rows) > LONGER * limits.target_batch_s:
        return "more would take too long"
    return ""


def _expected(taken: Mapping[int, float], rows: int) -> float:
    """Return what so many rows will take if each further one takes what the last ones did."""
    last = max(taken)
    fewer = last // 2
    slope = (taken[last] - taken.get(fewer, taken[last])) / (last - fewer)
    return taken[last] + max(0.0, slope) * (rows - last)


def _growth(sizes: Sequence[int], amounts: Sequence[int], clear: int) -> Growth:
    """Return how amounts grow with sizes, by the largest that are clear: linearly, or faster where two say so."""
    points = [(size, amount) for size, amount in zip(sizes, amounts, strict=True) if size and amount > clear]
    if not points:
        return Growth()
    size, amount = points[-1]
    power = 1.0
    for (size_before, before), (size_after, after) in list(pairwise(points))[-1:]:
        power = logarithm(after / before) / logarithm(size_after / size_before)
    return Growth(amount / size, min(max(power, 1.0), STEEPEST), size)
