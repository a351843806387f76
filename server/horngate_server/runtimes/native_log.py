"""TensorFlow's C++ code writes to file descriptor 2 in its own format; this turns those lines into log lines."""

import logging
import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

log = logging.getLogger("tensorflow")

_LINE = re.compile(
    r"^(?P<level>[IWEF])\d{4} [\d:.]+\s+\d+ (?P<source>\S+)\] (?P<text>.*)$|^\S+ \S+: (?P<old>[IWEF]) (?P<rest>.*)$"
)
_NOISE = "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR"
_LEVELS = {"I": logging.DEBUG, "W": logging.WARNING, "E": logging.ERROR, "F": logging.CRITICAL}


@contextmanager
def captured() -> Iterator[Callable[[], list[str]]]:
    """Collect what native code writes to stderr meanwhile; at the end, log the worst of it in one line, all as debug.

    There is one descriptor 2: whoever captures at the same time hears the same lines, and one that never ends keeps
    the others from nothing.

    Yields:
        A function that returns the warnings and errors so far.
    """
    with _lock:
        if not _captures:
            sys.stderr.flush()
            _captures.append(_Capture(os.dup(2), tempfile.TemporaryFile()))  # noqa: SIM115 - closed by the last one
            os.dup2(_captures[0].file.fileno(), 2)
        capture = _captures[0]
        capture.users += 1
        began = os.fstat(2).st_size
    try:
        yield lambda: [text for level, text in _lines(capture.file, began) if level > logging.INFO]
    finally:
        with _lock:
            sys.stderr.flush()
            lines = _lines(capture.file, began)
            capture.users -= 1
            if not capture.users:
                os.dup2(capture.saved, 2)
                os.close(capture.saved)
                capture.file.close()
                _captures.clear()
        _tell(lines)


# --- private ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Capture:
    """Where the process's stderr goes meanwhile."""

    saved: int
    file: IO[bytes]
    users: int = 0


_lock = threading.Lock()
_captures: list[_Capture] = []
"""The one under way, if there is one."""


def _tell(lines: list[tuple[int, str]]) -> None:
    for _, text in lines:
        log.debug("tensorflow: %s", text)
    level, text = max(lines, key=lambda line: line[0], default=(logging.DEBUG, ""))
    if level >= logging.WARNING:
        more = f" (the worst of {len(lines)} lines)" if len(lines) > 1 else ""
        log.log(level, "tensorflow: %s%s", text, more)


def _lines(file: IO[bytes], began: int) -> list[tuple[int, str]]:
    written = os.pread(file.fileno(), os.fstat(file.fileno()).st_size - began, began)
    return [_read(line) for line in written.decode(errors="replace").splitlines()]


def _read(line: str) -> tuple[int, str]:
    match = _LINE.match(line)
    if match is None:
        return (logging.DEBUG if line == _NOISE else logging.INFO), line
    return _LEVELS[match["level"] or match["old"]], match["text"] or match["rest"]
