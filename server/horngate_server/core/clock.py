"""Time, as everything that waits or measures is given it."""

from collections.abc import Callable

Clock = Callable[[], float]
"""Returns seconds; monotonic, unless it says otherwise."""
