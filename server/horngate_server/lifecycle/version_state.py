"""What became of every version: the one picture that metrics, listings and the HTTP port show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from horngate_server.lifecycle.drift import Baseline, DriftReport
from horngate_server.lifecycle.loader import LoadReport
from horngate_server.lifecycle.shadow import ShadowReport


class State(StrEnum):
    """Where a version stands.

    FOUND is on disk and neither wanted nor tried; ENDED was served and is no more.
    """

    FOUND = "found"
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"
    ENDED = "ended"

    def may_become(self, state: "State") -> bool:
        """Whether a version in this state may enter another, or the same one with another reason."""
        return state is self or state in TRANSITIONS[self]


SHOWN = (State.LOADING, State.READY, State.DRAINING, State.FAILED, State.ENDED)
"""Those that metrics show."""

TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.FOUND: frozenset({State.LOADING}),
    State.LOADING: frozenset({State.READY, State.FAILED, State.FOUND}),
    State.READY: frozenset({State.DRAINING}),
    State.DRAINING: frozenset({State.ENDED}),
    State.FAILED: frozenset({State.FOUND, State.LOADING}),
    State.ENDED: frozenset({State.LOADING}),
}
"""Which state may follow which. What serves leaves by DRAINING alone, and DRAINING always ends."""


@dataclass(frozen=True, slots=True)
class VersionState:
    """One version at one moment.

    Attributes:
        name: the model's.
        version: its number.
        state: where it stands.
        reason: why it is in that state, where that is not plain.
        since: when it came into that state, on the monotonic clock.
        labels: names that it answers to; "" where it answers those who name no version.
        report: of its loading; None while it has not been loaded.
        baseline: what its inputs and answers ought to look like; None where it does not say.
        drift: what they do look like; None without a baseline.
        shadow: how it compares, where it computes along.
    """

    name: str
    version: int
    state: State
    reason: str
    since: float
    labels: Sequence[str] = field(default_factory=tuple)
    report: LoadReport | None = None
    baseline: Baseline | None = None
    drift: DriftReport | None = None
    shadow: ShadowReport | None = None
