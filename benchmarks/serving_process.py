"""A server process to measure, and a model for it."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import harness

START_S = 60.0


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


class Server:
    """``horngate-server`` on free ports, ready when the block is entered.

    Attributes:
        grpc: host and port.
        http: the base URL of the HTTP port.
        first_s: seconds from the process's start until both ports were open.
    """

    def __init__(self, models: Path, *flags: str) -> None:
        self._models = models
        self._flags = flags

    def __enter__(self) -> Self:
        self._scratch = tempfile.TemporaryDirectory()
        ports = Path(self._scratch.name, "ports")
        self._log = Path(self._scratch.name, "log").open("w+")
        began = time.perf_counter()
        self.process = subprocess.Popen(
            [
                sys.executable, "-m", "horngate_server.cli", "--models", str(self._models), "--grpc-port", "0",
                "--http-port", "0", "--port-file", str(ports), *self._flags,
            ],
            stderr=self._log,
        )  # fmt: skip
        while "queue      up to" not in Path(self._log.name).read_text():
            if self.process.poll() is not None or time.perf_counter() - began > START_S:
                raise SystemExit(f"the server did not start:\n{Path(self._log.name).read_text()}")
            time.sleep(0.005)
        listening = dict(line.split() for line in ports.read_text().splitlines())
        self.grpc = f"127.0.0.1:{listening['grpc']}"
        self.http = f"http://127.0.0.1:{listening['http']}"
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._log.close()
        self._scratch.cleanup()

    def stop(self) -> int:
        """Stop it; return the exit code."""
        self.process.terminate()
        return self.process.wait(60)

    def memory_mb(self) -> float:
        """Return the resident memory of the process and of those that it started."""
        return tree_mb(self.process.pid)


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
