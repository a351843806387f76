"""How values are written on the command line, in variables and in files.

Each function reads a text, or returns what does; a ValueError says what was expected.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

from horngate_protos import stores
from horngate_protos.stores import StoreUrl
from horngate_server.core import machine
from horngate_server.core.errors import SettingsError

LEAST_MEMORY_BYTES = 1 << 20
LEAST_PATIENCE_S = 2.0
_UNITS = {"": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


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


def age(text: str) -> float:
    """Read the duration that something lives; 0 for ever."""
    length = 0.0 if text == "0" else seconds(text)
    if length and not 1 <= length <= 86400:
        raise ValueError("expected a duration from 1s to 1440m, or 0")
    return length


def retention(text: str) -> float:
    """Read how long something is kept that is on a disk."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    length = float(match[1]) * units[match[2]] if match else 0.0
    if not 60 <= length <= 3650 * units["d"]:
        raise ValueError("expected a duration from 1m to 3650d, such as 12h or 7d")
    return length


def patience(text: str) -> float:
    """Read how long a sign of life may take that comes every second; 0 for ever."""
    length = 0.0 if text == "0" else seconds(text)
    if 0 < length < LEAST_PATIENCE_S:
        raise ValueError(f"expected a duration of at least {LEAST_PATIENCE_S:g}s, or 0")
    return length


def batch_time(text: str) -> float:
    """Read a duration that a batch may take."""
    length = seconds(text)
    if not 0.001 <= length <= 60:
        raise ValueError("expected a duration from 1ms to 60s")
    return length


def size(text: str) -> int:
    """Read a number of bytes such as 64MiB."""
    number = _bytes(text)
    if number is None or not 0 < number < 1 << 31:
        raise ValueError("expected a size below 2GiB, such as 65536, 512KiB or 64MiB")
    return number


def memory(text: str) -> int:
    """Read a number of bytes, or a share of the memory that this process may use; return bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)%", text)
    if match and 0 < float(match[1]) <= 100:
        number: int | None = int(machine.memory_bytes() * float(match[1]) / 100)
    else:
        number = _bytes(text)
    if number is None or number < LEAST_MEMORY_BYTES:
        raise ValueError("expected at least 1MiB, such as 800MB or 2GiB, or a share of the memory such as 25%")
    return number


def requests_size(text: str) -> int:
    """Read a number of bytes that requests may have in memory: any that the machine has."""
    number = _bytes(text)
    most = max((1 << 31) - 1, machine.memory_bytes())
    if number is None or not 0 < number <= most:
        raise ValueError(f"expected a size up to {most >> 20}MiB, what this machine has, such as 512MiB or 4GiB")
    return number


def requests_size_or_0(text: str) -> int:
    """Read a number of bytes that requests may have in memory, or 0."""
    return 0 if text == "0" else requests_size(text)


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


def origins(text: str) -> tuple[str, ...]:
    """Read web pages' origins, separated by commas, as browsers write them."""
    return tuple(_origin(each.strip()) for each in text.split(","))


def files(text: str) -> tuple[Path, ...]:
    """Read one path or several, separated as in PATH."""
    return tuple(path(each) for each in text.split(os.pathsep))


def named_models(text: str) -> tuple[Path, ...]:
    """Read what is to be served: one path or several, separated as in PATH."""
    if "://" in text:
        raise ValueError("expected a folder or a file here; an object store is named by --models")
    return files(text)


def model_names(text: str) -> tuple[str, ...]:
    """Read one model's name or several, separated by commas."""
    found = tuple(text.split(","))
    if not all(found) or any("/" in each for each in found):
        raise ValueError("expected a name, or names separated by commas, without a slash")
    return found


def path(text: str) -> Path:
    """Read a path."""
    if not text:
        raise ValueError("expected a path")
    return Path(text)


def model_root(text: str) -> Path | StoreUrl:
    """Read a folder's path, or an object store's address.

    Raises:
        SettingsError: it is an address that cannot be used; it is not repeated, as it may hold a secret.
    """
    try:
        return stores.parse(text) or path(text)
    except ValueError as error:
        if "://" not in text:
            raise
        raise SettingsError(f"--models: {error}") from None


def disk(text: str) -> int:
    """Read a number of bytes on a disk."""
    number = _bytes(text)
    if number is None or number < LEAST_MEMORY_BYTES:
        raise ValueError("expected at least 1MiB, such as 800MB or 20GiB")
    return number


def switch(text: str) -> bool:
    """Read yes or no."""
    if text.lower() not in ("true", "1", "yes", "false", "0", "no"):
        raise ValueError("expected true or false")
    return text.lower() in ("true", "1", "yes")


# --- private ------------------------------------------------------------------------------------------

_USUAL_PORTS = {("http", ":80"), ("https", ":443")}
"""Browsers leave them out."""


def _origin(text: str) -> str:
    match = re.fullmatch(r"([a-z][a-z0-9+.-]*)://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:\d{1,5})?", text.lower())
    if match is None:
        raise ValueError("expected origins such as https://app.example,http://localhost:5173; there is no * for all")
    scheme, host, port = match.groups(default="")
    return f"{scheme}://{host}{'' if (scheme, port) in _USUAL_PORTS else port}"


def _bytes(text: str) -> int | None:
    match = re.fullmatch(r"(\d+)([kMG]B|[KMG]iB|)", text)
    return int(match[1]) * _UNITS[match[2]] if match else None
