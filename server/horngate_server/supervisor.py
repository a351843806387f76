"""Several worker processes behind one port: start them, replace those that crash, stop them together.

Every worker listens on the same port (SO_REUSEPORT): the kernel gives each new connection to one of them. Workers know
nothing of each other. This process serves no gRPC; it has the HTTP port, where it shows all workers' metrics as one.
"""

import itertools
import logging
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from horngate_protos import __version__
from horngate_server import http, http_room, merged_metrics, unix_http
from horngate_server import settings as settings_room
from horngate_server.doors import Doors
from horngate_server.ports import reserve, write_port_file
from horngate_server.refusals import Refusals
from horngate_server.settings import Settings
from horngate_server.stopping import Stop
from horngate_server.worker import READY, Worker

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.1
LAST_PAUSE_S = 10.0
"""Between a crash and the next start: doubled from the first to the last while a worker keeps crashing."""
PAGE_S = 2.0
"""How long a worker may take for a page of metrics or models; without it, the page is the others'."""
FORWARD_S = 600.0
"""How long a worker may take to answer what came by the HTTP port."""
HEALTHY_S = 60.0
"""A worker that served this long begins at the first pause again."""


class Supervisor:
    """One server of several processes.

    Args:
        settings: all of them; each worker gets the same but for its share of the cores.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = Stop()
        self._scratch = tempfile.TemporaryDirectory(prefix="horngate-")
        self._workers = [
            _Process(number, Path(self._scratch.name), settings, self._gave_up) for number in range(settings.workers)
        ]
        self._failed = 0
        # Who has no token is told so here, before a body is taken in; limits of each client are the workers'.
        self._doors = Doors.of(replace(settings, max_client_requests=0, max_client_bytes=0), time.monotonic)

    def run(self) -> int:
        """Serve until a signal; return the exit code.

        Raises:
            HorngateError: it cannot start.
        """
        settings = self._settings
        server = http.HttpServer(
            http.app(self._ready, self._exposition, self._models, self._rest),
            host=settings.host,
            port=settings.http_port,
            refused=Refusals(time.monotonic).note,
        )
        with self._scratch, self._stop.on_signals(), reserve(settings.host, settings.grpc_port) as held:
            grpc_port = held.getsockname()[1]
            http_port = server.start()
            try:
                for worker in self._workers:
                    worker.start(grpc_port)
                write_port_file(settings, grpc_port, http_port)
                threading.Thread(target=self._banner, args=(grpc_port, http_port), daemon=True).start()
                self._stop.wait()
                for worker in self._workers:
                    worker.stop()
                codes = [worker.join() for worker in self._workers]
            finally:
                for worker in self._workers:
                    worker.kill()
                server.stop()
        if self._failed:
            return self._failed
        if any(codes):
            log.error("stopped: workers ended with %s", ", ".join(map(str, codes)))
            return 1
        log.info("stopped: all workers have")
        return 0

    # --- private --------------------------------------------------------------------------------------

    def _gave_up(self, code: int) -> None:
        """End: a worker cannot even start, and another try would fail for the same reason."""
        self._failed = code
        self._stop.set()

    def _ready(self) -> bool:
        return any(worker.serves() for worker in self._workers)

    def _exposition(self) -> bytes:
        texts = {str(number): text for number, text in enumerate(self._pages("/metrics"))}
        restarts = {str(worker.number): worker.restarts for worker in self._workers}
        return merged_metrics.merged(texts, restarts, self._doors.refused)

    def _models(self) -> bytes:
        """Return what the first worker that answers says: all of them look at the same disk."""
        return next((text for text in self._pages("/models") if text), "[]").encode()

    def _pages(self, path: str) -> list[str]:
        """Ask all workers at once: one that hangs costs `PAGE_S`, however many do."""
        with ThreadPoolExecutor(len(self._workers), "pages") as threads:
            return list(threads.map(lambda worker: worker.page(path), self._workers))

    def _rest(self) -> http_room.App:
        """Return what lets the workers answer, each the one with the fewest requests: one that hangs gets few."""
        from horngate_server.rest import forwarding  # noqa: PLC0415 - only those who ask pay for it

        turn = itertools.count()

        def ask(method: str, path: str, body: bytes, headers: Mapping[str, str]) -> unix_http.Answer:
            first = next(turn) % len(self._workers)
            in_turn = self._workers[first:] + self._workers[:first]
            serving = [worker for worker in in_turn if worker.serves()] or in_turn
            return min(serving, key=lambda worker: worker.forwarded).forward(method, path, body, headers)

        app: http_room.App = forwarding(ask, self._doors, self._settings.max_message_bytes)
        return app

    def _banner(self, grpc_port: int, http_port: int) -> None:
        """Say what serves, once everybody does."""
        for worker in self._workers:
            worker.first_ready.wait()
        settings = self._settings
        for line in (
            f"horngate {__version__} serves with {settings.workers} workers",
            f"  grpc       {settings.shown_host}:{grpc_port}, shared by all",
            f"  http       http://{settings.shown_host}:{http_port}/metrics, /models, /livez, /readyz, /v2, for all",
            f"  queue      up to {settings.queue_rows} rows per model and worker",
        ):
            log.info("%s", line)


# --- private ------------------------------------------------------------------------------------------


class _Process:
    """One worker, over all its lives."""

    def __init__(self, number: int, scratch: Path, settings: Settings, gave_up: Callable[[int], None]) -> None:
        self.number = number
        self.restarts = 0
        self.forwarded = 0
        self._counting = threading.Lock()
        self.first_ready = threading.Event()
        self._http = scratch / f"worker-{number}"
        self._settings = settings
        self._gave_up = gave_up
        self._serving = False
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._code = 0
        self._thread = threading.Thread(target=self._live, name=f"worker-{number}")

    def start(self, grpc_port: int) -> None:
        share = max(1, settings_room.cores() // self._settings.workers)
        self._settings = replace(
            self._settings,
            grpc_port=grpc_port,
            workers=1,
            port_file=None,
            compute_threads=self._settings.compute_threads or share,
        )
        self._thread.start()

    def serves(self) -> bool:
        return self._serving

    def page(self, path: str) -> str:
        """Return one of the worker's HTTP pages; empty while it is not there."""
        try:
            answer = unix_http.ask(self._http, path, timeout_s=PAGE_S)
        except OSError:
            return ""
        return answer.body.decode() if answer.status == 200 else ""

    def forward(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> unix_http.Answer:
        """Let it answer what this process cannot.

        Raises:
            OSError: it is not there.
        """
        with self._counting:
            self.forwarded += 1
        try:
            return unix_http.ask(self._http, path, method=method, body=body, headers=headers, timeout_s=FORWARD_S)
        finally:
            with self._counting:
                self.forwarded -= 1

    def stop(self) -> None:
        """Let it drain and end."""
        self._signal(signal.SIGTERM)

    def join(self) -> int:
        """Wait for its end; return its exit code."""
        self._thread.join()
        return self._code

    def kill(self) -> None:
        """End it at once, if it is still there."""
        self._signal(signal.SIGKILL)
        if self._thread.is_alive():
            self._thread.join()

    def _signal(self, number: signal.Signals) -> None:
        self._stopping.set()
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._process.send_signal(number)

    def _live(self) -> None:
        pause = FIRST_PAUSE_S
        while not self._stopping.is_set():
            began = time.monotonic()
            self._code = self._run()
            if self._stopping.is_set():
                return
            if not self.first_ready.is_set():
                log.critical("worker %d could not start: %s", self.number, _ended(self._code))
                self.first_ready.set()
                self._gave_up(max(1, self._code))
                return
            if time.monotonic() - began > HEALTHY_S:
                pause = FIRST_PAUSE_S
            self.restarts += 1
            log.error("worker %d crashed: %s; starting another in %g s", self.number, _ended(self._code), pause)
            self._stopping.wait(pause)
            pause = min(2 * pause, LAST_PAUSE_S)

    def _run(self) -> int:
        """Start the process, and wait for its end."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs, self._lock:
                if self._stopping.is_set():
                    return 0
                self._http.unlink(missing_ok=True)
                worker = Worker(self.number, theirs.fileno(), self._http)
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "horngate_server.cli"],
                    env=settings_room.environment(replace(self._settings, worker=worker)),
                    pass_fds=[theirs.fileno()],
                )
            if ours.recv(len(READY)):
                self._serving = True
                self.first_ready.set()
            code = self._process.wait()
            self._serving = False
            return code


def _ended(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
