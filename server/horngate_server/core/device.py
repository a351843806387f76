"""Where a model computes, and why there."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Device:
    """Where a model computes, and why there.

    Attributes:
        kind: "CPU" or "GPU".
        name: the engine's name for it.
        why: one sentence for the banner and the log.
        surprise: True where a GPU is in the machine and is not used though it was not forbidden.
    """

    kind: str
    name: str
    why: str
    surprise: bool = False
