"""How values are written on the command line, in variables and in files.

Each function reads a text, or returns what does; a ValueError says what was expected.
"""

import re
from collections.abc import Callable
from pathlib import Path


def whole(low: int, high: int) -> Callable[[str], int]:
    """Read a whole number from ``low`` to ``high``."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"\d+", text) or not low <= int(text) <= high:
            raise ValueError(f"expected a whole number from {low} to {high}")
        return int(text)

    return parse


def one_of(*choices: str) -> Callable[[str], str]:
    """Read one of these words."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"expected one of {', '.join(choices)}")
        return text

    return parse


def seconds(text: str) -> float:
    """Read a duration such as 250us, 5ms, 30s, 2m."""
    units = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(us|ms|s|m)", text)
    if not match:
        raise ValueError("expected a duration such as 250us, 5ms, 30s or 2m")
    return float(match[1]) * units[match[2]]


def period(text: str) -> float:
    """Read a duration after which something is done again, and again."""
    length = seconds(text)
    if not 0.01 <= length <= 3600:
        raise ValueError("expected a duration from 10ms to 60m")
    return length


def size(text: str) -> int:
    """Read a number of bytes such as 64MiB."""
    units = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
    match = re.fullmatch(r"(\d+)(|KiB|MiB|GiB)", text)
    if not match or not 0 < int(match[1]) * units[match[2]] < 1 << 31:
        raise ValueError("expected a size below 2GiB, such as 65536, 512KiB or 64MiB")
    return int(match[1]) * units[match[2]]


def size_or_0(text: str) -> int:
    """Read a number of bytes, or 0."""
    return 0 if text == "0" else size(text)


def share(text: str) -> float:
    """Read a number from 0 to 1."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise ValueError("expected a share from 0 to 1, such as 0.01")
    return number


def url(text: str) -> str:
    """Read an http or https URL without a path."""
    if not re.fullmatch(r"https?://[^\s/]+(:\d+)?/?", text):
        raise ValueError("expected a URL such as http://collector:4317")
    return text


def path(text: str) -> Path:
    """Read a path."""
    if not text:
        raise ValueError("expected a path")
    return Path(text)


def switch(text: str) -> bool:
    """Read yes or no."""
    if text.lower() not in ("true", "1", "yes", "false", "0", "no"):
        raise ValueError("expected true or false")
    return text.lower() in ("true", "1", "yes")
