"""Callers who mean harm, or know no better: memory stays within the settings, and neighbours go on being answered."""

import asyncio
import gzip
import socket
import struct
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import grpc
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from horngate_protos.open_inference_pb2 import ModelInferResponse
from horngate_server.core.methods import HEALTH_BYTES
from horngate_server.process import health_probe
from horngate_server.transports import small_messages
from horngate_server.transports.access import tokens
from support import hostile
from support.http2 import MODEL_INFER, Http2
from support.in_process import request
from support.process import ServerProcess
from support.waiting import until

MIB = 1 << 20
LIMITS = ["--max-message-bytes", "8MiB", "--max-request-bytes", "64MiB", "--max-connections", "40"]
SLACK_MIB = 48
"""What a process may grow by besides the requests themselves: buffers, pages not yet given back."""


def frame(message: bytes, *, flag: int = 0, length: int | None = None) -> bytes:
    """Put gRPC's prefix in front of a message, right or wrong."""
    return struct.pack(">BI", flag, len(message) if length is None else length) + message


GOOD = request({"images": np.zeros((1, 28, 28), np.uint8)}, model="mnist").SerializeToString()
NEVER_ANSWERED_BY_GRPCIO = (frame(GOOD)[:-1], frame(GOOD) + b"more", b"")
"""grpcio's core waits for the rest of such a body, which never comes: the caller's deadline ends the call."""
OK = "0"
INVALID, EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAUTHENTICATED = "3", "8", "12", "13", "16"


