"""Log lines, for people (text) or for collectors (JSON, one object a line). On stderr; stdout stays free."""

import json
import logging
import os
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import IO


def set_up(log_format: str, level: str, worker: int | None = None) -> None:
    """Send Horngate's log lines to stderr in this format; a worker's carry its number.

    They go through a descriptor of their own: while a model loads, what is written to the usual one is collected.
    """
    handler = _Stderr()
    handler.setFormatter(_Json(worker) if log_format == "json" else _Text(worker))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # our own lines say when the port opens and closes


def leave() -> None:
    """Flush what was written, before the end; where its reader has gone, that must not change the exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


# --- private ------------------------------------------------------------------------------------------


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _Stderr(logging.StreamHandler[IO[str]]):
    """Writes to a descriptor of its own for what stderr is now, until it is closed."""

    def __init__(self) -> None:
        super().__init__(os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="backslashreplace"))

    def close(self) -> None:
        super().close()
        with suppress(OSError):
            self.stream.close()


class _Formatter(logging.Formatter):
    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._worker = worker


class _Text(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        who = "" if self._worker is None else f"worker {self._worker}: "
        message = record.getMessage()
        if not message.isprintable():  # a line is a line: what callers send cannot look like another one
            message = message.encode("unicode_escape").decode()
        line = f"{_time(record)} {record.levelname.lower():8}{who}{message}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _Json(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, str | int | float] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= getattr(record, "fields", {})
        if self._worker is not None:
            entry["worker"] = self._worker
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)
