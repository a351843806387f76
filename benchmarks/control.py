"""Control callers: their answers are known beforehand, and each of their calls has exactly one outcome, in time.

Plain grpcio, Horngate's client with its retries, and a liveness probe call side by side, in a process of their own.
"""

import multiprocessing
import random
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTime
from dataclasses import dataclass, field
from itertools import cycle
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Self

import grpc
import numpy as np
from address import INFER, Address, code_of
from callers import infer_body
from comparing import same

from horngate_client import Client, HorngateError, TlsConfig
from horngate_protos.open_inference_pb2 import ModelInferResponse

DATA = Path(__file__).parents[1] / "trainer/horngate_trainer/data/mnist.npz"
ROWS = (1, 4, 64)
"""Images in a request."""
PROBABILITIES = 1
"""Their place among the outputs: two models may agree on a few classes, not on ten probabilities an image."""
CALLERS = 3
"""Of each kind."""
PAUSE_S = 0.01
DEADLINES_S = {"grpcio": 10.0, "horngate_client": 30.0, "/livez": 10.0}
MARGIN_S = 5.0
"""A call that has no outcome so long after its deadline is lost."""
START_S = 60.0
Truth = dict[int, bytes]
"""By a version's number modulo 2: the probabilities of as many images as the largest request has."""


