"""LiteRT: models of TensorFlow Lite, run through the C API of its 8 MB library; no TensorFlow is needed."""

from pathlib import Path

from horngate_server.core.errors import ModelError
from horngate_server.core.model import LoadedModel

MODEL = "model.tflite"


def available() -> str:
    """Return the library's version; empty where it is not installed."""
    return ""


def load(path: Path, *, device: str = "auto", threads: int = 0, signature: str = "") -> LoadedModel:  # noqa: ARG001
    """Load a version's ``model.tflite``."""
    raise ModelError(f"{path} cannot be loaded")
