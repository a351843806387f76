"""Files that operators replace while the server runs."""

import os
from collections.abc import Callable
from pathlib import Path

from horngate_server.core.file_changes import EVERY_S, Changes
from support.in_process import Clock


def test_changes_are_seen_whichever_way_a_file_is_replaced(tmp_path: Path) -> None:
    """Written in place, renamed over, or behind a symbolic link that is turned (as Kubernetes does)."""
    clock = Clock()
    first, second, link = tmp_path / "1", tmp_path / "2", tmp_path / "link"
    first.write_text("a")
    second.write_text("a")
    os.utime(second, ns=(first.stat().st_atime_ns, first.stat().st_mtime_ns))
    link.symlink_to(first)
    changes = Changes([link], clock)

    def turn() -> None:
        (tmp_path / "new").symlink_to(second)
        (tmp_path / "new").replace(link)

    ways: list[Callable[[], object]] = [turn, lambda: second.write_text("ab"), lambda: first.replace(second)]
    for way in ways:
        way()
        clock.now += EVERY_S
        assert changes.seen()
        clock.now += EVERY_S
        assert not changes.seen()
