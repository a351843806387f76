"""What the machine, or the container on it, lets this process have."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from horngate_protos import control_groups

ASSUMED_BYTES = 4 << 30
"""Where neither the machine nor a container says how much there is."""


def memory_bytes(root: Path = Path("/")) -> int:
    """Return the bytes of memory that this process may use: the machine's, or less where a control group says less.

    Args:
        root: for tests; where ``proc`` and ``sys`` are.
    """
    return min(_limits(root), default=ASSUMED_BYTES)


def has_nvidia_driver(root: Path = Path("/")) -> bool:
    """Whether the kernel's part of NVIDIA's driver is there: what TensorFlow says of GPUs is of use then.

    Args:
        root: for tests; where ``proc`` and ``dev`` are.
    """
    return any((root / path).exists() for path in ("proc/driver/nvidia", "dev/nvidiactl", "dev/nvidia0", "dev/dxg"))


# --- private ------------------------------------------------------------------------------------------


def _limits(root: Path) -> Iterator[int]:
    with suppress(OSError, ValueError, IndexError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemTotal:"):
                yield int(line.split()[1]) << 10
    for group, unified in control_groups.groups(root, "memory"):
        with suppress(OSError, ValueError):  # "max" is no limit; version 1 says it with a number beyond any machine's
            yield int((group / ("memory.max" if unified else "memory.limit_in_bytes")).read_text())
