"""Gives back the pages of the engines' libraries and of Envoy that only starting needed: relocation tables, such code.

They are clean pages of files: dropping them loses nothing, and what serving does need comes back from the page cache
on first use. Without this, they count as the process's memory until the kernel runs short.
"""

import ctypes
import logging
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

SMAPS = Path("/proc/self/smaps")
STATUS = Path("/proc/self/status")
_M_ARENA_MAX = -8  # glibc: <malloc.h>
_MADV_DONTNEED = 4  # Linux: <bits/mman-linux.h>
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) r-.p \S+ \S+ \S+\s+\S*/(?:libtensorflow\S*|libLiteRt\S*|envoy)$")
_FACT = re.compile(r"(Rss|Private_Dirty|Shared_Dirty|Anonymous):\s+(\d+) kB")


def release() -> int:
    """Drop those pages; return how many bytes were resident. Does nothing where there is no /proc.

    Only mappings without a single written page are touched: relocated data look read-only too, but live in private
    copies that would be lost.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None, use_errno=True)
        libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        released = 0
        for start, stop, resident in list(_clean(SMAPS.read_text())):
            if libc.madvise(start, stop - start, _MADV_DONTNEED) == 0:
                released += resident
        log.debug("gave back %d MB of library pages that only loading needed", released // 10**6)
        return released
    return 0


def few_arenas() -> None:
    """Let glibc's threads share two arenas; before they start. Every loading thread would begin one of its own."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def trim() -> None:
    """Give freed memory back to the system, where the C library's allocator is the process's (not in Envoy's)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def resident() -> int:
    """Return the bytes of memory that this process has; 0 where that cannot be read."""
    return _status("VmRSS")


def anonymous() -> int:
    """Return those bytes of it that no file holds: what was allocated, without libraries' pages; 0 if unreadable."""
    return _status("RssAnon")


def peak() -> int:
    """Return the most that it had since `forget_peak`, in bytes; 0 where that cannot be read."""
    return _status("VmHWM")


def forget_peak() -> None:
    """Let `peak` begin anew."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM to VmRSS


# --- private ------------------------------------------------------------------------------------------


def _clean(smaps: str) -> Iterator[tuple[int, int, int]]:
    """Yield (start, stop, resident bytes) of the libraries' read-only mappings that hold no written page."""
    mapping: tuple[int, int] | None = None
    facts: dict[str, int] = {}
    for line in [*smaps.splitlines(), "0-0 end"]:
        if fact := _FACT.match(line):
            facts[fact[1]] = int(fact[2]) * 1024
        elif "-" in line.split(" ", 1)[0]:
            if mapping and not (facts["Private_Dirty"] or facts["Shared_Dirty"] or facts["Anonymous"]):
                yield (*mapping, facts["Rss"])
            match = _MAPPING.match(line)
            mapping = (int(match[1], 16), int(match[2], 16)) if match else None
            facts = {}


def _status(key: str) -> int:
    """Return a figure of proc(5)'s status file in bytes."""
    with suppress(OSError):
        for line in STATUS.read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
    return 0
