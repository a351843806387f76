"""LiteRT without its Python package: .tflite models run through the library's versioned C API, bound here with ctypes.

Everything that owns a C handle frees it; no other room sees one.
"""

from horngate_server.runtimes.litert.capi import available, library
from horngate_server.runtimes.litert.model import MODEL, LiteRTModel, load

__all__ = ["MODEL", "LiteRTModel", "available", "library", "load"]
