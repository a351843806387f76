"""What callers ask about the server and its models, in the words of each protocol. Nothing here computes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from horngate_server.executor import Clock
from horngate_server.health import Health
from horngate_server.served import Models
from horngate_server.states import VersionState
from horngate_server.statistics import Statistics


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the answers are.

    Attributes:
        models: who answers whom.
        health: whether traffic is welcome.
        statistics: what versions have done.
        states: what became of every version.
        clock: monotonic seconds, as in ``states`` and ``statistics``.
        wall_clock: seconds since 1970.
        admin: whether administrators' calls are taken.
    """

    models: Models
    health: Health
    statistics: Statistics
    states: Callable[[], Sequence[VersionState]]
    clock: Clock
    wall_clock: Clock
    admin: bool
