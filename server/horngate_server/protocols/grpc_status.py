"""The one table from domain error to gRPC status."""

import grpc

from horngate_protos.rpc_status_pb2 import RetryInfo
from horngate_protos.rpc_status_pb2 import Status as RpcStatus
from horngate_server.core import errors
from horngate_server.core.rpc import Status

OK = "OK"

CODES: dict[type[errors.RequestError], grpc.StatusCode] = {
    errors.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ModelNotFound: grpc.StatusCode.NOT_FOUND,
    errors.LabelNotFound: grpc.StatusCode.NOT_FOUND,
    errors.SignatureNotFound: grpc.StatusCode.FAILED_PRECONDITION,
    errors.MessageTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.QueueFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineExpired: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.CallerGone: grpc.StatusCode.CANCELLED,
    errors.NotReady: grpc.StatusCode.UNAVAILABLE,
    errors.InputRefused: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ModelFailed: grpc.StatusCode.INTERNAL,
    errors.OutOfMemory: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.NotInRows: grpc.StatusCode.INTERNAL,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.Forbidden: grpc.StatusCode.PERMISSION_DENIED,
    errors.Refused: grpc.StatusCode.FAILED_PRECONDITION,
    errors.NotImplementedHere: grpc.StatusCode.UNIMPLEMENTED,
}

TENSORFLOW_SERVING: dict[type[errors.RequestError], grpc.StatusCode] = {
    errors.LabelNotFound: grpc.StatusCode.INVALID_ARGUMENT,
    errors.QueueFull: grpc.StatusCode.UNAVAILABLE,
}
"""Where TensorFlow Serving's callers expect another code."""
DIALECTS = {"tensorflow_serving": TENSORFLOW_SERVING, "tensorflow_serving_json": TENSORFLOW_SERVING}
"""By protocol, what differs from `CODES`."""

MESSAGE_CHARACTERS = 1024
"""Longer messages are cut: they travel in a header, and headers have limits."""


def status_of(error: errors.RequestError, protocol: str = "") -> Status:
    """Say how a call ends that failed with this error, in the words of a protocol."""
    code = DIALECTS.get(protocol, CODES).get(type(error), CODES[type(error)])
    message = str(error)
    if len(message) > MESSAGE_CHARACTERS:
        message = message[: MESSAGE_CHARACTERS - 3] + "..."
    number: int = code.value[0]
    if isinstance(error, errors.MessageTooLarge | errors.OutOfMemory):  # the code alone would invite a retry
        return Status(number, code.name, message, (("grpc-retry-pushback-ms", "-1"),))
    if isinstance(error, errors.QueueFull):
        return Status(number, code.name, message, _retry_after(number, message, error.retry_after_s))
    return Status(number, code.name, message)


# --- private ------------------------------------------------------------------------------------------


def _retry_after(code: int, message: str, seconds: float) -> tuple[tuple[str, str | bytes], ...]:
    """Tell gRPC's own retry logic (gRFC A6) and google.rpc's readers when to come back."""
    milliseconds = max(1, round(seconds * 1000))
    info = RetryInfo()
    info.retry_delay.FromMilliseconds(milliseconds)
    details = RpcStatus(code=code, message=message)
    details.details.add().Pack(info)
    return (
        ("grpc-retry-pushback-ms", str(milliseconds)),
        ("grpc-status-details-bin", details.SerializeToString()),
    )
