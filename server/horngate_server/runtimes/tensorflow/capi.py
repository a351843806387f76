"""The functions of TensorFlow's C library that are used, declared for ctypes.

The declarations follow ``tensorflow/c/c_api.h``, which the installed package carries in its include folder.
"""

import ctypes
from ctypes import POINTER, Structure, c_char_p, c_int, c_int64, c_size_t, c_void_p
from functools import cache
from importlib.util import find_spec

from horngate_server.core.errors import ModelError, ModelFailed
from horngate_server.runtimes.library_loading import opened, tensorflow_files


@cache
def library() -> ctypes.CDLL:
    """Load TensorFlow's C library from the installed package, once per process, and declare what is used.

    Raises:
        ModelError: TensorFlow is not installed.
    """
    base, main = tensorflow_files()
    opened(base)
    tf = opened(main)
    for name, result, arguments in _DECLARATIONS:
        function = getattr(tf, name)
        function.restype, function.argtypes = result, arguments
    return tf


def available() -> bool:
    """Whether TensorFlow is installed."""
    return find_spec("tensorflow") is not None


def check(status: c_void_p, error: type[ModelError | ModelFailed], context: str) -> None:
    """Turn a TF_Status that is not OK into an error."""
    tf = library()
    if tf.TF_GetCode(status):
        raise error(f"{context}: {tf.TF_Message(status).decode(errors='replace')}")


class Buffer(Structure):
    """TF_Buffer."""

    _fields_ = (("data", c_void_p), ("length", c_size_t), ("deallocator", c_void_p))


class Output(Structure):
    """TF_Output: one end of an operation in the graph."""

    _fields_ = (("oper", c_void_p), ("index", c_int))


Deallocator = ctypes.CFUNCTYPE(None, c_void_p, c_size_t, c_void_p)
"""What TF_NewTensor calls once nobody uses the tensor's memory any more."""

# --- private ------------------------------------------------------------------------------------------

_P = c_void_p
_DECLARATIONS: tuple[tuple[str, object, list[object]], ...] = (
    ("TF_NewStatus", _P, []),
    ("TF_DeleteStatus", None, [_P]),
    ("TF_GetCode", c_int, [_P]),
    ("TF_Message", c_char_p, [_P]),
    ("TF_NewSessionOptions", _P, []),
    ("TF_DeleteSessionOptions", None, [_P]),
    ("TF_SetConfig", None, [_P, c_char_p, c_size_t, _P]),
    ("TF_NewGraph", _P, []),
    ("TF_DeleteGraph", None, [_P]),
    ("TF_NewBuffer", POINTER(Buffer), []),
    ("TF_DeleteBuffer", None, [POINTER(Buffer)]),
    ("TF_LoadSessionFromSavedModel", _P,
        [_P, _P, c_char_p, POINTER(c_char_p), c_int, _P, POINTER(Buffer), _P]),
    ("TF_CloseSession", None, [_P, _P]),
    ("TF_DeleteSession", None, [_P, _P]),
    ("TF_SessionListDevices", _P, [_P, _P]),
    ("TF_DeleteDeviceList", None, [_P]),
    ("TF_DeviceListCount", c_int, [_P]),
    ("TF_DeviceListName", c_char_p, [_P, c_int, _P]),
    ("TF_DeviceListType", c_char_p, [_P, c_int, _P]),
    ("TF_GraphOperationByName", _P, [_P, c_char_p]),
    ("TF_NewTensor", _P, [c_int, POINTER(c_int64), c_int, _P, c_size_t, Deallocator, _P]),
    ("TF_DeleteTensor", None, [_P]),
    ("TF_TensorType", c_int, [_P]),
    ("TF_TensorData", _P, [_P]),
    ("TF_TensorByteSize", c_size_t, [_P]),
    ("TF_NumDims", c_int, [_P]),
    ("TF_Dim", c_int64, [_P, c_int]),
    ("TF_StringCopy", None, [_P, c_char_p, c_size_t]),
    ("TF_StringGetDataPointer", _P, [_P]),
    ("TF_StringGetSize", c_size_t, [_P]),
    ("TF_StringDealloc", None, [_P]),
    ("TF_LoadLibrary", _P, [c_char_p, _P]),
    ("TF_SessionRun", None,
        [_P, _P, POINTER(Output), POINTER(_P), c_int, POINTER(Output), POINTER(_P), c_int, _P, c_int, _P, _P]),
)  # fmt: skip
