"""Load from h2load, and the proof that every answer was a whole one."""

import re
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Load:
    """What to send, and how.

    Attributes:
        url: where to.
        body: of every request, as it goes over the wire.
        answer_bytes: of every right answer's body; None where it varies.
        connections: how many.
        in_flight: requests at a time on each.
        headers: name: value.
        http1: HTTP/1.1, where the server has nothing better.
    """

    url: str
    body: bytes
    answer_bytes: int | None
    connections: int
    in_flight: int
    headers: Sequence[str] = ("content-type: application/grpc", "te: trailers")
    http1: bool = False


@dataclass(frozen=True, slots=True)
class Answers:
    """What came back.

    Attributes:
        per_second: answers.
        p50_ms: half of them took no longer.
        p99_ms: 99 of 100 took no longer.
    """

    per_second: float
    p50_ms: float
    p99_ms: float


def start(load: Load, seconds: float, scratch: Path) -> "Running":
    """Begin to send."""
    if shutil.which("h2load") is None:
        raise SystemExit("h2load is needed: apt-get install nghttp2-client")
    body = scratch / "body"
    body.write_bytes(load.body)
    log = scratch / "log"
    log.unlink(missing_ok=True)
    command = [
        "h2load", "-t1", f"-c{load.connections}", f"-m{load.in_flight}", f"-D{seconds * 1000:.0f}ms", f"-d{body}",
        f"--log-file={log}", *(["--h1"] if load.http1 else []), *(f"-H{header}" for header in load.headers), load.url,
    ]  # fmt: skip
    return Running(load, log, subprocess.Popen(command, stdout=subprocess.PIPE, text=True))


@dataclass(frozen=True, slots=True)
class Running:
    """A load under way."""

    load: Load
    log: Path
    process: "subprocess.Popen[str]"

    def result(self) -> Answers:
        """Wait for its end; check every answer.

        h2load takes a gRPC error for a success, but an error carries no message: the bytes of data that came must be
        those of as many whole answers, and of parts of those that were under way at the end.
        """
        text, _ = self.process.communicate()
        rate = re.search(r"finished in .*?, ([\d.]+) req/s", text)
        counts = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", text)
        codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text)
        data = re.search(r"headers \(.*?\), \S+ \((\d+)\) data", text)
        if not (rate and counts and codes and data) or not float(rate[1]):
            raise SystemExit(f"h2load failed:\n{text}")
        done = int(counts[1])
        if any(int(codes[place]) for place in (2, 3, 4)) or not done or int(counts[2]) != done:
            raise SystemExit(f"not every answer was a 200:\n{text}")
        if self.load.answer_bytes is not None:
            under_way = self.load.connections * self.load.in_flight
            low, high = done * self.load.answer_bytes, (done + under_way) * self.load.answer_bytes
            if not low <= int(data[1]) <= high:
                raise SystemExit(f"{data[1]} bytes for {done} answers; expected {low} to {high}: some were errors")
        times = sorted(int(line.split("\t")[2]) for line in self.log.read_text().splitlines())
        return Answers(
            per_second=float(rate[1]),
            p50_ms=statistics.median(times) / 1000,
            p99_ms=times[int(0.99 * (len(times) - 1))] / 1000,
        )


def measure(load: Load, seconds: float) -> Answers:
    """Send for so long, after a short warm-up."""
    with tempfile.TemporaryDirectory() as scratch:
        start(load, min(1.0, seconds), Path(scratch)).result()
        return start(load, seconds, Path(scratch)).result()


def measure_both(one: Load, other: Load, seconds: float) -> tuple[Answers, Answers]:
    """Send two loads at the same time."""
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        running = start(one, seconds, Path(first)), start(other, seconds, Path(second))
        return running[0].result(), running[1].result()
