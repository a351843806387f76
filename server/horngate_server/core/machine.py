"""What the machine, or the container on it, lets this process have."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

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
    for file in _control_files(root):
        with suppress(OSError, ValueError):  # "max" is no limit; version 1 says it with a number beyond any machine's
            yield int(file.read_text())


def _control_files(root: Path) -> Iterator[Path]:
    """Name the files that may hold a limit: those of the process's own group and of all groups around it."""
    groups = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            base, name = groups, "memory.max"
        elif "memory" in controllers.split(","):
            base, name = groups / "memory", "memory.limit_in_bytes"
        else:
            continue
        inside = PurePosixPath(path.lstrip("/"))
        for group in (inside, *inside.parents):  # in a container the path may be the host's: its root is tried as well
            if ".." not in group.parts:
                yield base / group / name
