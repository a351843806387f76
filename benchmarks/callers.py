"""Callers in a process of their own, so that they do not hold each other up more than the machine does."""

import asyncio
import itertools
import multiprocessing
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Self

import grpc
from comparing import same

from horngate_protos.open_inference_pb2 import ModelInferRequest, ModelInferResponse

INFER = "/inference.GRPCInferenceService/ModelInfer"
TIMEOUT_S = 60.0
START_S = 60.0


@dataclass(frozen=True, slots=True)
class Calls:
    """What to send.

    Attributes:
        target: host:port.
        body: a ModelInferRequest.
        callers: how many call at once, each with one call after the other.
        pause_s: from an answer to the next call.
        checked: every so many answers, one is held against the first to its body (its first output, float32); 0 for
            none.
        metadata: of each call.
        others: bodies that are sent too, in turn with the first one.
    """

    target: str
    body: bytes
    callers: int
    pause_s: float = 0.0
    checked: int = 1
    metadata: tuple[tuple[str, str], ...] = ()
    others: tuple[bytes, ...] = ()


@dataclass(slots=True)
class Seen:
    """What came back.

    Attributes:
        codes: calls by gRPC status.
        messages: one message for each status but OK.
        wrong: answers that differ from the first.
        took: seconds of each call.
        seconds: from the first call to the last answer.
    """

    codes: Counter[str] = field(default_factory=Counter)
    messages: dict[str, str] = field(default_factory=dict)
    wrong: int = 0
    took: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def per_second(self) -> float:
        """Answered calls."""
        return self.codes["OK"] / self.seconds

    def ms(self, share: float) -> float:
        """Return the milliseconds that this share of the calls did not exceed."""
        return sorted(self.took)[int(share * (len(self.took) - 1))] * 1000

    @property
    def median_ms(self) -> float:
        """Half of the calls took no longer."""
        return statistics.median(self.took) * 1000


class Callers:
    """A process that calls, again and again, when it is told to."""

    def __enter__(self) -> Self:
        context = multiprocessing.get_context("spawn")
        self._mine, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        if not self._mine.poll(START_S):
            raise SystemExit("the callers did not start")
        self._mine.recv()
        return self

    def __exit__(self, *_: object) -> None:
        self._mine.close()
        self._process.join()

    def start(self, calls: Calls, seconds: float) -> None:
        """Begin to call for so long."""
        self._mine.send((calls, seconds))

    def result(self) -> Seen:
        """Wait for the end."""
        seen = self._mine.recv()
        assert isinstance(seen, Seen)
        return seen

    def call(self, calls: Calls, seconds: float) -> Seen:
        """Call for so long."""
        self.start(calls, seconds)
        return self.result()


def infer_body(model: str, name: str, datatype: str, shape: tuple[int, ...], content: bytes | None) -> bytes:
    """Write a request with one input; without any content where there is None."""
    request = ModelInferRequest(model_name=model)
    request.inputs.add(name=name, datatype=datatype, shape=shape)
    if content is not None:
        request.raw_input_contents.append(content)
    return request.SerializeToString()


# --- private ------------------------------------------------------------------------------------------


def _serve(line: Connection) -> None:
    line.send("ready")
    while True:
        try:
            calls, seconds = line.recv()
        except EOFError:
            return
        line.send(asyncio.run(_call(calls, seconds)))


async def _call(calls: Calls, seconds: float) -> Seen:
    seen = Seen()
    sizes = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(calls.target, options=sizes) as channel:
        infer: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(INFER)
        await channel.channel_ready()
        bodies = (calls.body, *calls.others)
        firsts = [
            _output(await infer(body, timeout=TIMEOUT_S, metadata=calls.metadata)) if calls.checked else b""
            for body in bodies
        ]
        turns = itertools.cycle(zip(bodies, firsts, strict=True))
        began = time.perf_counter()

        async def caller() -> None:
            while (sent := time.perf_counter()) < began + seconds:
                body, first = next(turns)
                try:
                    answer = await infer(body, timeout=TIMEOUT_S, metadata=calls.metadata)
                except grpc.aio.AioRpcError as error:
                    code = error.code().name
                    seen.messages.setdefault(code, error.details() or "")
                else:
                    code = "OK"
                    if calls.checked and seen.codes[code] % calls.checked == 0:
                        seen.wrong += not same(_output(answer), first)
                seen.took.append(time.perf_counter() - sent)
                seen.codes[code] += 1
                if calls.pause_s:
                    await asyncio.sleep(calls.pause_s)

        await asyncio.gather(*(caller() for _ in range(calls.callers)))
        seen.seconds = time.perf_counter() - began
    return seen


def _output(answer: bytes) -> bytes:
    return ModelInferResponse.FromString(answer).raw_output_contents[0]
