"""Trying a model with few threads, with every core, and with several batches at once; the best way is left open."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from horngate_protos.control_groups import cores
from horngate_server.core.model import LoadedModel
from horngate_server.lifecycle import engines
from horngate_server.lifecycle.compute_threads import LARGE_S, LONG_S, SOON_S, Threads, best_way, rate
from horngate_server.lifecycle.probe_inputs import Rows

Reopen = Callable[[int], LoadedModel]
"""Opens the model with so many threads."""


def best_opened(
    model: LoadedModel,
    request: Rows | None,
    took: float,
    *,
    few: int,
    reopen: Reopen,
    aside: ThreadPoolExecutor,
) -> tuple[LoadedModel, Threads]:
    """Find out with how many threads a model computes best, and how many batches at once; return it opened so.

    Args:
        model: opened with few threads; closed where another is returned, and where this fails.
        request: a usual one; None where it accepts none that was tried.
        took: seconds that this takes.
        few: threads that leave a core to those who serve.
        reopen: opens it with others.
        aside: the thread that the trials run on.
    """
    said = f"a usual request takes {took * 1e3:.1f} ms"
    usual = Threads(few if took <= LARGE_S else cores(), why=said)
    if request is None or took <= SOON_S:
        return model, usual
    opened, threads, rates = model, few, {}
    ways = _ways(usual, model, took)
    try:
        for way in ways if len(ways) > 1 else ():
            opened, threads = _reopened(opened, threads, way.each, reopen)
            rates[way] = aside.submit(_at_once, opened, way.at_once, request).result()
        best, gain = best_way(usual, rates)
        opened, _ = _reopened(opened, threads, best.each, reopen)
    except BaseException:
        opened.close()
        raise
    why = said if best == usual else f"{said}; {gain:.1f} times as many a second as otherwise"
    return opened, replace(best, why=why)


# --- private ------------------------------------------------------------------------------------------


def _ways(usual: Threads, model: LoadedModel, took: float) -> list[Threads]:
    """Return the ways that are worth a trial, those with few threads first."""
    ways = [usual]
    if model.device.kind == "CPU" and took <= LONG_S:
        if usual.each < cores():
            ways.append(Threads(cores()))
        if not any(each.writes for each in model.signatures.values()):
            ways.append(Threads(1, cores()))
    return sorted(ways, key=lambda way: way.each)


def _reopened(model: LoadedModel, has: int, wants: int, reopen: Reopen) -> tuple[LoadedModel, int]:
    """Return a model with as many threads as wanted; the one that is given is closed if it has others."""
    if has == wants:
        return model, has
    model.close()
    return reopen(wants), wants


def _at_once(opened: LoadedModel, count: int, request: Rows) -> float:
    """Return how many requests a second a model computes, so many of them side by side; 0 where it cannot."""
    signature = opened.signature
    others = [engines.second(opened, signature.name) for _ in range(count - 1)]
    models = [opened, *(each for each in others if each is not None)]
    try:
        return rate(models, signature, request) if len(models) == count else 0.0
    finally:
        for each in models[1:]:
            each.close()
