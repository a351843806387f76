"""TensorFlow's own log: heard while models load, since it says why there is no GPU, and quiet otherwise.

Under traffic each refused request would be two lines of it, with the caller's bytes in them; what it has to say comes
with the error anyway. Its logging is Abseil's, whose functions have no C names: they are looked for among the library's
symbols.
"""

import ctypes
import mmap
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

from horngate_server.runtimes.library_loading import tensorflow_files

FATAL = 3
"""Abseil's level above which there is nothing."""


@contextmanager
def heard() -> Iterator[None]:
    """Let TensorFlow log meanwhile, as TF_CPP_MIN_LOG_LEVEL says; an operator who set that to 0 hears it always."""
    levels = _levels()
    if levels is None:
        yield
        return
    with _lock:
        _listeners.append(levels.usual)
        levels.set(levels.usual)
    try:
        yield
    finally:
        with _lock:
            _listeners.pop()
            if levels.usual > 0 and not _listeners:
                levels.set(FATAL)


# --- private ------------------------------------------------------------------------------------------


_lock = threading.Lock()
_listeners: list[int] = []
"""One for each who listens now: models may load beside each other."""

_NAMES = (rb"_ZN4absl\w{1,40}?14SetMinLogLevelENS\w*", rb"_ZN4absl\w{1,40}?11MinLogLevelEv")


class _Levels(NamedTuple):
    """How Abseil's least level is set, and what it was at first."""

    set: "ctypes._NamedFuncPointer"
    usual: int


@cache
def _levels() -> _Levels | None:
    """Find the functions; None in a library that does not have them."""
    path = tensorflow_files()[0]
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            names = [match[0].decode() for name in _NAMES if (match := re.search(name, data))]
        library = ctypes.CDLL(str(path))
        put, get = (getattr(library, name) for name in names)
    except (OSError, ValueError, AttributeError):
        return None
    put.argtypes, put.restype = [ctypes.c_int], None
    get.argtypes, get.restype = [], ctypes.c_int
    return _Levels(put, get())
