"""Shut-downs at random moments: each ends within its grace period and two seconds, and its exit code tells the truth.

PYTHONPATH=tests python benchmarks/shutdowns.py [--count 40] [--seed 1] [--models DIR]

While loading, under load, with a model that does not return, with a disk that does not answer; on both transports, with
one process and with two workers. SIGTERM comes at a moment that the seed decides. 0 must mean that every call that was
accepted was answered: as many answers were heard as the server's access log has, and otherwise only refusals.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import grpc
import numpy as np
from address import INFER, code_of
from callers import infer_body
from serving_process import trained

from support.process import ServerProcess

GRACE_S = 1.0
IN_TIME_S = GRACE_S + 2.0
ENDED_S = 60.0
LOADING_S = 3.0
"""A server is ready some time around this."""
CALLERS = 8
REFUSED = frozenset({"UNAVAILABLE", "RESOURCE_EXHAUSTED"})
"""What a call may hear that was not accepted."""
UNANSWERED = ("the grace period ended", "did not end within the grace period", "stopped by force")
"""What a server says that exits with 1."""
MODEL = "loop_by_values"
HUNG = infer_body(MODEL, "x", "FP32", (1, 4), np.full((1, 4), np.inf, np.float32).tobytes())
IMAGES = infer_body("mnist", "images", "UINT8", (16, 28, 28), bytes(16 * 784))


@dataclass(frozen=True, slots=True)
class Ended:
    """How a server ended.

    Attributes:
        seconds: after SIGTERM.
        code: its exit code.
        told: what callers heard, by code.
        log: its lines.
    """

    seconds: float
    code: int
    told: Counter[str]
    log: list[str]


def while_loading(server: ServerProcess, dice: random.Random) -> Ended:
    """Stop it before, while or just after its models load; nobody calls."""
    time.sleep(dice.uniform(0, LOADING_S))
    return _stopped(server, Counter())


def under_load(server: ServerProcess, dice: random.Random) -> Ended:
    """Stop it while eight callers call."""
    return _called(server, IMAGES, dice.uniform(0.2, 2.0))


def hung_model(server: ServerProcess, dice: random.Random) -> Ended:
    """Stop it while its model does not return: its callers, and who waits behind, cannot be answered."""
    return _called(server, HUNG, dice.uniform(0.5, 1.5))


MOMENTS: dict[str, Callable[[ServerProcess, random.Random], Ended]] = {
    "while loading": while_loading,
    "under load": under_load,
    "hung model": hung_model,
    "hung disk": while_loading,
}


def judged(moment: str, ended: Ended) -> str:
    """Say what is wrong with an end; empty where nothing is."""
    if ended.code == -signal.SIGTERM and not ended.log:  # Python itself had not begun: nothing was accepted, nor said
        return ""
    failed = {code: count for code, count in ended.told.items() if code not in {"OK", *REFUSED}}
    answered = sum("request client=" in line and "code=OK" in line for line in ended.log)
    said = any(reason in line for line in ended.log for reason in UNANSWERED)
    wrong = {
        f"it took {ended.seconds:.1f} s, expected at most {IN_TIME_S:g}": ended.seconds > IN_TIME_S,
        f"callers heard {failed}": bool(failed),
        f"exit code {ended.code}": ended.code not in {0, 1} or (moment == "hung model" and ended.code == 0),
        f"exit code {ended.code}, and another story in the log": bool(ended.code) != said,
        f"{answered} answers by the server's log, and {ended.told['OK']} by the callers'": answered != ended.told["OK"],
    }
    return "; ".join(sentence for sentence, is_so in wrong.items() if is_so)


def main() -> int:
    """Shut down so often; 1 if one was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--models", type=Path, help="a model root with mnist; one is trained where none is given")
    asked = parser.parse_args()
    every = list(product(MOMENTS, ("fast", "grpcio"), ("1", "2")))
    wrong = 0
    with tempfile.TemporaryDirectory() as scratch, trained(asked.models) as models:
        roots = _roots(Path(scratch), models)
        for number in range(asked.count):
            moment, transport, workers = every[number % len(every)]
            dice = random.Random(f"{asked.seed} {number}")
            flags = ["--transport", transport, "--workers", workers, "--grace-period", f"{GRACE_S:g}s"]
            flags += ["--access-log", "1"]
            with _server(roots[moment], Path(scratch), *flags, wait=moment in {"under load", "hung model"}) as server:
                ended = MOMENTS[moment](server, dice)
            said = judged(moment, ended)
            wrong += bool(said)
            heard = ", ".join(f"{code} {count}" for code, count in sorted(ended.told.items()))
            print(
                f"{number + 1:3} {moment:14}{transport:7} {workers} workers {ended.seconds:5.1f} s, code {ended.code}"
                f"  {heard or '-':40} {f'WRONG: {said}' if said else 'right'}",
                flush=True,
            )
            if said:
                print("\n".join(ended.log[-20:]), flush=True)
    print(f"{asked.count} shut-downs, {wrong} wrong")
    return 1 if wrong else 0


# --- private ------------------------------------------------------------------------------------------


def _roots(scratch: Path, models: Path) -> dict[str, Path]:
    """Make a model root for each moment."""
    endless, hung = scratch / "endless", scratch / "hung"
    command = [sys.executable, "-m", "support.any_models", str(endless), MODEL]
    subprocess.run(command, check=True, capture_output=True, timeout=100)
    (endless / f"{MODEL}.json").unlink(missing_ok=True)
    index = hung / "mnist/1/variables/variables.index"
    shutil.copytree(models / "mnist/1", hung / "mnist/1")
    index.unlink()
    os.mkfifo(index)
    return {"while loading": models, "under load": models, "hung model": endless, "hung disk": hung}


@contextmanager
def _server(models: Path, scratch: Path, *flags: str, wait: bool) -> Iterator[ServerProcess]:
    """Start a server; wait for it to be ready where that is asked for."""
    server = ServerProcess(models, scratch, *flags)
    try:
        yield server.__enter__() if wait else server
    finally:
        server.__exit__()


def _called(server: ServerProcess, body: bytes, seconds: float) -> Ended:
    """Call for so long, and stop the server meanwhile; callers go on until it has ended."""
    over = threading.Event()
    with ThreadPoolExecutor(CALLERS) as threads:
        calling = [threads.submit(_call, server.grpc, body, over) for _ in range(CALLERS)]
        time.sleep(seconds)
        ended = _stopped(server, Counter())
        over.set()
        for each in calling:
            ended.told.update(each.result())
    return ended


def _call(target: str, body: bytes, over: threading.Event) -> Counter[str]:
    told: Counter[str] = Counter()
    with grpc.insecure_channel(target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(INFER)
        while not over.is_set():
            try:
                infer(body, timeout=ENDED_S)
                told["OK"] += 1
            except grpc.RpcError as error:
                told[code_of(error)] += 1
                over.wait(0.02)
    return told


def _stopped(server: ServerProcess, told: Counter[str]) -> Ended:
    began = time.monotonic()
    code = server.stop()
    return Ended(time.monotonic() - began, code, told, server.log)


if __name__ == "__main__":
    sys.exit(main())
