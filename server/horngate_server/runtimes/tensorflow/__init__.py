"""TensorFlow without its Python package: SavedModels run through the stable C API, bound here with ctypes.

Everything that owns a C handle frees it; no other room sees one.
"""

from horngate_server.runtimes.tensorflow.capi import available, library
from horngate_server.runtimes.tensorflow.saved_model import SavedModel, load, load_library, load_op_library

__all__ = ["SavedModel", "available", "library", "load", "load_library", "load_op_library"]
