"""gRPC reflection: what grpcurl and `buf curl` explore. Answers come from grpcio-reflection; v1 and v1alpha alike."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha.reflection import aio
from grpc_reflection.v1alpha.reflection_pb2 import DESCRIPTOR as ALPHA
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from horngate_protos.pool import POOL
from horngate_server.core.errors import InvalidRequest
from horngate_server.core.rpc import CallOptions, Stream

SERVICES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")


def streams(services: Sequence[str]) -> dict[str, Stream]:
    """Return the reflection methods for these services; both versions have the same messages on the wire."""
    responses: Callable[..., AsyncIterator[ServerReflectionResponse]] = aio.ReflectionServicer(
        sorted([*services, *SERVICES]), pool=_Pools()
    ).ServerReflectionInfo  # type: ignore[assignment]  # an async generator; its stub says coroutine

    async def requests(messages: AsyncIterator[bytes]) -> AsyncIterator[ServerReflectionRequest]:
        async for message in messages:
            try:
                yield ServerReflectionRequest.FromString(message)
            except DecodeError as error:
                raise InvalidRequest(f"not a ServerReflectionRequest: {error}") from error

    async def info(messages: AsyncIterator[bytes], _options: CallOptions) -> AsyncIterator[bytes]:
        async for response in responses(requests(messages), None):
            yield response.SerializeToString()

    return {f"/{service}/ServerReflectionInfo": info for service in SERVICES}


# --- private ------------------------------------------------------------------------------------------


def _reflection_v1() -> descriptor_pool.DescriptorPool:
    """Return a pool with reflection's own v1: the same as v1alpha, which grpcio-reflection has, but for the name."""
    old, new = "grpc.reflection.v1alpha", "grpc.reflection.v1"
    file = descriptor_pb2.FileDescriptorProto.FromString(ALPHA.serialized_pb)
    file.name, file.package = "grpc/reflection/v1/reflection.proto", new
    for message in file.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = field.type_name.replace(old, new)
    for method in file.service[0].method:
        method.input_type = method.input_type.replace(old, new)
        method.output_type = method.output_type.replace(old, new)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return pool


class _Pools:
    """Our messages' pool, then the default one, which holds those of health and reflection v1alpha."""

    _pools = (POOL, descriptor_pool.Default(), _reflection_v1())

    def FindFileByName(self, name: str) -> FileDescriptor:  # noqa: N802 - protobuf's name
        return self._first("FindFileByName", name)

    def FindFileContainingSymbol(self, name: str) -> FileDescriptor:  # noqa: N802 - protobuf's name
        return self._first("FindFileContainingSymbol", name)

    def FindExtensionByNumber(self, _message: object, number: int) -> None:  # noqa: N802 - protobuf's name
        raise KeyError(number)

    def FindAllExtensions(self, _message: object) -> list[object]:  # noqa: N802 - protobuf's name
        return []

    def FindMessageTypeByName(self, name: str) -> object:  # noqa: N802 - protobuf's name
        return self._first("FindMessageTypeByName", name)

    def _first(self, method: str, name: str) -> FileDescriptor:
        for pool in self._pools:
            with suppress(KeyError):
                found: FileDescriptor = getattr(pool, method)(name)
                return found
        raise KeyError(name)