@pytest.fixture(scope="module")
def server(trained: Path, transport: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with small limits."""
    scratch = tmp_path_factory.mktemp("hostile")
    with ServerProcess(trained.parents[1], scratch, "--transport", transport, *LIMITS) as running:
        yield running
        assert running.stop() == 0
        assert not [line for line in running.log if " error " in line or "Traceback" in line]


@pytest.fixture(autouse=True)
def _serves_afterwards(server: ServerProcess) -> Iterator[None]:
    """Whatever a test did, the next good request is answered, and nothing is left in flight."""
    yield
    assert _good(server)
    until(lambda: _in_flight(server) == 0)


def grown_mib(server: ServerProcess, before: int) -> float:
    """How much more memory the server has held at its peak than before."""
    return (_peak(server) - before) / 1024


def test_a_message_over_the_limit_is_refused_before_it_is_in_memory(server: ServerProcess) -> None:
    """200 MB where 8 are allowed: RESOURCE_EXHAUSTED, and the process hardly grows."""
    before = _reset_peak(server)
    with Http2(server.grpc) as caller:
        stream = caller.open()
        caller.send(stream, struct.pack(">BI", 0, 200 * MIB))
        piece = bytes(MIB)
        for _ in range(200):
            if not caller.send(stream, piece):
                break
        ended = caller.ends(stream)
    assert ended.get("grpc-status") == EXHAUSTED or "reset" in ended
    assert grown_mib(server, before) < SLACK_MIB


def test_a_compression_bomb_is_cut_off_while_it_expands(server: ServerProcess) -> None:
    """A gigabyte of zeros in a megabyte of gzip: RESOURCE_EXHAUSTED, and no gigabyte."""
    bomb = gzip.compress(bytes(1024 * MIB), compresslevel=1)
    assert len(bomb) < 8 * MIB
    before = _reset_peak(server)
    with Http2(server.grpc) as caller:
        ended = caller.call(frame(bomb, flag=1), [("grpc-encoding", "gzip")])
    assert ended["grpc-status"] == EXHAUSTED
    assert grown_mib(server, before) < SLACK_MIB


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_a_compressed_request_is_answered(server: ServerProcess, compression: grpc.Compression) -> None:
    """GRPC's own compression, as a client switches it on."""
    with grpc.insecure_channel(server.grpc, compression=compression) as channel:
        infer: grpc.UnaryUnaryMultiCallable[bytes, ModelInferResponse]
        infer = channel.unary_unary(MODEL_INFER, response_deserializer=ModelInferResponse.FromString)
        assert infer(GOOD, timeout=10).model_name == "mnist"


def test_callers_that_never_finish_cannot_fill_the_memory(server: ServerProcess, transport: str) -> None:
    """Thirty connections with half a large message each: --max-request-bytes are held, and the connections' windows."""
    before = _reset_peak(server)
    with ExitStack() as stack:
        callers = [stack.enter_context(Http2(server.grpc)) for _ in range(30)]
        for caller in callers:
            caller.send(caller.open(), frame(bytes(4 * MIB), length=8 * MIB - 1000))
        if transport == "fast":  # grpcio's core holds what has not arrived whole; only connections bound it
            windows = 30 * 64 / 40  # as much again as requests may have, for all of --max-connections
            assert grown_mib(server, before) < 64 + windows + SLACK_MIB
        assert grown_mib(server, before) < 30 * 8 + SLACK_MIB
    until(lambda: _good(server))


@pytest.mark.parametrize("method", ["Check", "Watch"])
def test_health_takes_small_messages_alone(server: ServerProcess, transport: str, method: str) -> None:
    """It is open to everyone: large messages that do not end hold little memory, and no probe and no caller up."""
    before = _reset_peak(server)
    path = f"/grpc.health.v1.Health/{method}"
    with ExitStack() as stack:
        for _ in range(30):
            caller = stack.enter_context(Http2(server.grpc))
            stream = caller.open([(":path", path)])
            sender = threading.Thread(target=_send, args=(caller, stream, frame(bytes(7 * MIB), length=8 * MIB - 1000)))
            sender.start()
            stack.callback(sender.join)
            stack.callback(caller.socket.shutdown, socket.SHUT_RDWR)  # what cannot be sent is not waited for
        until(lambda: not health_probe.ask(server.grpc, "", 5.0))
        assert _good(server)
        held = (
            64 if transport == "fast" else small_messages.AT_ONCE * 8
        )  # fast: Envoy's windows, all connections together
        assert grown_mib(server, before) < held + SLACK_MIB
    with Http2(server.grpc) as caller:
        ended = caller.call(frame(bytes(HEALTH_BYTES + 1)), [(":path", path)])
    assert ended["grpc-status"] == EXHAUSTED


def test_callers_that_never_read_cost_no_more_than_their_requests(server: ServerProcess) -> None:
    """Answers wait for a reader in bounded memory, and others are answered meanwhile."""
    body = frame(request({"images": np.zeros((4096, 28, 28), np.uint8)}, model="mnist").SerializeToString())
    with Http2(server.grpc) as caller:
        before = _reset_peak(server)
        for _ in range(8):
            stream = caller.open()
            caller.send(stream, body, end=True)
        until(lambda: _good(server))  # the queue may be full for a moment
        assert grown_mib(server, before) < 64 + SLACK_MIB
        assert caller.ends(stream)["grpc-status"] in {OK, EXHAUSTED}


def test_more_connections_than_allowed_do_not_harm_those_that_are_there(server: ServerProcess) -> None:
    """Beyond --max-connections, connections are closed; who was there first goes on; when they go, others may come."""
    with grpc.insecure_channel(server.grpc) as channel:
        infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(MODEL_INFER)
        infer(GOOD, timeout=10)
        with ExitStack() as stack:
            answered = [_answered(stack.enter_context(Http2(server.grpc))) for _ in range(60)]
            assert infer(GOOD, timeout=10)
            assert 30 <= sum(answered) <= 40
    until(lambda: _good(server))


BODIES = [
    pytest.param(frame(GOOD)[:-1], {}, {INVALID, INTERNAL}, id="cut-short"),
    pytest.param(frame(GOOD) + b"more", {}, {INVALID, INTERNAL, UNIMPLEMENTED}, id="too-long"),
    pytest.param(b"", {}, {INVALID, INTERNAL, UNIMPLEMENTED}, id="empty"),
    pytest.param(frame(GOOD, flag=1), {}, {INVALID, INTERNAL, UNIMPLEMENTED}, id="compressed-but-not-said-how"),
    pytest.param(frame(GOOD, flag=1), {"grpc-encoding": "snappy"}, {UNIMPLEMENTED, INTERNAL}, id="unknown-encoding"),
    pytest.param(frame(b"garbage", flag=1), {"grpc-encoding": "gzip"}, {INVALID, INTERNAL}, id="not-really-compressed"),
    pytest.param(frame(GOOD), {":path": "/inference.GRPCInferenceService/Nothing"}, {UNIMPLEMENTED}, id="method"),
    pytest.param(frame(GOOD), {":path": "/"}, {UNIMPLEMENTED}, id="no-method"),
    pytest.param(frame(b"\xff" * 100), {}, {INVALID}, id="not-protobuf"),
]


@pytest.mark.parametrize(("body", "headers", "codes"), BODIES)
def test_garbage_gets_an_error_and_nothing_else_happens(
    server: ServerProcess, transport: str, body: bytes, headers: dict[str, str], codes: set[str]
) -> None:
    """A wrong frame, encoding, method or message ends its own call with a fitting code; the connection goes on."""
    with Http2(server.grpc) as caller:
        if transport == "grpcio" and body in NEVER_ANSWERED_BY_GRPCIO:
            caller.send(caller.open(), body, end=True)
        else:
            ended = caller.call(body, headers.items())
            assert ended.get("grpc-status") in codes, ended
        assert caller.call(frame(GOOD))["grpc-status"] == OK


@pytest.mark.parametrize("content_type", ["application/json", "application/grpc-web+proto", ""])
def test_what_is_not_grpc_is_refused_or_taken_for_it(server: ServerProcess, transport: str, content_type: str) -> None:
    """Another content type is 415 from the fast transport; grpcio does not look at it."""
    with Http2(server.grpc) as caller:
        ended = caller.call(frame(GOOD), [("content-type", content_type)])
    assert ended[":status"] == ("415" if transport == "fast" else "200")


def test_http_1_is_refused(server: ServerProcess) -> None:
    """A browser on the gRPC port is turned away at once."""
    host, port = server.grpc.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"200 OK" not in plain.recv(4096)


def test_a_thousand_cancelled_and_a_thousand_cut_calls_leave_nothing_behind(server: ServerProcess) -> None:
    """Calls that are reset, and calls whose connection goes, do not stay in flight."""
    body = frame(request({"images": np.zeros((16, 28, 28), np.uint8)}, model="mnist").SerializeToString())
    with Http2(server.grpc) as caller:
        for _ in range(1000):
            stream = caller.open()
            caller.send(stream, body, end=True)
            caller.reset(stream)
        assert caller.call(frame(GOOD))["grpc-status"] == OK
    for _ in range(10):
        with Http2(server.grpc) as caller:
            for _ in range(100):
                caller.send(caller.open(), body, end=True)
    until(lambda: _in_flight(server) == 0)


def test_calls_that_are_cancelled_as_fast_as_they_come_hold_nobody_up(server: ServerProcess) -> None:
    """Rapid reset on four connections: others are answered meanwhile, and the memory hardly grows."""
    before = _reset_peak(server)
    attackers = [threading.Thread(target=hostile.rapid_reset, args=(server.grpc, MODEL_INFER, 1.5)) for _ in range(4)]
    for attacker in attackers:
        attacker.start()
    with grpc.insecure_channel(server.grpc) as channel:
        infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(MODEL_INFER)
        while any(attacker.is_alive() for attacker in attackers):
            assert infer(GOOD, timeout=10, wait_for_ready=True)
        assert infer(GOOD, timeout=10, wait_for_ready=True)
    assert grown_mib(server, before) < 128 + SLACK_MIB


def test_a_caller_may_be_slow_to_say_that_it_has_read_our_limits(server: ServerProcess) -> None:
    """A busy machine's caller reads nothing for two seconds: its connection is there, and its calls are answered."""
    with Http2(server.grpc) as caller:
        threading.Event().wait(2.0)
        assert caller.call(frame(GOOD))["grpc-status"] == OK
        assert not caller.going_away


def test_headers_that_are_remembered_cannot_be_multiplied(server: ServerProcess, transport: str) -> None:
    """A reference is one byte, and stands for thousands: others are answered; on `fast` memory does not grow."""
    before = _reset_peak(server)
    attacker = threading.Thread(target=hostile.header_references, args=(server.grpc, MODEL_INFER, 1.5))
    attacker.start()
    with grpc.insecure_channel(server.grpc) as channel:
        infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(MODEL_INFER)
        while attacker.is_alive():
            assert infer(GOOD, timeout=10)
    # grpcio: half a MiB a stream, and gRPC's core bounds no headers before its settings are read (docs/memory.md)
    assert grown_mib(server, before) < (SLACK_MIB if transport == "fast" else 1024)


def test_who_cancels_many_calls_keeps_the_connection(server: ServerProcess) -> None:
    """Two of five calls are cancelled at once, as by callers that hedge; all others are answered on the same socket."""
    with Http2(server.grpc) as caller:
        for number in range(4500):
            if number % 5 < 2:
                stream = caller.open()
                caller.send(stream, frame(GOOD), end=True)
                caller.reset(stream)
            else:
                assert caller.call(frame(GOOD))["grpc-status"] == OK


def test_of_a_thousand_calls_on_one_connection_hundreds_may_be_cancelled(server: ServerProcess) -> None:
    """Two of five are cancelled at once and made again, as by callers that hedge: all others are answered."""

    async def call(infer: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes], number: int) -> None:
        if number % 5 < 2:
            first = infer(GOOD, timeout=60)
            await asyncio.sleep(0)  # let it be sent
            first.cancel()
            with suppress(asyncio.CancelledError):
                await first
        assert await infer(GOOD, timeout=60)

    async def rounds() -> None:
        async with grpc.aio.insecure_channel(server.grpc) as channel:
            infer: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(MODEL_INFER)
            for _ in range(5):
                await asyncio.gather(*(call(infer, number) for number in range(1000)))

    asyncio.run(rounds())


