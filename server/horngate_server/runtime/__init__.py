"""TensorFlow without its Python package: SavedModels run through the stable C API, bound here with ctypes.

Everything that owns a C handle frees it; no other room sees one.
"""

from horngate_server.runtime.devices import Device
from horngate_server.runtime.pages import few_arenas, forget_peak
from horngate_server.runtime.pages import peak as peak_bytes
from horngate_server.runtime.pages import release as release_pages
from horngate_server.runtime.pages import resident as resident_bytes
from horngate_server.runtime.pages import trim as trim_memory
from horngate_server.runtime.saved_model import SavedModel, load, load_op_library

__all__ = [
    "Device",
    "SavedModel",
    "few_arenas",
    "forget_peak",
    "load",
    "load_op_library",
    "peak_bytes",
    "release_pages",
    "resident_bytes",
    "trim_memory",
]
