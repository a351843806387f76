"""A server process to measure, and a model for it."""

import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import harness

START_S = 60.0
HERE = Path(__file__).parent


@contextmanager
def trained(models: Path | None) -> Iterator[Path]:
    """Yield a model root with mnist in it: the one that is given, or a quickly trained one."""
    if models is not None:
        yield models
        return
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch, "models")
        harness.timed(
            [sys.executable, "-m", "horngate_trainer.cli", "--output", root, "--report", "none", "--epochs", "2",
             "--min-accuracy", "0.9"]
        )  # fmt: skip
        yield root


def foreign(models: Path, *names: str) -> None:
    """Write these of `foreign_models` below a folder, unless they are there."""
    print(harness.timed([sys.executable, HERE / "foreign_models.py", models, *names])[1], end="", flush=True)


@contextmanager
def alone(models: Path, name: str) -> Iterator[Path]:
    """Yield a model root with this one of a folder's models in it, and no other."""
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch, name).symlink_to((models / name).resolve())
        yield Path(scratch)


class Server:
    """``horngate-server`` on free ports, ready when the block is entered.

    Attributes:
        grpc: host and port.
        http: the base URL of the HTTP port.
        ready_s: seconds from the process's start until /readyz was 200.

    Args:
        models: the model root.
        flags: of the server.
        before: what the command is put behind.
        start_s: within these seconds it must be ready.
        host: where it listens.
        program: what Python runs.
    """

    def __init__(
        self,
        models: Path,
        *flags: str,
        before: Sequence[str] = (),
        start_s: float = START_S,
        host: str = "127.0.0.1",
        program: Sequence[str] = ("-m", "horngate_server"),
    ) -> None:
        self._models = models
        self._flags = flags
        self._before = before
        self._host = host
        self._start_s = start_s
        self._program = program
        self._peak_mb = 0.0

    def __enter__(self) -> Self:
        self._scratch = tempfile.TemporaryDirectory()
        ports = Path(self._scratch.name, "ports")
        self._log = Path(self._scratch.name, "log").open("w+")
        began = time.perf_counter()
        self.process = subprocess.Popen(
            [
                *self._before, sys.executable, *self._program, "--models", str(self._models),
                "--host", self._host, "--grpc-port", "0", "--http-port", "0", "--port-file", str(ports), *self._flags,
            ],
            stderr=self._log,
        )  # fmt: skip
        while "queue      up to" not in self.log():
            self._alive(began)
            self._peak_mb = max(self._peak_mb, status_mb(self.process.pid, "VmHWM"))
            time.sleep(0.005)
        listening = dict(line.split() for line in ports.read_text().splitlines())
        self.grpc = f"{self._host}:{listening['grpc']}"
        self.http = f"http://{self._host}:{listening['http']}"
        while not self._ready():
            self._alive(began)
            time.sleep(0.005)
        self.ready_s = time.perf_counter() - began
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.stop()
        self._log.close()
        self._scratch.cleanup()

    def stop(self) -> int:
        """Stop it; return the exit code."""
        self.process.terminate()
        return self.process.wait(60)

    def log(self) -> str:
        """Return what it has logged so far."""
        return Path(self._log.name).read_text(errors="replace")

    def memory_mb(self) -> float:
        """Return the resident memory of the process and of those that it started."""
        return tree_mb(self.process.pid)

    def peak_mb(self) -> float:
        """Return the most resident memory that the process had; loading resets the kernel's figure, and is watched."""
        return max(self._peak_mb, status_mb(self.process.pid, "VmHWM"))

    def _alive(self, began: float) -> None:
        if self.process.poll() is None and time.perf_counter() - began < self._start_s:
            return
        said = self.log()
        self.process.kill()
        raise SystemExit(f"the server was not ready (exit code {self.process.wait()}):\n{said}")

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.http}/readyz", timeout=self._start_s) as response:
                return bool(response.status == 200)
        except OSError:
            return False


def status_mb(pid: int, what: str) -> float:
    """Return a size in /proc/PID/status in MB; 0 once the process has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(rf"{what}:\s+(\d+) kB", status)
    return int(found[1]) * 1024 / 1e6 if found else 0.0


def cpu_s(pid: int) -> float:
    """Return the processor seconds that a process has used so far, by all of its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def tree_mb(root: int) -> float:
    """Return the resident memory of a process and all below it, in MB."""
    parents: dict[int, int] = {}
    pages: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                pages[int(folder.name)] = int((folder / "statm").read_text().split()[1])
            except OSError:
                continue
    total = 0
    for number, count in pages.items():
        above = number
        while above not in {root, 0}:
            above = parents.get(above, 0)
        total += count if above == root else 0
    return total * 4096 / 1e6
