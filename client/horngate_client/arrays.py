"""Arrays out of .npz files, and as text that people or programs read."""

import io
import json
import sys
from base64 import b64encode
from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.lib.npyio import NpzFile

from horngate_client.codec import Array
from horngate_client.errors import ConversionError

STDIN = "-"


def read(name: str) -> dict[str, Array]:
    """Read an .npz, or standard input for ``-``: an array for each input, by its name.

    Raises:
        ConversionError: it is none.
    """
    try:
        loaded = np.load(io.BytesIO(sys.stdin.buffer.read()) if name == STDIN else name, allow_pickle=False)
        if not isinstance(loaded, NpzFile):
            raise ConversionError(f"{name} holds one array; expected an .npz with an array for each input, by its name")
        with loaded:
            return {key: loaded[key] for key in loaded.files}
    except (OSError, ValueError, EOFError, BadZipFile) as exc:
        hint = "; save strings as an array of the type S or U" if "bject array" in str(exc) else ""
        raise ConversionError(f"{name} cannot be read as .npz: {exc}{hint}") from exc


def lines(outputs: Mapping[str, Array]) -> Iterator[str]:
    """Write arrays for people: type, shape and values, of a large one those at its ends; strings in quotes."""
    for name, array in outputs.items():
        kind = "BYTES" if array.dtype.hasobject else str(array.dtype)
        yield f"{name}: {kind} {list(array.shape)}"
        yield np.array2string(array, formatter={"object": _quoted})


def as_json(array: Array) -> Any:
    """Return nested lists that json.dumps takes, as a Horngate server writes them.

    Strings are text, or ``{"b64": "..."}`` where they are no UTF-8; what is no number is "NaN", "Infinity" or
    "-Infinity".
    """
    return _nested(array.tolist())


# --- private ------------------------------------------------------------------------------------------------


def _nested(value: Any) -> Any:
    match value:
        case list():
            return [_nested(each) for each in value]
        case bytes():
            return _text(value)
        case float() if not isfinite(value):
            return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"  # noqa: PLR0124 - only NaN is
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
    return json.dumps(text, ensure_ascii=not legible)