@dataclass(slots=True)
class Outcomes:
    """What became of a kind's calls.

    Attributes:
        codes: calls by outcome; "WRONG" and "LOST" are two of them.
        took: seconds of each.
        said: a message for each outcome that has one.
    """

    codes: Counter[str] = field(default_factory=Counter)
    took: list[float] = field(default_factory=list)
    said: dict[str, str] = field(default_factory=dict)

    @property
    def calls(self) -> int:
        """All of them."""
        return sum(self.codes.values())

    @property
    def failed(self) -> dict[str, int]:
        """Those that ended with an error, by code."""
        return {code: count for code, count in sorted(self.codes.items()) if code not in {"OK", "WRONG", "LOST"}}

    def ms(self, percentile: int) -> float:
        """Return the milliseconds that so many of a hundred calls did not exceed; 100 is the longest."""
        took = sorted(self.took)
        return took[min(len(took) - 1, len(took) * percentile // 100)] * 1e3 if took else 0.0


class Control:
    """The process, from entering the block until `result`."""

    def __init__(self, address: Address, ca: Path, truth: Truth) -> None:
        context = multiprocessing.get_context("spawn")
        self._mine, theirs = context.Pipe()
        self._stop = context.Event()
        self._process = context.Process(target=_serve, args=(address, ca, truth, self._stop, theirs), daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        if not self._mine.poll(START_S):
            raise SystemExit("the control callers did not start")
        self._mine.recv()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    def result(self) -> dict[str, Outcomes]:
        """Let them finish; return each kind's outcomes."""
        self._stop.set()
        if not self._mine.poll(max(DEADLINES_S.values()) + MARGIN_S + START_S):
            raise SystemExit("the control callers do not end")
        outcomes: dict[str, Outcomes] = self._mine.recv()
        return outcomes


def truth_of(address: Address) -> Truth:
    """Ask the version that serves now for its answers."""
    with address.channel() as channel:
        infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(INFER)
        version, probabilities = _probabilities(infer(_body(test_images()), timeout=30.0, metadata=address.metadata))
    return {int(version) % 2: probabilities}


def test_images() -> np.ndarray:
    """Return MNIST's."""
    with np.load(DATA) as data:
        images: np.ndarray = data["x_test"][: max(ROWS)]
    return images


# --- private ------------------------------------------------------------------------------------------

Call = Callable[[int], str]
"""Makes a call with so many rows; returns OK, WRONG, or a code and what was said."""


def _serve(address: Address, ca: Path, truth: Truth, stop: Event, line: Connection) -> None:
    images = test_images()
    outcomes = {kind: Outcomes() for kind in DEADLINES_S}
    # Lost calls keep their thread: there are enough for many.
    with (
        address.channel() as channel,
        Client(address.grpc, tls=TlsConfig(ca=ca), token=address.token) as client,
        ThreadPoolExecutor(256) as pool,
    ):
        calls: dict[str, Call] = {
            "grpcio": _plain(address, channel, images, truth),
            "horngate_client": _ours(client, images, truth),
            "/livez": _probe(address),
        }
        threads = [
            threading.Thread(target=_repeat, args=(call, DEADLINES_S[kind] + MARGIN_S, outcomes[kind], pool, stop))
            for kind, call in calls.items()
            for _ in range(1 if kind == "/livez" else CALLERS)
        ]
        for thread in threads:
            thread.start()
        line.send("started")
        for thread in threads:
            thread.join()
        line.send(outcomes)


def _repeat(call: Call, within_s: float, outcomes: Outcomes, pool: ThreadPoolExecutor, stop: Event) -> None:
    sizes = cycle(random.sample(ROWS, len(ROWS)))
    while not stop.wait(PAUSE_S):
        began = time.monotonic()
        try:
            outcome, _, said = pool.submit(call, next(sizes)).result(within_s).partition(": ")
        except NotInTime:
            outcome, said = "LOST", ""
        outcomes.took.append(time.monotonic() - began)
        outcomes.codes[outcome] += 1
        outcomes.said.setdefault(outcome, said)


def _plain(address: Address, channel: grpc.Channel, images: np.ndarray, truth: Truth) -> Call:
    infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(INFER)
    bodies = {rows: _body(images[:rows]) for rows in ROWS}

    def call(rows: int) -> str:
        try:
            answer = infer(bodies[rows], timeout=DEADLINES_S["grpcio"], metadata=address.metadata)
        except grpc.RpcError as error:
            return f"{code_of(error)}: {error}"
        version, probabilities = _probabilities(answer)
        return _judged(version, probabilities, truth, rows)

    return call


def _ours(client: Client, images: np.ndarray, truth: Truth) -> Call:
    def call(rows: int) -> str:
        try:
            prediction = client.predict(images[:rows], timeout=DEADLINES_S["horngate_client"])
        except HorngateError as error:
            return f"{type(error).__name__}: {error}"
        return _judged(prediction.version, prediction.probabilities.astype(np.float32).tobytes(), truth, rows)

    return call


def _probe(address: Address) -> Call:
    def call(_rows: int) -> str:
        try:
            with urllib.request.urlopen(f"http://{address.http}/livez", timeout=DEADLINES_S["/livez"]) as response:
                return "OK" if response.status == 200 else str(response.status)
        except OSError as error:
            return f"{type(error).__name__}: {error}"

    return call


def _judged(version: str, probabilities: bytes, truth: Truth, rows: int) -> str:
    expected = truth[int(version) % 2]
    if same(probabilities, expected[: len(expected) // max(ROWS) * rows]):
        return "OK"
    return f"WRONG: {rows} rows by version {version}"


def _body(images: np.ndarray) -> bytes:
    return infer_body("mnist", "images", "UINT8", images.shape, images.tobytes())


def _probabilities(answer: bytes) -> tuple[str, bytes]:
    message = ModelInferResponse.FromString(answer)
    return message.model_version, message.raw_output_contents[PROBABILITIES]


def table(outcomes: dict[str, Outcomes]) -> Sequence[str]:
    """Return a line for each kind, under a head."""
    lines = [f"{'':16}{'calls':>8}{'wrong':>7}{'lost':>6}{'p50':>8}{'p99':>8}{'max':>9} ms  failed"]
    for kind, each in outcomes.items():
        times = f"{each.ms(50):8.1f}{each.ms(99):8.1f}{each.ms(100):9.1f}"
        failed = ", ".join(f"{code} {count}" for code, count in each.failed.items()) or "none"
        lines.append(f"{kind:16}{each.calls:8}{each.codes['WRONG']:7}{each.codes['LOST']:6}{times}     {failed}")
    return lines
