"""FlatBuffers, as far as a .tflite file needs them. Places are checked before they are read: files may be damaged."""

import struct
from collections.abc import Iterator, Sequence

from horngate_server.core.errors import ModelError


class Table:
    """One table in a buffer, whose fields are read by their place in the schema."""

    def __init__(self, buffer: memoryview, at: int) -> None:
        self._buffer = buffer
        self._at = at
        self._fields = at - _read(buffer, "i", at)
        self._fields_end = self._fields + _read(buffer, "H", self._fields)
        self._end = at + _read(buffer, "H", self._fields + 2)

    def number(self, field: int, kind: str, default: int = 0) -> int:
        """Return a number, of a kind as `struct` names it."""
        at = self._place(field)
        return default if at is None else _read(self._buffer, kind, at)

    def numbers(self, field: int, kind: str) -> tuple[int, ...] | None:
        """Return a vector of numbers; None where it is left out."""
        at = self._target(field)
        if at is None:
            return None
        count = _read(self._buffer, "I", at)
        _inside(self._buffer, at + 4, count * struct.calcsize("<" + kind))
        return struct.unpack_from(f"<{count}{kind}", self._buffer, at + 4)

    def text(self, field: int) -> str:
        """Return a string; "" where it is left out."""
        at = self._target(field)
        if at is None:
            return ""
        count = _read(self._buffer, "I", at)
        _inside(self._buffer, at + 4, count)
        try:
            return str(self._buffer[at + 4 : at + 4 + count], "utf-8")
        except UnicodeDecodeError as error:
            raise damaged(f"a name that is no text at byte {at}") from error

    def tables(self, field: int) -> Sequence["Table"]:
        """Return a vector of tables; empty where it is left out."""
        at = self._target(field)
        return () if at is None else tuple(self._tables(at))

    def _tables(self, at: int) -> Iterator["Table"]:
        count = _read(self._buffer, "I", at)
        _inside(self._buffer, at + 4, count * 4)
        for place in range(at + 4, at + 4 + count * 4, 4):
            yield Table(self._buffer, place + _read(self._buffer, "I", place))

    def _target(self, field: int) -> int | None:
        """Return where what a field points to begins."""
        at = self._place(field)
        return None if at is None else at + _read(self._buffer, "I", at)

    def _place(self, field: int) -> int | None:
        """Return where a field lies; None where it is left out."""
        entry = self._fields + 4 + 2 * field
        if entry + 2 > self._fields_end:
            return None
        offset = _read(self._buffer, "H", entry)
        if not offset:
            return None
        if self._at + offset >= self._end:
            raise damaged(f"a field outside of its table at byte {self._at}")
        return self._at + offset


def root(buffer: memoryview, identifier: bytes) -> Table:
    """Return the table that a buffer is.

    Raises:
        ModelError: it is no such file, or damaged.
    """
    if bytes(buffer[4:8]) != identifier:
        raise ModelError(f"it is no {identifier.decode()} file: its bytes 4 to 8 are {bytes(buffer[4:8])!r}")
    return Table(buffer, _read(buffer, "I", 0))


def damaged(what: str) -> ModelError:
    """Return the error for a file that cannot be what it says it is."""
    return ModelError(f"the file is damaged: {what}")


# --- private ------------------------------------------------------------------------------------------


def _read(buffer: memoryview, kind: str, at: int) -> int:
    _inside(buffer, at, struct.calcsize("<" + kind))
    number: int = struct.unpack_from("<" + kind, buffer, at)[0]
    return number


def _inside(buffer: memoryview, at: int, size: int) -> None:
    if at < 0 or at + size > len(buffer):
        raise damaged(f"bytes {at} to {at + size} of {len(buffer)} are asked for")
