"""A command in a control group whose memory is bounded, where there is the right to make one."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

MEMBER = 'echo $$ > "$0/cgroup.procs" && exec "$@"'


@contextmanager
def limited(name: str, most_bytes: int) -> Iterator[list[str]]:
    """Yield what to put before a command, so that it is killed when it takes more; nothing where that cannot be done.

    Args:
        name: of the cgroup, below the one of this process.
        most_bytes: of memory; swap is not allowed.
    """
    try:
        folder = _made(name, most_bytes)
    except OSError:
        folder = None
    if folder is None:
        yield []
        return
    try:
        yield ["sh", "-c", MEMBER, str(folder)]
    finally:
        folder.rmdir()


# --- private ------------------------------------------------------------------------------------------


def _made(name: str, most_bytes: int) -> Path | None:
    """Make a group of version 2, or of version 1; None where neither bounds memory here.

    Raises:
        OSError: this process has no right to.
    """
    for kind, own, limits in (
        (r"cgroup2 ", r"^0::/(.*)$", {"memory.max": most_bytes, "memory.swap.max": 0}),
        (
            r"cgroup .*\bmemory\b", r"^\d+:(?:\w+,)*memory(?:,\w+)*:/(.*)$",
            {"memory.limit_in_bytes": most_bytes, "memory.memsw.limit_in_bytes": most_bytes},
        ),
    ):  # fmt: skip
        mounted = re.search(rf"^\S+ \S+ \S+ \S+ (\S+) .* - {kind}", _read("mountinfo"), re.MULTILINE)
        path = re.search(own, _read("cgroup"), re.MULTILINE)
        if mounted and path and _bounds_memory(above := Path(mounted[1], path[1])):
            return _limited(above / name, limits)
    return None


def _read(file: str) -> str:
    return Path("/proc/self", file).read_text()


def _bounds_memory(above: Path) -> bool:
    """Whether a group's children may have their memory bounded; asks for it where it must be asked for."""
    if (above / "memory.limit_in_bytes").exists():
        return True
    control = above / "cgroup.subtree_control"
    if "memory" not in (above / "cgroup.controllers").read_text().split():
        return False
    if "memory" not in control.read_text().split():
        control.write_text("+memory")
    return True


def _limited(folder: Path, limits: Mapping[str, int]) -> Path:
    folder.mkdir(exist_ok=True)
    try:
        for file, value in limits.items():
            if (folder / file).exists():  # not every kernel accounts for swap
                (folder / file).write_text(str(value))
    except OSError:
        folder.rmdir()
        raise
    return folder