def test_a_deadline_is_kept_and_a_broken_one_is_refused(server: ServerProcess) -> None:
    """grpc-timeout ends a call; what is no timeout is an error rather than no deadline."""
    with Http2(server.grpc) as caller:
        late = caller.open([("grpc-timeout", "10m")])  # whose message does not come
        assert caller.ends(late)["grpc-status"] == "4"
        assert caller.call(frame(GOOD), [("grpc-timeout", "soon")]).get("grpc-status") != OK
    with Http2(server.grpc) as caller:
        assert caller.call(frame(GOOD), [("grpc-timeout", "10S")])["grpc-status"] == OK


def test_who_may_not_call_cannot_send_much(trained: Path, transport: str, tmp_path: Path) -> None:
    """Twenty large messages at once without a token: UNAUTHENTICATED, before they are in memory."""
    tokens.add(tmp_path / "tokens", "alice", admin=False)
    flags = "--transport", transport, "--tokens", str(tmp_path / "tokens")
    with ServerProcess(trained.parents[1], tmp_path, *flags) as server, ExitStack() as stack:
        before = _reset_peak(server)
        callers = [stack.enter_context(Http2(server.grpc)) for _ in range(20)]
        streams = [caller.open() for caller in callers]
        for caller, stream in zip(callers, streams, strict=True):
            _send(caller, stream, frame(bytes(60 * MIB)))
        for caller, stream in zip(callers, streams, strict=True):
            ended = caller.ends(stream)
            assert ended.get("grpc-status") == UNAUTHENTICATED or "reset" in ended
        assert grown_mib(server, before) < 2 * SLACK_MIB
        assert server.stop() == 0


