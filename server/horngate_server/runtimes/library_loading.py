"""TensorFlow's C library: where it lies, and how it is loaded, beside Python's imports if need be."""

import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from ctypes import c_char_p, c_int, c_void_p
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from horngate_server.core.errors import ModelError
from horngate_server.runtimes import native_log

EXTENSIONS = (
    "array", "asyncio", "bisect", "bz2", "csv", "datetime", "fcntl", "google.protobuf.descriptor", "grpc", "hashlib",
    "httptools", "json", "lzma", "mmap", "multiprocessing.connection", "numpy.random", "opcode", "orjson", "pickle",
    "queue", "random", "resource", "ssl", "typing", "uuid", "watchfiles", "zlib",
)  # fmt: skip
"""What the server imports that brings extension modules along."""


def begin(needed: Callable[[], bool]) -> threading.Thread:
    """Load it on a thread of its own while Python imports other modules; whoever loads it later finds it there.

    The dynamic loader loads one library at a time, and extension modules are libraries: one that is imported meanwhile
    would wait. So all of them are imported first. What is wrong with the library is said by who loads it later.

    Args:
        needed: says, on that thread, whether it is to be loaded; it may take as long as a disk does.
    """
    for name in EXTENSIONS:
        import_module(name)
    thread = threading.Thread(target=_load, args=(needed,), name="library", daemon=True)
    thread.start()
    return thread


def opened(path: Path) -> ctypes.CDLL:
    """Load a library, and look functions up as they are called first: of a hundred thousand, few ever are.

    ctypes itself asks for all at once, which takes half as long again (dlopen(3), RTLD_NOW). It is not loaded globally:
    its symbols would take the place of other libraries' own, and importing numpy.random, or whatever else is linked
    against another C++ runtime, would then crash the process.

    Raises:
        OSError: the dynamic loader refuses it.
    """
    dlopen = ctypes.CDLL(None).dlopen
    dlopen.restype, dlopen.argtypes = c_void_p, [c_char_p, c_int]
    return ctypes.CDLL(str(path), handle=dlopen(os.fsencode(path), os.RTLD_LAZY | os.RTLD_LOCAL))


def tensorflow_files() -> Sequence[Path]:
    """Return the library's two files; the first is what the second is built on.

    Raises:
        ModelError: TensorFlow is not installed, or has no such files.
    """
    spec = find_spec("tensorflow")
    if spec is None or not spec.submodule_search_locations:
        raise ModelError("TensorFlow is not installed: pip install 'horngate[server]' on Python 3.11 to 3.13")
    folder = Path(next(iter(spec.submodule_search_locations)))
    return [_one(folder, pattern) for pattern in ("libtensorflow_framework.*", "libtensorflow_cc.*")]


# --- private ------------------------------------------------------------------------------------------


def _load(needed: Callable[[], bool]) -> None:
    if needed():
        with suppress(ModelError, OSError), native_log.captured():
            for path in tensorflow_files():
                opened(path)


def _one(folder: Path, pattern: str) -> Path:
    """Find the one library that matches, whatever the platform's suffix."""
    found = sorted(folder.glob(pattern))
    if not found:
        raise ModelError(f"TensorFlow's package has no {pattern}: this build cannot be used")
    return found[0]
