"""grpc.health.v1: who is asked whether to send traffic here. NOT_SERVING until warm, and again from the drain on."""

import asyncio
import threading
import urllib.request
from collections.abc import AsyncIterator

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from horngate_server.errors import InvalidRequest, ModelNotFound

CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
SERVICE = "grpc.health.v1.Health"
OVERALL = ""
MAX_BYTES = 4096
"""A request for health has a model's name; it may come from anyone."""

_Response = HealthCheckResponse


class Health:
    """The serving state overall (the empty name) and of every model. Callable from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._states: dict[str, int] = {OVERALL: _Response.NOT_SERVING}
        self._watchers: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self._stopping = False

    def set(self, name: str, *, serving: bool) -> None:
        """Change one state. After `shut_down`, only to NOT_SERVING."""
        with self._lock:
            serves = serving and not self._stopping
            self._states[name] = _Response.SERVING if serves else _Response.NOT_SERVING
            self._wake()

    def shut_down(self) -> None:
        """Answer NOT_SERVING for everything, for good."""
        with self._lock:
            self._stopping = True
            self._states = dict.fromkeys(self._states, _Response.NOT_SERVING)
            self._wake()

    def serving(self, name: str = OVERALL) -> bool:
        """Whether traffic is welcome."""
        return self._states.get(name) == _Response.SERVING

    def check(self, message: bytes) -> bytes:
        """Answer a HealthCheckRequest.

        Raises:
            ModelNotFound: the name is neither empty nor a model's.
        """
        name = _name(message)
        status = self._states.get(name)
        if status is None:
            raise ModelNotFound(f"no model {name!r}")  # which there are is not for everyone to know who may ask this
        return _Response(status=status).SerializeToString()

    async def watch(self, messages: AsyncIterator[bytes], _terms: object) -> AsyncIterator[bytes]:
        """Answer with the state now and whenever it changes; SERVICE_UNKNOWN while there is no such name."""
        name = _name(await _only(messages))
        changed = asyncio.Event()
        watcher = (asyncio.get_running_loop(), changed)
        with self._lock:
            self._watchers.add(watcher)
        try:
            told = None
            while True:
                changed.clear()
                status = self._states.get(name, _Response.SERVICE_UNKNOWN)
                if status != told:
                    told = status
                    yield _Response(status=status).SerializeToString()
                await changed.wait()
        finally:
            with self._lock:
                self._watchers.discard(watcher)

    def _wake(self) -> None:
        for loop, changed in self._watchers:
            loop.call_soon_threadsafe(changed.set)


def ask(address: str, model: str, timeout_s: float) -> bool:
    """Ask a running server whether it serves; False where it does not, or does not answer."""
    with grpc.insecure_channel(address) as channel:
        check = channel.unary_unary(
            CHECK,
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=_Response.FromString,
        )
        try:
            response = check(HealthCheckRequest(service=model), timeout=timeout_s)
        except grpc.RpcError:
            return False
        return bool(response.status == _Response.SERVING)


def ask_ready(url: str, timeout_s: float) -> bool:
    """Ask a running server's ``/readyz``; False where it is not ready, or does not answer."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as response:  # noqa: S310 - our own http URL
            return bool(response.status == 200)
    except OSError:  # HTTP's errors are OSErrors
        return False


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
