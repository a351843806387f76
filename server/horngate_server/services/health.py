"""grpc.health.v1: who is asked whether to send traffic here."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial

from google.protobuf.message import DecodeError
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from horngate_server.core.errors import InvalidRequest, ModelNotFound
from horngate_server.lifecycle.readiness import Readiness

_Response = HealthCheckResponse
_STATUSES = {True: _Response.SERVING, False: _Response.NOT_SERVING, None: _Response.SERVICE_UNKNOWN}


class Health:
    """Answers from a server's readiness.

    Args:
        readiness: which models serve.
    """

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness

    def check(self, message: bytes) -> bytes:
        """Answer a HealthCheckRequest.

        Raises:
            ModelNotFound: the name is neither empty nor a model's.
        """
        name = _name(message)
        serving = self._readiness.state(name)
        if serving is None:
            raise ModelNotFound(f"no model {name!r}")  # which there are is not for everyone to know who may ask this
        return _Response(status=_STATUSES[serving]).SerializeToString()

    async def watch(self, messages: AsyncIterator[bytes], _options: object) -> AsyncIterator[bytes]:
        """Answer with the state now and whenever it changes; SERVICE_UNKNOWN while there is no such name."""
        name = _name(await _only(messages))
        changed = asyncio.Event()
        with self._readiness.watched(partial(asyncio.get_running_loop().call_soon_threadsafe, changed.set)):
            told = None
            while True:
                changed.clear()
                status = _STATUSES[self._readiness.state(name)]
                if status != told:
                    told = status
                    yield _Response(status=status).SerializeToString()
                await changed.wait()


# --- private ------------------------------------------------------------------------------------------


async def _only(messages: AsyncIterator[bytes]) -> bytes:
    async for message in messages:
        return message
    raise InvalidRequest("the stream ended without a message; expected a HealthCheckRequest")


def _name(message: bytes) -> str:
    try:
        return HealthCheckRequest.FromString(message).service
    except DecodeError as error:
        raise InvalidRequest(f"not a HealthCheckRequest: {error}") from error
