"""TensorFlow's C++ code writes to file descriptor 2 in its own format; this turns those lines into log lines."""

import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

    Yields:
        A function that returns the warnings and errors so far.
    """
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield lambda: [text for level, text in _lines(file) if level > logging.INFO]
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
            _tell(_lines(file))


# --- private ------------------------------------------------------------------------------------------


def _tell(lines: list[tuple[int, str]]) -> None:
    for _, text in lines:
        log.debug("tensorflow: %s", text)
    level, text = max(lines, key=lambda line: line[0], default=(logging.DEBUG, ""))
    if level >= logging.WARNING:
        more = f" (the worst of {len(lines)} lines)" if len(lines) > 1 else ""
        log.log(level, "tensorflow: %s%s", text, more)


def _lines(file: IO[bytes]) -> list[tuple[int, str]]:
    file.seek(0)
    return [_read(line) for line in file.read().decode(errors="replace").splitlines()]


def _read(line: str) -> tuple[int, str]:
    match = _LINE.match(line)
    if match is None:
        return (logging.DEBUG if line == _NOISE else logging.INFO), line
    return _LEVELS[match["level"] or match["old"]], match["text"] or match["rest"]
