"""A real server in a process of its own, watched through what an operator has: its log, its ports, its exit code."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Self

WAIT_S = 60.0
START_S = 300.0
"""A server with more than a hundred models takes half a minute to start, on a machine with nothing else to do."""


def free_port() -> int:
    """Return a port that nobody listens on, for a program that cannot pick one itself."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def usage_error(folder: Path, *flags: object) -> str:
    """Run ``horngate-server`` in a folder with flags that it must refuse; return what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "horngate_server", *map(str, flags)],
        cwd=folder, capture_output=True, text=True, check=False, timeout=WAIT_S,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    return done.stderr


def health(**variables: object) -> int:
    """Run ``horngate-server health`` as a container does, by these HORNGATE_ variables alone; return its exit code."""
    settings = {f"HORNGATE_{name.upper()}": str(value) for name, value in variables.items()}
    command = [sys.executable, "-m", "horngate_server", "health"]
    return subprocess.run(command, env={**os.environ, **settings}, check=False, timeout=WAIT_S).returncode


def children(parent: int) -> list[int]:
    """Return the numbers of a process's children that live."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == parent and fields[0] != "Z":
                found.append(int(folder.name))
    return found


class ServerProcess:
    """``horngate-server`` on free ports; ready when the block is entered, and stopped when it is left.

    Args:
        models: the root, or what is named one by one.
        scratch: a folder of its own.
        flags: further ones.

    Attributes:
        log: its lines so far.
        reading: while this is not set, nobody reads its log.
    """

    def __init__(self, models: Path | str | Sequence[Path], scratch: Path, *flags: str) -> None:
        served = ["--models", models] if isinstance(models, Path | str) else models
        self._port_file = scratch / "ports"
        self._port_file.unlink(missing_ok=True)
        self.log: list[str] = []
        self.reading = threading.Event()
        self.reading.set()
        self._changed = threading.Condition()
        self.process = subprocess.Popen(
            [
                sys.executable, "-m", "horngate_server", *served, "--grpc-port", "0", "--http-port", "0",
                "--port-file", self._port_file, *flags,
            ],
            stderr=subprocess.PIPE, text=True, errors="replace", env={**os.environ, "PYTHONWARNINGS": "error"},
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Self:
        self.wait_for("queue      up to", START_S)  # the banner's last line
        ports = dict(line.split() for line in self.ports.splitlines())
        self.grpc = f"localhost:{ports['grpc']}"
        self.http = f"http://localhost:{ports['http']}"
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(WAIT_S)
        self._reader.join(WAIT_S)
        assert self.process.stderr
        self.process.stderr.close()

    @property
    def ports(self) -> str:
        """What the server wrote of its ports."""
        return self._port_file.read_text()

    def wait_for(self, text: str, wait_s: float = WAIT_S) -> None:
        """Wait until a log line holds this text."""
        with self._changed:
            assert self._changed.wait_for(
                lambda: any(text in line for line in self.log) or self.process.poll() is not None, wait_s
            )
        assert any(text in line for line in self.log), "\n".join(self.log)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(WAIT_S)
        self._reader.join(WAIT_S)
        return code

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.reading.wait()
            with self._changed:
                self.log.append(line.rstrip())
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()
