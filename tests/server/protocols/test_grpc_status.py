"""From domain errors to gRPC's statuses."""

from collections.abc import Iterator

from google.protobuf.any_pb2 import Any as AnyMessage

from horngate_protos.rpc_status_pb2 import RetryInfo
from horngate_protos.rpc_status_pb2 import Status as RpcStatus
from horngate_server.core import errors
from horngate_server.protocols import grpc_status


def _below(error: type[errors.RequestError]) -> Iterator[type[errors.RequestError]]:
    for each in error.__subclasses__():
        yield each
        yield from _below(each)


def test_every_domain_error_has_a_status() -> None:
    """No error that a caller can cause, or suffer, is left without a gRPC code."""
    assert set(_below(errors.RequestError)) == set(grpc_status.CODES)


def test_try_later_and_never_are_different_codes() -> None:
    """What clients retry (UNAVAILABLE, RESOURCE_EXHAUSTED) and cannot succeed says that nobody should come back."""
    retried = {
        kind.__name__ for kind, code in grpc_status.CODES.items() if code.name in ("UNAVAILABLE", "RESOURCE_EXHAUSTED")
    }
    assert retried == {"QueueFull", "NotReady", "MessageTooLarge", "OutOfMemory"}
    for error in (errors.MessageTooLarge("x"), errors.OutOfMemory("x")):
        assert dict(grpc_status.status_of(error).trailers) == {"grpc-retry-pushback-ms": "-1"}


def test_a_full_queue_tells_clients_when_to_come_back_in_both_dialects() -> None:
    """GRPC's pushback metadata and google.rpc.RetryInfo carry the same delay."""
    refused = grpc_status.status_of(errors.QueueFull("full", retry_after_s=0.25))
    trailers = dict(refused.trailers)
    assert trailers["grpc-retry-pushback-ms"] == "250"
    raw = trailers["grpc-status-details-bin"]
    assert isinstance(raw, bytes)
    details: AnyMessage = RpcStatus.FromString(raw).details[0]
    assert RetryInfo.FromString(details.value).retry_delay.ToMilliseconds() == 250


def test_long_messages_are_cut_to_what_a_header_can_carry() -> None:
    """A message made of a caller's own megabyte cannot break the answer."""
    assert len(grpc_status.status_of(errors.InvalidRequest("x" * 10**6)).message) == grpc_status.MESSAGE_CHARACTERS
