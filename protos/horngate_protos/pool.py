"""Builds the message classes from the committed descriptor set, in a private pool."""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

POOL = descriptor_pool.DescriptorPool()

_descriptors = descriptor_pb2.FileDescriptorSet.FromString(
    files("horngate_protos").joinpath("contract.binpb").read_bytes()
)
for _file in _descriptors.file:
    POOL.AddSerializedFile(_file.SerializeToString())


def names(proto: str) -> Mapping[str, Any]:
    """Return what a generated module holds: ``DESCRIPTOR``, the top-level messages and enums of one .proto file."""
    file = POOL.FindFileByName(proto)
    messages = {name: _message(descriptor) for name, descriptor in file.message_types_by_name.items()}
    enums = {name: EnumTypeWrapper(descriptor) for name, descriptor in file.enum_types_by_name.items()}
    return {"DESCRIPTOR": file, **messages, **enums}


# --- private ------------------------------------------------------------------------------------------


def _message(descriptor: Descriptor) -> Any:
    """Return a message's class with those that are declared in it, which protobuf in pure Python leaves out."""
    message = message_factory.GetMessageClass(descriptor)
    for name, nested in descriptor.nested_types_by_name.items():
        if not hasattr(message, name):
            setattr(message, name, _message(nested))
    return message
