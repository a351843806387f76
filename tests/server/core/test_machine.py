"""How much memory and how many cores there are."""

import os
from pathlib import Path

import pytest

from horngate_protos.control_groups import cores
from horngate_server.core import machine

MEMINFO = "MemTotal:        8000000 kB\nMemFree:         1000 kB\n"
TOTAL = 8000000 << 10


def lay(root: Path, files: dict[str, str]) -> Path:
    """Write files below a folder that stands for ``/``."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({"proc/meminfo": MEMINFO}, TOTAL, id="no-container"),
        pytest.param(
            {"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "3221225472\n"},
            3 << 30,
            id="version-2",
        ),
        pytest.param(
            {"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"},
            TOTAL,
            id="version-2-without-a-limit",
        ),
        pytest.param(
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": "0::/pod/one\n",
                "sys/fs/cgroup/pod/one/memory.max": "max\n",
                "sys/fs/cgroup/pod/memory.max": "1073741824\n",
            },
            1 << 30,
            id="a-group-around-it",
        ),
        pytest.param(
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": "5:cpu:/x\n4:memory:/docker/abc\n0::/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "2147483648\n",
            },
            2 << 30,
            id="version-1-seen-from-inside",
        ),
        pytest.param(
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": "4:memory:/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            TOTAL,
            id="version-1-without-a-limit",
        ),
        pytest.param({"proc/self/cgroup": "what is this\n"}, machine.ASSUMED_BYTES, id="nothing-is-said"),
    ],
)
def test_the_smallest_limit_around_this_process_holds(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    """The machine's memory, or less where a control group of either version says so."""
    assert machine.memory_bytes(lay(tmp_path, files)) == expected


def test_a_driver_is_seen_by_what_the_kernel_shows_of_it(tmp_path: Path) -> None:
    """Without one, what TensorFlow says of GPUs is noise."""
    assert not machine.has_nvidia_driver(tmp_path)
    assert machine.has_nvidia_driver(lay(tmp_path, {"dev/nvidiactl": ""}))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({}, 8, id="no-container"),
        pytest.param({"sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1, id="version-2"),
        pytest.param({"sys/fs/cgroup/cpu.max": "max 100000\n"}, 8, id="version-2-without-a-quota"),
        pytest.param({"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2, id="a-part-counts-as-one"),
        pytest.param({"sys/fs/cgroup/cpu.max": "1000 100000\n"}, 1, id="never-none"),
        pytest.param({"sys/fs/cgroup/cpu.max": "3200000 100000\n"}, 8, id="never-more-than-may-be-run-on"),
        pytest.param({"sys/fs/cgroup/cpu.max": "what is this\n"}, 8, id="nothing-that-can-be-read"),
        pytest.param(
            {
                "proc/self/cgroup": "0::/pod/one\n",
                "sys/fs/cgroup/pod/one/cpu.max": "max 100000\n",
                "sys/fs/cgroup/pod/cpu.max": "300000 100000\n",
            },
            3,
            id="a-group-around-it",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "5:cpuacct,cpu:/docker/abc\n4:memory:/docker/abc\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            2,
            id="version-1-seen-from-inside",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "5:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            8,
            id="version-1-without-a-quota",
        ),
    ],
)
def test_a_quota_bounds_the_cores(
    tmp_path: Path, files: dict[str, str], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cores that the process may run on, or those that the smallest quota around it lasts for, rounded up."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert cores(lay(tmp_path, {"proc/self/cgroup": "0::/\n", **files})) == expected
