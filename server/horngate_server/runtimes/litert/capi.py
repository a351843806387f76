"""The functions of LiteRT's C library that are used, declared for ctypes.

The declarations follow the headers in ``litert/c`` of LiteRT's sources; their symbols are versioned, and those here
are the same from 2.1.6 on.
"""

import ctypes
from collections.abc import Mapping, Sequence
from ctypes import POINTER, Structure, byref, c_bool, c_char_p, c_int, c_int32, c_int64, c_size_t, c_uint32, c_void_p
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from horngate_server.core.errors import ModelError

PACKAGE = "ai-edge-litert"
MAX_RANK = 8
OK = 0


class Layout(Structure):
    """LiteRtLayout: the lengths of a tensor's axes. Strides are never used."""

    _fields_ = (("rank", c_uint32), ("dimensions", c_int32 * MAX_RANK), ("strides", c_uint32 * MAX_RANK))

    @classmethod
    def of(cls, shape: Sequence[int]) -> "Layout":
        """Return the one of this shape."""
        return cls(len(shape), (c_int32 * MAX_RANK)(*shape))

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths. The rank shares its word with a flag."""
        return tuple(self.dimensions[: self.rank & 0x7F])


class TensorType(Structure):
    """LiteRtRankedTensorType: an element's type, by TensorFlow Lite's number in memory, and the layout."""

    _fields_ = (("element", c_int), ("layout", Layout))


@cache
def library() -> ctypes.CDLL:
    """Load LiteRT's C library from the installed package, once per process, and declare what is used.

    Raises:
        ModelError: ai-edge-litert is not installed, or it is one that cannot be used.
    """
    path = _library_path()
    if path is None:
        raise ModelError("LiteRT is not installed: pip install ai-edge-litert")
    try:
        lite = ctypes.CDLL(str(path))  # not globally, as TensorFlow's
        for name, result, arguments in _DECLARATIONS:
            function = getattr(lite, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise ModelError(f"LiteRT cannot be used: {error}") from error
    return lite


def available() -> str:
    """Return the version of the LiteRT that is installed; "" where there is none."""
    if _library_path() is None:
        return ""
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - 20 ms of a start

    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return ""


@cache
def environment() -> int:
    """Return the process's environment: the CPU alone, and silent. It lives as long as the process."""
    options = (_EnvironmentOption * 2)(
        _EnvironmentOption(_REGISTERED, _Any(_INT, _CPU)), _EnvironmentOption(_LEAST_SEVERITY, _Any(_INT, _SILENT))
    )
    made = c_void_p()
    check(library().LiteRtCreateEnvironment(len(options), options, byref(made)), "LiteRT does not start")
    assert made.value is not None
    return made.value


def options(groups: Mapping[bytes, bytes]) -> c_void_p:
    """Return options for the CPU; each group's are a text in TOML. It is the caller's to destroy."""
    lite = library()
    made = c_void_p()
    check(lite.LiteRtCreateOptions(byref(made)), "LiteRT makes no options")
    try:
        check(lite.LiteRtSetOptionsHardwareAccelerators(made, _CPU), "LiteRT does not compute on CPUs")
        for group, text in groups.items():
            payload = _strdup(text)  # it frees it itself
            opaque = c_void_p()
            check(lite.LiteRtCreateOpaqueOptions(group, payload, _FREE, byref(opaque)), "LiteRT makes no options")
            check(lite.LiteRtAddOpaqueOptions(made, opaque), "LiteRT refuses options")
    except BaseException:
        lite.LiteRtDestroyOptions(made)
        raise
    return made


def check(status: int, context: str) -> None:
    """Turn a status that is not OK into an error."""
    if status != OK:
        raise ModelError(f"{context}: {reason(status)}")


def reason(status: int) -> str:
    """Return what a status means, in words."""
    return _REASONS.get(status, f"LiteRT's error {status}")


def said(compiled: c_void_p) -> str:
    """Return what a compiled model complained of since the last time, in LiteRT's words; "" for nothing."""
    lite = library()
    text = c_void_p()
    if lite.LiteRtCompiledModelGetErrorMessages(compiled, byref(text)) != OK or not text.value:
        return ""
    try:
        return ctypes.string_at(text.value).decode(errors="replace").strip()
    finally:
        _C.free(text)
        lite.LiteRtCompiledModelClearErrors(compiled)


# --- private ------------------------------------------------------------------------------------------


class _Any(Structure):
    """LiteRtAny, of which only the integers are used."""

    _fields_ = (("type", c_int), ("value", c_int64))


class _EnvironmentOption(Structure):
    """LiteRtEnvOption."""

    _fields_ = (("tag", c_int), ("value", _Any))


_INT = 2
_REGISTERED, _LEAST_SEVERITY = 24, 25
_CPU, _SILENT = 1, 4
_REASONS = {
    1: "an argument is wrong",
    2: "there is no memory for it",
    3: "it failed",
    5: "it is not supported",
    500: "the file cannot be read",
    501: "the file is damaged",
    504: "it cannot be compiled",
}

_C = ctypes.CDLL(None)
_C.strdup.restype, _C.strdup.argtypes = c_void_p, [c_char_p]
_C.free.restype, _C.free.argtypes = None, [c_void_p]
_strdup = _C.strdup
_FREE = ctypes.cast(_C.free, c_void_p)

_P, _PP, _SIZE = c_void_p, POINTER(c_void_p), c_size_t
_DECLARATIONS: tuple[tuple[str, object, list[object]], ...] = (
    ("LiteRtCreateEnvironment", c_int, [c_int, POINTER(_EnvironmentOption), _PP]),
    ("LiteRtCreateOptions", c_int, [_PP]),
    ("LiteRtDestroyOptions", None, [_P]),
    ("LiteRtSetOptionsHardwareAccelerators", c_int, [_P, c_int]),
    ("LiteRtCreateOpaqueOptions", c_int, [c_char_p, _P, _P, _PP]),
    ("LiteRtAddOpaqueOptions", c_int, [_P, _P]),
    ("LiteRtCreateModelFromBuffer", c_int, [_P, _P, _SIZE, _PP]),
    ("LiteRtDestroyModel", None, [_P]),
    ("LiteRtCreateCompiledModel", c_int, [_P, _P, _P, _PP]),
    ("LiteRtDestroyCompiledModel", None, [_P]),
    ("LiteRtCompiledModelResizeInputTensor", c_int, [_P, _SIZE, _SIZE, POINTER(c_int), _SIZE]),
    ("LiteRtGetCompiledModelOutputTensorLayouts", c_int, [_P, _SIZE, _SIZE, POINTER(Layout), c_bool]),
    ("LiteRtRunCompiledModel", c_int, [_P, _SIZE, _SIZE, _PP, _SIZE, _PP]),
    ("LiteRtCompiledModelGetErrorMessages", c_int, [_P, _PP]),
    ("LiteRtCompiledModelClearErrors", c_int, [_P]),
    ("LiteRtCreateTensorBufferFromHostMemory", c_int, [POINTER(TensorType), _P, _SIZE, _P, _PP]),
    ("LiteRtDestroyTensorBuffer", None, [_P]),
)


def _library_path() -> Path | None:
    """Find the library without importing its package, which would bring much that is not needed."""
    spec = find_spec(PACKAGE.replace("-", "_"))
    for folder in (spec and spec.submodule_search_locations) or ():
        for found in sorted(Path(folder).glob("libLiteRt.*")):
            return found
    return None
