"""Fuzzes a running server: mutated messages over real sockets, real digits in between.

    python tests/fuzz/over_the_wire.py --models models [--transport fast] [--messages 200000] [--seed 1]

Fails when the server stops answering rightly, ends, answers INTERNAL to any message, logs an error, or grows.
"""

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from pathlib import Path
from random import Random

import grpc
import numpy as np

from fuzz.mutations import mutate
from fuzz.seeds import odd_seeds, seeds
from horngate_client import AsyncClient
from horngate_server.core import methods
from support.process import ServerProcess

IMAGES = Path(__file__).parents[2] / "trainer/horngate_trainer/data/mnist.npz"
METHODS = {
    "infer": methods.INFER,
    "predict": f"/{methods.PREDICTION}/Predict",
    "classify": f"/{methods.PREDICTION}/Classify",
    "regress": f"/{methods.PREDICTION}/Regress",
}
OUR_FAULT = {"INTERNAL", "UNKNOWN", "UNAVAILABLE", "DATA_LOSS", "ABORTED"}
"""Codes that no message may bring about."""
IN_FLIGHT = 64
LOOK_EVERY = 2000
"""Messages between two looks at whether digits are still read rightly."""
GROWTH_BYTES = 64 << 20
DEADLINE_S = 20.0
"""Far more than any answer takes: a message that is not answered by then hangs."""


async def fuzz(address: str, messages: int, seed: int) -> Counter[tuple[str, str]]:
    """Send so many mutated messages; return how often each method ended with each code."""
    random = Random(seed)
    with np.load(IMAGES) as data:
        images = data["x_test"][:8]
    valid = seeds("mnist", "images", images[:1])
    odd = odd_seeds("mnist", "mnist", "mnist", "mnist")
    valid = {method: valid[method] + odd[method] for method in valid}
    codes: Counter[tuple[str, str]] = Counter()
    room = asyncio.Semaphore(IN_FLIGHT)
    async with grpc.aio.insecure_channel(address) as channel, AsyncClient(address) as client:
        calls: dict[str, grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = {
            method: channel.unary_unary(path) for method, path in METHODS.items()
        }
        stream: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(methods.STREAM_INFER)
        expected = (await client.predict(images)).probabilities

        async def send(method: str, message: bytes) -> None:
            call = calls[method](message, timeout=DEADLINE_S)
            code = (await call.code()).name
            details = await call.details() or ""
            room.release()
            assert code not in OUR_FAULT, (code, details, method, message.hex())
            assert code != "DEADLINE_EXCEEDED" or "cannot be met" in details or "passed" in details, message.hex()
            codes[method, code] += 1

        async def send_stream(several: list[bytes]) -> None:
            answers = 0
            async for _ in stream(iter(several), timeout=DEADLINE_S):
                answers += 1
            assert answers == len(several)
            codes["stream", "OK"] += answers

        async with asyncio.TaskGroup() as tasks:
            for number in range(messages):
                if number % LOOK_EVERY == 0:
                    assert np.allclose((await client.predict(images)).probabilities, expected, atol=1e-5)
                    several = [mutate(random.choice(valid["infer"]), random, valid["infer"]) for _ in range(20)]
                    await send_stream(several)
                method = random.choice(list(METHODS))
                await room.acquire()
                tasks.create_task(send(method, mutate(random.choice(valid[method]), random, valid[method])))
        assert np.allclose((await client.predict(images)).probabilities, expected, atol=1e-5)
    return codes


def memory(process: int) -> int:
    """Return a process's resident bytes."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def main() -> int:
    """Start a server, fuzz it, and look at what is left of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--transport", default="auto", choices=["auto", "fast", "grpcio"])
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as scratch,
        ServerProcess(asked.models, Path(scratch), "--transport", asked.transport) as server,
    ):
        codes = asyncio.run(fuzz(server.grpc, asked.messages // 10, asked.seed))  # what grows at first and then stays
        before = memory(server.process.pid)
        codes += asyncio.run(fuzz(server.grpc, asked.messages - asked.messages // 10, asked.seed + 1))
        grown = memory(server.process.pid) - before
        assert server.stop() == 0
    for (method, code), count in sorted(codes.items()):
        print(f"{method:10} {code:20} {count:8}")
    print(f"{codes.total()} messages; the server grew by {grown / 1e6:.1f} MB after the first tenth")
    errors = [line for line in server.log if " error " in line]
    assert not errors, errors[:3]
    assert grown < GROWTH_BYTES, grown
    return 0


if __name__ == "__main__":
    sys.exit(main())
