"""Horngate's trainer: trains the reference model, and exports any Keras model for a Horngate server.

    from horngate_trainer import export, upload
    export(model, "models", name="wine")     # -> models/wine/1
    upload("models/wine/1", "s3://bucket/models")     # -> s3://bucket/models/wine/1

Importing this package loads no TensorFlow; using ``export`` does.
"""

TYPE_CHECKING = False  # typing's own is not imported: the command is to be quiet on Ctrl-C from its first moment
if TYPE_CHECKING:
    from typing import Any

    from horngate_trainer.errors import ExportError, TrainerError, VerificationError
    from horngate_trainer.exporter import export
    from horngate_trainer.golden import Tolerance
    from horngate_trainer.remote import upload

__all__ = ["ExportError", "Tolerance", "TrainerError", "VerificationError", "export", "upload"]

_ROOMS = {"export": "exporter", "Tolerance": "golden", "upload": "remote"}


def __getattr__(name: str) -> "Any":
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib  # noqa: PLC0415 - as for typing

    return getattr(importlib.import_module(f"{__name__}.{_ROOMS.get(name, 'errors')}"), name)
