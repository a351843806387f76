"""What a container lets its processes have, as the kernel's control groups of either version say it."""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath


def cores(root: Path = Path("/")) -> int:
    """Return how many cores this process may use: those it may run on, or as many as control groups' quotas last for.

    A part of a core counts as one.

    Args:
        root: for tests; where ``proc`` and ``sys`` are.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([allowed, *(max(1, math.ceil(quota)) for quota in _quotas(root))])


def groups(root: Path, controller: str) -> Iterator[tuple[Path, bool]]:
    """Yield the groups that may hold a limit, the process's own and all around it, and whether they are version 2's.

    Args:
        root: where ``proc`` and ``sys`` are.
        controller: ``cpu`` or ``memory``.
    """
    folder = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        base = folder / controller if controllers else folder
        inside = PurePosixPath(path.lstrip("/"))
        for group in (inside, *inside.parents):  # in a container the path may be the host's: its root is tried as well
            if ".." not in group.parts:
                yield base / group, not controllers


# --- private ---------------------------------------------------------------------------------------------------------


def _quotas(root: Path) -> Iterator[float]:
    """Yield the cores that each quota lasts for."""
    for group, unified in groups(root, "cpu"):
        files = ["cpu.max"] if unified else ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        with suppress(OSError, ValueError):  # "max" is no quota; version 1 says it with -1
            quota, period = (int(each) for file in files for each in (group / file).read_text().split())
            if quota > 0 and period > 0:
                yield quota / period
