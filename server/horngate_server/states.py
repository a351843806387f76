"""What became of every version: the one picture that metrics, listings and the HTTP port show."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from horngate_server.drift import Baseline, DriftReport
from horngate_server.loading import LoadReport
from horngate_server.shadow import ShadowReport

FOUND = "found"
LOADING = "loading"
READY = "ready"
DRAINING = "draining"
FAILED = "failed"
ENDED = "ended"
STATES = (LOADING, READY, DRAINING, FAILED, ENDED)
"""Those that metrics show. FOUND is on disk and neither wanted nor tried; ENDED was served and is no more."""


@dataclass(frozen=True, slots=True)
class VersionState:
    """One version at one moment.

    Attributes:
        name: the model's.
        version: its number.
        state: one of `STATES`, or FOUND.
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
    state: str
    reason: str
    since: float
    labels: Sequence[str] = field(default_factory=tuple)
    report: LoadReport | None = None
    baseline: Baseline | None = None
    drift: DriftReport | None = None
    shadow: ShadowReport | None = None
