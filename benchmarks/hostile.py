"""Hostile callers, each alone: what it makes of the server's memory, and of the longest wait of others.

PYTHONPATH=tests python benchmarks/hostile.py --all [--only NAME,...] [--transport fast,grpcio] [--models DIR]

A server with its default limits, tokens and --admin, in a control group of 3 GB where one can be made, is called by one
hostile caller, by a good one, and by a probe of /livez. Prints a row of Markdown for each caller: how much more memory
was resident at most than before, the longest wait of the good caller, and that of the probe.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Self

from address import Address
from callers import Callers, Calls
from havoc import OTHERS, prepared
from hostile_callers import HOSTILE, Stop, images
from memory_limit import limited
from serving_process import Server, status_mb

from horngate_server.transports.access.tokens import add

LAST_WORDS_S = 3.0
"""How long a caller that was told to stop gets to say what it was told."""
MOST_BYTES = 3_000_000_000
SECONDS = {"full queue": 40.0, "unfinished watch": 20.0, "slow posts": 20.0, "unread answers": 20.0}
USUAL_S = 10.0
PROBE_S = 0.02
"""From one probe to the next."""
BOUNDS = {
    "full queue": "`--queue-rows`, and `--max-request-bytes` (1 GiB) for what is on its way",
    "large refused": "who calls is asked first; a refusal keeps nothing of its request",
    "announced": "health takes 4 KiB a message",
    "unfinished watch": "health takes 4 KiB a message",
    "empty inputs": "1,024 fields are looked at",
    "small fields": "1,024 fields are looked at",
    "json objects": "2^20 values, read in steps, one large body at a time",
    "rapid reset": "fast: half of 4,000 calls must be completed; grpcio: 256 streams of a connection, 768 cancelled",
    "hpack references": "fast: 60 KiB and 100 headers; grpcio: 16 KiB, once limits are acknowledged",
    "slow posts": "256 connections, 192 of them with bodies, 1 KiB a second",
    "host bypass": "the path that was routed by is the one that is let in",
    "nul path": "a call's error is its own",
    "unread answers": "the deadline, and `--max-request-bytes`",
    "zero axis": "the shape is read before anything is made of it",
    "bad id": "a batch that fails is tried in halves",
}
"""What holds each of them."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a hostile caller did.

    Attributes:
        grown_mb: the most resident memory, less what there was before.
        good_ms: the longest call of the good caller.
        probe_ms: the longest probe.
        failed: the good caller's calls that failed, by code, and probes.
        told: what the hostile one heard.
        ended: the exit code of a server that did not survive it.
    """

    grown_mb: float
    good_ms: float
    probe_ms: float
    failed: dict[str, int]
    told: Counter[str]
    ended: int | None

    def __str__(self) -> str:
        if self.ended is not None:
            return f"ended with {self.ended}"
        failed = "".join(f", {code} {count}" for code, count in self.failed.items())
        return f"{self.grown_mb:+.0f} MB, {self.good_ms:.0f} ms, {self.probe_ms:.0f} ms{failed}"


def attack(name: str, address: Address, seconds: float, stop: Stop) -> Counter[str]:
    """Let a hostile caller do its worst, again and again, in a process of its own; return what it was told.

    It ends after so many seconds, or when this is to stop, in the midst of a call if need be.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    its_stop = context.Event()
    process = context.Process(target=_attack, args=(name, address, its_stop, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        ours.recv()
        stop.wait(seconds)
        its_stop.set()
        if ours.poll(LAST_WORDS_S):
            told: Counter[str] = ours.recv()
            return told
        return Counter({"no answer yet": 1})
    except EOFError:
        return Counter({"the caller failed": 1})
    finally:
        process.kill()
        process.join()


def measure(name: str, transport: str, models: Path, scratch: Path) -> Figures:
    """Start a server, and let a hostile caller do its worst beside a good one."""
    tokens = scratch / "tokens"
    tokens.unlink(missing_ok=True)
    token, admin = (add(tokens, each, admin=each == "admin") for each in ("caller", "admin"))
    flags = ["--transport", transport, "--tokens", str(tokens), "--admin"]
    with (
        limited(f"horngate-hostile-{os.getpid()}", MOST_BYTES) as before,
        Server(models, *flags, before=before) as server,
        Callers() as good,
    ):
        pid, seconds = server.process.pid, SECONDS.get(name, USUAL_S)
        address = Address(server.grpc, server.http.removeprefix("http://"), token=token, admin=admin)
        calls = Calls(server.grpc, images(1), 1, 0.005, metadata=address.metadata)
        good.call(calls, 1.0)
        Path(f"/proc/{pid}/clear_refs").write_text("5")
        resident = status_mb(pid, "VmRSS")
        with _Probe(server.http) as probe:
            good.start(calls, seconds + 2 * LAST_WORDS_S)
            told = attack(name, address, seconds, threading.Event())
            seen = good.result()
        if server.process.poll() is not None:
            return Figures(0, 0, 0, {}, told, server.process.returncode)
        failed = {code: count for code, count in seen.codes.items() if code != "OK"}
        failed |= {what: count for what, count in (("WRONG", seen.wrong), ("/livez", probe.failed)) if count}
        return Figures(status_mb(pid, "VmHWM") - resident, seen.ms(1.0), probe.longest_s * 1e3, failed, told, None)


def main() -> int:
    """Measure, and print a table; 1 if a server did not survive, or a good caller got a wrong answer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--all", action="store_true", help=f"all of them: {', '.join(HOSTILE)}")
    chosen.add_argument("--only", default="", metavar="NAME,...")
    parser.add_argument("--transport", default="fast,grpcio")
    parser.add_argument("--models", type=Path, help="keep the models here (default: in a temporary folder)")
    asked = parser.parse_args()
    names = list(HOSTILE) if asked.all else asked.only.split(",")
    transports = asked.transport.split(",")
    survived = True
    print(f"| way to fill memory or hold the loop | its bound | {' | '.join(transports)} |")
    print(f"| --- | --- |{' --- |' * len(transports)}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        models, root = asked.models or Path(scratch), Path(scratch, "root")
        [mnist] = prepared(models, 1)
        root.mkdir()
        for model in (mnist.parent, *(models / "others" / name for name in OTHERS)):
            (root / model.name).symlink_to(model.resolve())
        for name in names:
            figures = [measure(name, each, root, Path(scratch)) for each in transports]
            print(f"| {name} | {BOUNDS[name]} | {' | '.join(map(str, figures))} |", flush=True)
            for transport, each in zip(transports, figures, strict=True):
                heard = ", ".join(f"{what} {count}" for what, count in sorted(each.told.items()))
                print(f"{transport}: {name} heard {heard}", file=sys.stderr, flush=True)
                survived &= each.ended is None and "WRONG" not in each.failed
    return 0 if survived else 1


# --- private ------------------------------------------------------------------------------------------


class _Probe:
    """Asks /livez again and again."""

    def __init__(self, http: str) -> None:
        self._url = f"{http}/livez"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.longest_s = 0.0
        self.failed = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._stop.wait(PROBE_S):
            began = time.perf_counter()
            try:
                urllib.request.urlopen(self._url, timeout=60).close()
            except OSError:
                self.failed += 1
            self.longest_s = max(self.longest_s, time.perf_counter() - began)


def _attack(name: str, address: Address, stop: Event, line: Connection) -> None:
    line.send("started")
    told: Counter[str] = Counter()
    while not stop.is_set():
        try:
            told += HOSTILE[name](address, stop)
        except OSError as error:
            told[type(error).__name__] += 1
            stop.wait(0.1)
    line.send(told)


if __name__ == "__main__":
    sys.exit(main())
