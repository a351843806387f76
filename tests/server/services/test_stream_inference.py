"""Requests in a stream, and their answers."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np

from horngate_protos.open_inference_pb2 import ModelInferRequest, ModelStreamInferResponse
from horngate_server.core.request_context import RequestContext
from horngate_server.core.rpc import Call, CallOptions
from horngate_server.services.stream_inference import WINDOW, model_stream_infer
from horngate_server.transports.call_collector import CallCollector
from support.in_process import OPTIONS, InProcessServer, request


class Stream:
    """A ModelStreamInfer at a server, without a wire."""

    def __init__(self, server: InProcessServer) -> None:
        self.method = model_stream_infer(CallCollector(server.service.accept).take)
        self.pulled = 0

    async def run(self, messages: list[bytes]) -> list[ModelStreamInferResponse]:
        async def incoming() -> AsyncIterator[bytes]:
            for message in messages:
                self.pulled += 1
                yield message

        return [ModelStreamInferResponse.FromString(answer) async for answer in self.method(incoming(), OPTIONS)]


def test_a_streams_answers_come_in_order_and_errors_in_their_place() -> None:
    """Whatever is wrong with a request is said where its answer would be, with its id; the others are computed."""
    with InProcessServer(max_batch_rows=4, queue_rows=400) as server:
        messages = []
        for n in range(300):
            x = np.full((1, 3 if n % 7 == 3 else 2), n, np.int32)
            messages.append(request({"x": x}, id=str(n)).SerializeToString())
        messages[5] = b"\xff"
        answers = asyncio.run(Stream(server).run(messages))
    assert len(answers) == 300
    for n, answer in enumerate(answers):
        if n == 5 or n % 7 == 3:
            assert answer.error_message.startswith("[StatusCode.INVALID_ARGUMENT] ")
            assert answer.infer_response.id == ("" if n == 5 else str(n))
            assert not answer.infer_response.outputs
        else:
            assert answer.infer_response.id == str(n)
            values = np.frombuffer(answer.infer_response.raw_output_contents[0], np.int64)
            assert values.tolist() == [2 * n, 2 * n]


def test_a_refused_message_of_a_stream_is_not_parsed_for_its_id() -> None:
    """Its id is said where it is among the first fields; millions of others never become objects."""
    message = ModelInferRequest(id="7").SerializeToString() + b"\x2a\0" * (2 << 20)
    with InProcessServer() as server:
        Path("/proc/self/clear_refs").write_text("5")
        before = _peak_bytes()
        [answer] = asyncio.run(Stream(server).run([message]))
        grown = _peak_bytes() - before
    assert answer.error_message.startswith("[StatusCode.INVALID_ARGUMENT] ")
    assert answer.infer_response.id == "7"
    assert grown < 64 << 20


def _peak_bytes() -> int:
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) << 10


def test_what_a_streams_metadata_say_holds_for_each_of_its_messages() -> None:
    """Deadline and priority are every message's; who is told about is decided anew for each."""
    told = [RequestContext("a", "id", "", "", traced=False, logged=True), None]

    async def run() -> list[Call]:
        taken: list[Call] = []

        async def two() -> AsyncIterator[bytes]:
            yield b"first"
            yield b"second"

        stream = model_stream_infer(CallCollector(taken.extend).take)(
            two(), CallOptions(7.0, True, iter(told).__next__)
        )
        first = asyncio.ensure_future(anext(stream))
        for _ in range(20):
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        return taken

    calls = asyncio.run(run())
    assert [(call.message, call.deadline, call.bulk) for call in calls] == [(b"first", 7, True), (b"second", 7, True)]
    assert [call.origin for call in calls] == told


def test_a_stream_takes_no_more_requests_than_its_window_while_nothing_is_answered() -> None:
    """What cannot be worked on yet is left to flow control; when the caller goes, nobody waits for the rest."""

    async def run() -> tuple[int, list[bool]]:
        taken: list[Call] = []
        method = model_stream_infer(CallCollector(taken.extend).take)
        pulled = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal pulled
            while True:
                pulled += 1
                yield request({"x": np.ones((1, 2), np.int32)}).SerializeToString()

        stream = method(endless(), OPTIONS)
        first = asyncio.ensure_future(anext(stream))
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(taken) >= WINDOW
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await stream.aclose()  # type: ignore[attr-defined]
        return pulled, [call.reply.done() for call in taken]

    pulled, done = asyncio.run(run())
    assert pulled <= WINDOW + 2
    assert all(done)
