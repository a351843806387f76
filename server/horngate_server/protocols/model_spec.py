"""TensorFlow Serving's ModelSpec: which model, version and signature a caller asks for, and which one answered."""

from functools import lru_cache
from typing import NamedTuple

from horngate_protos.tensorflow_serving_pb2 import ModelSpec
from horngate_server.core.errors import InvalidRequest, LabelNotFound


class Asked(NamedTuple):
    """Which model a ModelSpec asks for: its name, its version in digits or a label, a signature; empty for defaults."""

    model: str
    version: str
    signature: str


def read_spec(spec: ModelSpec | None) -> Asked:
    """Read a ModelSpec.

    Raises:
        InvalidRequest: there is none, or it names no model.
        LabelNotFound: a label that cannot be one.
    """
    if spec is None:
        raise InvalidRequest("Missing ModelSpec: expected model_spec with the model's name")
    if not spec.name:
        raise InvalidRequest("ModelSpec has no name specified: expected the model's name")
    match spec.WhichOneof("version_choice"):
        case "version":
            return Asked(spec.name, str(spec.version.value), spec.signature_name)
        case "version_label":
            if not spec.version_label or spec.version_label.isdecimal():
                raise LabelNotFound(
                    f"Unrecognized servable version label: {spec.version_label!r}; numbers are versions"
                )
            return Asked(spec.name, spec.version_label, spec.signature_name)
        case _:
            return Asked(spec.name, "", spec.signature_name)


@lru_cache(maxsize=512)
def write_spec(model: str, version: str, signature: str) -> bytes:
    """Serialize the ModelSpec of an answer: name, number, signature."""
    spec = ModelSpec(name=model, signature_name=signature)
    spec.version.value = int(version)
    return spec.SerializeToString()
