"""A model's outputs as text: a table for people, JSON for programs."""

import json
import sys
from base64 import b64encode
from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any

import numpy as np

from horngate_client.codec import Array

MOST_ROWS = 20
"""Of more rows, the first half of so many is shown, and the last rows."""
LAST_ROWS = 3
MOST_VALUES = 6
"""Of more values in a cell, the first and the last ones are shown."""
MOST_LETTERS = 60


def lines(outputs: Mapping[str, Array], *, in_rows: bool) -> Iterator[str]:
    """Write arrays for people.

    Args:
        outputs: by name.
        in_rows: the first axis of each counts rows: they become a table, a column for each output.
    """
    if in_rows and outputs:
        yield from _table(outputs)
        return
    for name, array in outputs.items():
        yield f"{name}: {_kind(array)} {list(array.shape)}"
        yield np.array2string(array, formatter={"object": _quoted}, threshold=200)


def as_json(array: Array) -> Any:
    """Return nested lists that json.dumps takes, as a Horngate server writes them.

    Strings are text, or ``{"b64": "..."}`` where they are no UTF-8; what is no number is "NaN", "Infinity" or
    "-Infinity".
    """
    return _nested(array.tolist())


# --- private ------------------------------------------------------------------------------------------


def _table(outputs: Mapping[str, Array]) -> Iterator[str]:
    count = len(next(iter(outputs.values())))
    shown = [*range(count)]
    if count > MOST_ROWS:
        shown = [*range(MOST_ROWS // 2), *range(count - LAST_ROWS, count)]
    rows = [("row", *(_head(name, array) for name, array in outputs.items()))]
    rows += [(str(row), *(_cell(array[row]) for array in outputs.values())) for row in shown]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for place, row in enumerate(rows):
        if count > MOST_ROWS and place == 1 + MOST_ROWS // 2:
            yield f"... {count - len(shown):,} rows more; --json prints all of them"
        first, *cells = row
        aligned = (cell.ljust(width) for cell, width in zip(cells, widths[1:], strict=True))
        yield "  ".join((first.rjust(widths[0]), *aligned)).rstrip()


def _head(name: str, array: Array) -> str:
    return f"{name} ({_kind(array)}{f' {list(array.shape[1:])}' if array.ndim > 1 else ''})"


def _kind(array: Array) -> str:
    return "BYTES" if array.dtype.hasobject else str(array.dtype)


def _cell(value: Any) -> str:
    """Write one row of an output; of a long one its ends."""
    flat = np.asarray(value, object if isinstance(value, bytes) else None).reshape(-1)
    if len(flat) <= MOST_VALUES:
        return " ".join(map(_scalar, flat))
    half = MOST_VALUES // 2
    return f"{' '.join(map(_scalar, flat[:half]))} ... {' '.join(map(_scalar, flat[-half:]))}"


def _scalar(value: Any) -> str:
    if isinstance(value, bytes):
        return _quoted(value)
    return f"{value:.6g}" if isinstance(value, np.floating) else str(value)


def _nested(value: Any) -> Any:
    match value:
        case list():
            return [_nested(each) for each in value]
        case bytes():
            return _text(value)
        case float() if not isfinite(value):
            return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"  # noqa: PLR0124 - only NaN is
        case complex():
            return [value.real, value.imag]
        case _:
            return value


def _text(element: bytes) -> Any:
    try:
        return element.decode()
    except UnicodeDecodeError:
        return {"b64": b64encode(element).decode()}


def _quoted(element: object) -> str:
    assert isinstance(element, bytes)
    text = _text(element)
    legible = isinstance(text, str) and text.isprintable() and "utf" in (sys.stdout.encoding or "").lower()
    written = json.dumps(text, ensure_ascii=not legible)
    return written if len(written) <= MOST_LETTERS else f"{written[:MOST_LETTERS]}... ({len(element):,} bytes)"
