"""A JSON parser for bodies of any size: it stops at a bound, and lets other threads run.

`json.loads` reads a body in one step, during which Python runs nothing else (5 s for 64 MB), and makes objects of up to
30 times its size; so does any parser in C. Here each step reads one value or a run of numbers, a run becomes an array
of the smallest type that holds it, and everything else is counted.
"""

import re
from collections.abc import Container, Iterator
from contextlib import contextmanager
from json import JSONDecodeError, JSONDecoder, detect_encoding, loads
from math import inf, isinf
from typing import Any

import numpy as np
import orjson

from horngate_server.core.errors import InvalidRequest

MOST_VALUES = 1 << 20
"""Values of one body beside runs of numbers. An object counts for `OBJECT_VALUES`: it takes 200 bytes and more."""
OBJECT_VALUES = 8
LONG_RUN = 256
"""Numbers for which it pays to find the smallest type that holds them."""
WHOLE_BYTES = 1 << 16
"""What `json.loads` reads in a few milliseconds, and makes no more than 2 MB of."""


class EveryName(Container[str]):
    """All members: there may be runs of numbers in any of them."""

    def __contains__(self, _name: object) -> bool:
        return True


def read_json(body: bytes | bytearray | memoryview, data: Container[str]) -> Any:
    """Parse a body.

    Args:
        body: JSON.
        data: the names of the members whose arrays may have runs of numbers.

    Returns:
        What `json.loads` returns; but in the arrays of such a member of a large body, numbers that follow each other
        may be one `numpy.ndarray`.

    Raises:
        InvalidRequest: it is not JSON; a large body has more values than `MOST_VALUES`; a number is beyond what 64 bits
            hold.
    """
    if len(body) <= WHOLE_BYTES and _LONG not in bytes(body).translate(_AS_ZEROS):
        try:
            return orjson.loads(body)
        except ValueError:  # it takes less than Python does: no NaN, no other encodings, no half characters
            pass
    try:
        text = str(body, detect_encoding(bytes(body[:4])), "surrogatepass")  # not copied before
        return loads(text, parse_float=finite) if len(body) <= WHOLE_BYTES else _Reader(text, data).whole()
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from error


@contextmanager
def whole_characters() -> Iterator[None]:
    """Refuse half a character, which JSON can write and Unicode has not, where text is made of it in the block.

    Raises:
        InvalidRequest: in place of UnicodeEncodeError.
    """
    try:
        yield
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"the body has a string that is no text: {error}") from error


def finite(text: str) -> float:
    """Read a number that is written in digits (`json.loads`' ``parse_float``).

    Raises:
        InvalidRequest: it is beyond what 64 bits hold, and would become an infinity.
    """
    number = float(text)
    if isinf(number):
        raise InvalidRequest(f"the body has the number {text[:40]}; expected none beyond what 64 bits hold")
    return number


# --- private ------------------------------------------------------------------------------------------

_AS_ZEROS = bytes.maketrans(b"123456789", b"0" * 9)
_LONG = b"0" * 19
"""Digits of a whole number that may be beyond 64 bits: orjson makes a float of it."""
_SPACE = re.compile(r"[ \t\n\r]*")
_RUN = re.compile(r"[-+.\deE, \t\n\r]{4,65536}")
"""Numbers and what is between them: as much as a few milliseconds are enough for."""


_scalar = JSONDecoder(parse_float=finite).raw_decode


class _Reader:
    """One body's text, and how many values may still come; its methods take and return a position in the text."""

    def __init__(self, text: str, data: Container[str]) -> None:
        self._text = text
        self._data = data
        self._left = MOST_VALUES

    def whole(self) -> Any:
        value, at = self._value(self._space(0))
        if at != len(self._text):
            raise JSONDecodeError("Extra data", self._text, at)
        return value

    def _value(self, at: int, *, is_data: bool = False) -> tuple[Any, int]:
        """Read a value and the space behind it."""
        opening = self._text[at : at + 1]
        self._left -= OBJECT_VALUES if opening == "{" else 1
        if self._left < 0:
            raise InvalidRequest(
                f"the body has more than {MOST_VALUES} values (an object counts for {OBJECT_VALUES}, numbers that "
                "follow each other for one); expected at most so many: write data flat, or send them as bytes by gRPC"
            )
        value: Any
        if opening == "[":
            value, at = self._array(self._space(at + 1), is_data=is_data)
        elif opening == "{":
            value, at = self._object(self._space(at + 1))
        else:
            value, at = _scalar(self._text, at)
        return value, self._space(at)

    def _array(self, at: int, *, is_data: bool) -> tuple[list[Any], int]:
        values: list[Any] = []
        if self._text[at : at + 1] == "]":
            return values, at + 1
        while True:
            while is_data and (run := _RUN.match(self._text, at)):
                end = run.end()
                over = self._text[end : end + 1] == "]"
                if not over:
                    end = self._text.rfind(",", at, end)
                    if end <= at:
                        break
                values += self._compact(at, end)
                if over:
                    return values, end + 1
                at = self._space(end + 1)
            value, at = self._value(at, is_data=is_data)
            values.append(value)
            at, over = self._next(at, "]")
            if over:
                return values, at

    def _compact(self, at: int, end: int) -> list[Any]:
        try:
            return _compact(f"[{self._text[at:end]}]")
        except JSONDecodeError as error:
            raise JSONDecodeError(error.msg, self._text, at + error.pos - 1) from None

    def _object(self, at: int) -> tuple[dict[str, Any], int]:
        values: dict[str, Any] = {}
        if self._text[at : at + 1] == "}":
            return values, at + 1
        while True:
            if self._text[at : at + 1] != '"':
                raise JSONDecodeError("Expecting property name enclosed in double quotes", self._text, at)
            name, at = _scalar(self._text, at)
            at = self._space(at)
            if self._text[at : at + 1] != ":":
                raise JSONDecodeError("Expecting ':' delimiter", self._text, at)
            values[name], at = self._value(self._space(at + 1), is_data=name in self._data)
            at, over = self._next(at, "}")
            if over:
                return values, at

    def _next(self, at: int, closing: str) -> tuple[int, bool]:
        """Go on behind a comma, or an end; return which it was."""
        mark = self._text[at : at + 1]
        if mark == closing:
            return at + 1, True
        if mark != ",":
            raise JSONDecodeError("Expecting ',' delimiter", self._text, at)
        return self._space(at + 1), False

    def _space(self, at: int) -> int:
        match = _SPACE.match(self._text, at)
        assert match
        return match.end()


def _compact(numbers: str) -> list[Any]:
    """Return numbers as one array in a list, or as they are where an array would change one."""
    values: list[Any] = loads(numbers)
    array = np.array(values)
    if array.dtype.kind in "iu":
        if array.size < LONG_RUN:
            return [array]
        ends = np.min_scalar_type(array.min()), np.min_scalar_type(array.max())
        return [array.astype(np.result_type(*ends))]
    if inf in map(abs, values):
        loads(numbers, parse_float=finite)
    return [array] if array.dtype.kind == "f" and float in map(type, values) else values
