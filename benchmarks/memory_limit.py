"""A command in a cgroup (version 2) whose memory is bounded, where there is the right to make one."""

import re
from collections.abc import Iterator
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
    """Make a cgroup; None where memory is not bounded by version 2 here.

    Raises:
        OSError: this process has no right to.
    """
    mounted = re.search(r"^\S+ \S+ \S+ \S+ (\S+) .* - cgroup2 ", Path("/proc/self/mountinfo").read_text(), re.MULTILINE)
    own = re.search(r"^0::/(.*)$", Path("/proc/self/cgroup").read_text(), re.MULTILINE)
    if not mounted or not own:
        return None
    above = Path(mounted[1], own[1])
    if "memory" not in (above / "cgroup.controllers").read_text().split():
        return None
    if "memory" not in (above / "cgroup.subtree_control").read_text().split():
        (above / "cgroup.subtree_control").write_text("+memory")
    folder = above / name
    folder.mkdir(exist_ok=True)
    try:
        (folder / "memory.max").write_text(str(most_bytes))
        swap = folder / "memory.swap.max"
        if swap.exists():
            swap.write_text("0")
    except OSError:
        folder.rmdir()
        raise
    return folder
