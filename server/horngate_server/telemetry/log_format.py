"""Log lines, for people (text) or for collectors (JSON, one object a line). On stderr; stdout stays free."""

import json
import logging
import os
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime

HELD_BYTES = 1 << 20
"""What may wait for whoever reads the log; further lines are dropped."""
FLUSH_S = 1.0
"""How long the end waits for them."""


def set_up(log_format: str, level: str, worker: int | None = None) -> None:
    """Send Horngate's log lines to stderr in this format; a worker's carry its number.

    They go through a descriptor of their own: while a model loads, what is written to the usual one is collected.
    """
    handler = _Stderr()
    handler.setFormatter(_Json(worker) if log_format == "json" else _Text(worker))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # our own lines say when the port opens and closes


def flush() -> None:
    """Wait a moment until what was logged is written, before this process ends or becomes another program."""
    for handler in logging.getLogger().handlers:
        handler.flush()


def leave() -> None:
    """Flush what was written, before the end; where its reader has gone, that must not change the exit code."""
    flush()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


# --- private ------------------------------------------------------------------------------------------


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _Stderr(logging.Handler):
    """Writes to a descriptor of its own for what stderr is now, from a thread of its own.

    Nobody who logs waits for whoever reads: lines beyond `HELD_BYTES` are dropped and counted, and a line says how many
    once there is room.
    """

    def __init__(self) -> None:
        super().__init__()
        self._descriptor = os.dup(2)
        self._changed = threading.Condition()
        self._lines: list[bytes] = []
        self._held = 0
        self._dropped = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._line(record)
        except Exception:  # noqa: BLE001 - as logging's own handlers: who logs must not fail for it
            self.handleError(record)
            return
        with self._changed:
            if self._held + len(line) > HELD_BYTES:
                self._dropped += 1
                return
            self._hold(line)

    def flush(self) -> None:
        """Wait until everything is written, for `FLUSH_S` at most."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held, FLUSH_S)

    def close(self) -> None:
        self.flush()
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        super().close()

    # --- private --------------------------------------------------------------------------------------

    def _line(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode(errors="backslashreplace")

    def _hold(self, line: bytes) -> None:
        self._lines.append(line)
        self._held += len(line)
        self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._closed)
                if not self._lines:
                    break
                lines, self._lines = self._lines, []
            _write(self._descriptor, b"".join(lines))
            with self._changed:
                self._held -= sum(map(len, lines))
                self._changed.notify_all()
                if self._dropped:
                    said = f"the log was not read fast enough: {self._dropped} lines were dropped"
                    fields = {"name": __name__, "levelname": "WARNING", "levelno": logging.WARNING, "msg": said}
                    self._dropped = 0
                    self._hold(self._line(logging.makeLogRecord(fields)))
        os.close(self._descriptor)


def _write(descriptor: int, text: bytes) -> None:
    """Write it, however long that takes; where the reader has gone, it goes nowhere."""
    view = memoryview(text)
    with suppress(OSError):
        while view:
            view = view[os.write(descriptor, view) :]


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
