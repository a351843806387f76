"""Asks a running server from outside whether it serves: ``horngate-server health``."""

import urllib.request

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from horngate_server.core.methods import CHECK


def ask(address: str, model: str, timeout_s: float) -> bool:
    """Ask a running server whether it serves; False where it does not, or does not answer."""
    with grpc.insecure_channel(address) as channel:
        check = channel.unary_unary(
            CHECK,
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )
        try:
            response = check(HealthCheckRequest(service=model), timeout=timeout_s)
        except grpc.RpcError:
            return False
        return bool(response.status == HealthCheckResponse.SERVING)


def ask_ready(url: str, timeout_s: float) -> bool:
    """Ask a running server's ``/readyz``; False where it is not ready, or does not answer."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as response:  # noqa: S310 - our own http URL
            return bool(response.status == 200)
    except OSError:  # HTTP's errors are OSErrors
        return False