@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
def test_a_refused_message_is_let_go_of(trained: Path, transport: str, tmp_path: Path, method: str) -> None:
    """Thirty messages of 16 MiB, one after the other, from a caller with a token: each is gone once it was refused."""
    token = tokens.add(tmp_path / "tokens", "alice", admin=False)
    flags = "--transport", transport, "--tokens", str(tmp_path / "tokens"), "--max-client-bytes", "15MiB"
    with (
        ServerProcess(trained.parents[1], tmp_path, *flags) as server,
        grpc.insecure_channel(server.grpc, [("grpc.max_send_message_length", -1)]) as channel,
    ):
        call: grpc.StreamStreamMultiCallable[bytes, bytes]
        call = channel.stream_stream(MODEL_INFER.replace("ModelInfer", method))
        before = _reset_peak(server)
        for _ in range(30):
            with pytest.raises(grpc.RpcError) as refused:
                list(call(iter([bytes(16 * MIB)]), timeout=20, metadata=(("authorization", f"Bearer {token}"),)))
            assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert grown_mib(server, before) < 10 * 16  # of 30
        assert server.stop() == 0


# --- helpers ------------------------------------------------------------------------------------------


def _good(server: ServerProcess) -> bool:
    with grpc.insecure_channel(server.grpc) as channel:
        infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(MODEL_INFER)
        try:
            return bool(infer(GOOD, timeout=10, wait_for_ready=True))
        except grpc.RpcError:
            return False


def _send(caller: Http2, stream: int, data: bytes) -> None:
    with suppress(OSError):  # the connection is closed meanwhile
        caller.send(stream, data)


def _answered(caller: Http2) -> bool:
    try:
        return caller.call(frame(GOOD)).get("grpc-status") == OK
    except OSError:
        return False


def _in_flight(server: ServerProcess) -> float:
    with urllib.request.urlopen(f"{server.http}/metrics", timeout=10) as response:
        families = text_string_to_metric_families(response.read().decode())
        return next(family.samples[0].value for family in families if family.name == "horngate_requests_in_flight")


def _reset_peak(server: ServerProcess) -> int:
    """Forget the peak so far; return the memory now, in KiB."""
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")
    return _peak(server)


def _peak(server: ServerProcess) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])
