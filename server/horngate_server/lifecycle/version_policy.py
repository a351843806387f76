"""Which versions ought to be served, and which one answers whom: pure decisions, without a disk or a clock."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from horngate_server.lifecycle.model_config import STABLE, ModelConfig


class Route(NamedTuple):
    """Who answers for a model.

    Attributes:
        default: the version for callers that name none; None while nobody can answer.
        versions: those that may be asked for by number.
        labels: label to version, of those that are served.
    """

    default: int | None
    versions: frozenset[int]
    labels: Mapping[str, int]


NOBODY = Route(None, frozenset(), {})


def wanted(
    config: ModelConfig, named: Collection[int], on_disk: Collection[int], refused: Collection[int]
) -> list[int]:
    """Return the versions that ought to be served, the newest first.

    Args:
        config: what the operator wants.
        named: versions that are wanted whatever their age: those with a label.
        on_disk: the versions that there are.
        refused: those among them that cannot be served; the next older one is wanted instead.
    """
    able = sorted(set(on_disk) - set(refused), reverse=True)
    if config.versions is None:
        chosen = set([each for each in able if each != config.shadow][: config.latest])
    else:
        chosen = set(able) & config.versions if config.versions else set(able)
    return [each for each in able if each in chosen or each in named or each == config.shadow]


def route(
    ready: Collection[int],
    wanted: Collection[int],
    labels: Mapping[str, int],
    shadow: int | None,
    before: int | None,
) -> Route:
    """Say who answers whom: the version labelled stable where there is one, else the newest without another label.

    A version that only computes along answers nobody, unless a label says that it does.

    Args:
        ready: the versions that can answer.
        wanted: those that ought to; where one of them can, no other does by default.
        labels: label to version.
        shadow: the version that computes along.
        before: who answered by default so far, and goes on while the version labelled stable cannot.
    """
    able = set(ready) - ({shadow} - set(labels.values()))
    served = {label: number for label, number in labels.items() if number in able}
    if STABLE in served:
        return Route(served[STABLE], frozenset(able), served)
    if STABLE in labels and before in able:
        return Route(before, frozenset(able), served)
    unlabelled = able - set(served.values())
    return Route(max(unlabelled & set(wanted) or unlabelled or able, default=None), frozenset(able), served)


def removable(
    wanted: Collection[int], ready: Collection[int], refused: Collection[int], default: int | None
) -> set[int]:
    """Return the ready versions that may go: those that are not wanted, once all who are wanted are ready.

    Args:
        wanted: the versions that ought to be served.
        ready: those that can answer now.
        refused: those that never will, as they are.
        default: who answers callers that name no version; stays in any case.
    """
    waited_for = set(wanted) - set(refused) - set(ready)
    return set() if waited_for else set(ready) - set(wanted) - {default}
