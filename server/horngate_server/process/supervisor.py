"""Several worker processes behind one port: start them, replace those that crash, stop them together.

Every worker listens on the same port (SO_REUSEPORT): the kernel gives each new connection to one of them. Workers know
nothing of each other. This process serves no gRPC; it has the HTTP port, where it shows all workers' metrics as one.
"""

import itertools
import logging
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from horngate_protos import __version__
from horngate_protos.control_groups import cores
from horngate_server.core.settings import Settings, Worker, environment
from horngate_server.process.ports import grpc_web, reserve, rest, write_port_file
from horngate_server.process.signals import RELOAD, Stop
from horngate_server.process.worker import ALIVE_EVERY_S, hangs
from horngate_server.telemetry import merged_metrics
from horngate_server.telemetry.refusal_log import RefusalLog
from horngate_server.transports.access.gate import Gate
from horngate_server.transports.http import concurrency, console_files, unix_client
from horngate_server.transports.http.server import HttpServer, app, pages

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
BEGINS_S = 60.0
"""How long a worker may give no sign of life until it serves."""
LEAVES_S = 10.0
"""How long a worker may take to end once its end of the line is over."""
KILL_S = 1.3
"""How long after the grace period workers are killed that have not ended: they would have ended just before."""
KILLED_S = 0.1
"""How long the kernel may take to end one that was killed; nobody waits longer."""
CRASHED, HUNG, NOT_STARTED = "crashed", "hung", "not_started"
REASONS = (CRASHED, HUNG, NOT_STARTED)
"""Why a worker was replaced, as a metric says it."""


class Supervisor:
    """One server of several processes.

    Args:
        settings: all of them; each worker gets the same but for its share of the cores.

    Attributes:
        stuck: after `run`, whether a worker had not ended when the grace period was over: there is no time left.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = Stop()
        self._scratch = tempfile.TemporaryDirectory(prefix="horngate-")
        self._workers = [
            _Process(number, Path(self._scratch.name), settings, self._give_up) for number in range(settings.workers)
        ]
        self._failed = 0
        self.stuck = False
        # Who has no token is told so here, before a body is taken in; limits of each client are the workers'.
        self._gate = Gate.of(replace(settings, max_client_requests=0, max_client_bytes=0), time.monotonic)

    def run(self) -> int:
        """Serve until a signal; return the exit code.

        Raises:
            HorngateError: it cannot start.
        """
        settings = self._settings
        server = HttpServer(
            app(
                self._ready,
                self._exposition,
                self._models,
                self._rest,
                console_files.shown if settings.console == "on" else dict,
            ),
            host=settings.host,
            port=settings.http_port,
            rest_port=settings.rest_port,
            refused=RefusalLog(time.monotonic).note,
        )
        signals = self._stop.on_signals(self._reload, self._end_at_once)
        with self._scratch, signals, ExitStack() as ports:
            settings, held = reserve(settings)
            for port in held:
                ports.enter_context(port)
            http_port = server.start()
            try:
                for worker in self._workers:
                    worker.start(settings)
                write_port_file(settings, settings.grpc_port, http_port, server.rest_port)
                threading.Thread(target=self._banner, args=(settings, http_port, server.rest_port), daemon=True).start()
                self._stop.wait()
                ends = time.monotonic() + settings.grace_period_s
                for worker in self._workers:
                    worker.stop()
                self.stuck = not all(worker.ends(by=ends) for worker in self._workers)
                server.end()
                codes = [worker.join(by=ends + KILL_S) for worker in self._workers]
            finally:
                self._kill()
                server.stop()
        if self._failed:
            return self._failed
        if any(codes):
            log.error("stopped: workers ended with %s", ", ".join(map(str, codes)))
            return 1
        log.info("stopped: all workers have")
        return 0

    # --- private --------------------------------------------------------------------------------------

    def _give_up(self, code: int) -> bool:
        """End where no worker has ever served: another try would fail for the same reason."""
        if any(worker.first_ready.is_set() for worker in self._workers):
            return False
        self._failed = code
        self._stop.set()
        return True

    def _reload(self) -> None:
        """Let the workers look at what is on disk."""
        for worker in self._workers:
            worker.send(RELOAD)

    def _kill(self) -> None:
        """End those that are left at once."""
        for worker in self._workers:
            worker.kill()

    def _end_at_once(self) -> None:
        """Leave nobody and nothing behind."""
        self._kill()
        shutil.rmtree(self._scratch.name, ignore_errors=True)

    def _ready(self) -> bool:
        return any(worker.serves() for worker in self._workers)

    def _exposition(self) -> bytes:
        texts = {str(number): text for number, text in enumerate(self._pages("/metrics"))}
        restarts = {(str(worker.number), why): worker.restarts[why] for worker in self._workers for why in REASONS}
        return merged_metrics.merged(texts, restarts, self._gate.refused)

    def _models(self) -> bytes:
        """Return what the first worker that answers says: all of them look at the same disk."""
        return next((text for text in self._pages("/models") if text), "[]").encode()

    def _pages(self, path: str) -> list[str]:
        """Ask all workers at once: one that hangs costs `PAGE_S`, however many do."""
        with ThreadPoolExecutor(len(self._workers), "pages") as threads:
            return list(threads.map(lambda worker: worker.page(path), self._workers))

    def _rest(self) -> concurrency.App:
        """Return what lets the workers answer, each the one with the fewest requests: one that hangs gets few."""
        from horngate_server.transports.http.rest import forwarding  # noqa: PLC0415 - only those who ask pay for it

        turn = itertools.count()

        def one() -> _Process:
            first = next(turn) % len(self._workers)
            in_turn = self._workers[first:] + self._workers[:first]
            serving = [worker for worker in in_turn if worker.serves()] or in_turn
            return min(serving, key=lambda worker: worker.forwarded)

        def ask(method: str, path: str, body: bytes | bytearray, headers: Mapping[str, str]) -> unix_client.Answer:
            return one().forward(method, path, body, headers)

        def fetch(method: str, path: str, headers: Mapping[str, str]) -> unix_client.Fetched:
            return one().fetch(method, path, headers)

        return forwarding(ask, fetch, self._gate, self._settings.max_message_bytes)

    def _banner(self, settings: Settings, http_port: int, rest_port: int | None) -> None:
        """Say what serves, once everybody does."""
        for worker in self._workers:
            worker.first_ready.wait()
        for line in (
            f"horngate {__version__} serves with {settings.workers} workers",
            f"  grpc       {settings.shown_host}:{settings.grpc_port}, shared by all",
            *grpc_web(settings),
            f"  http       http://{settings.shown_host}:{http_port}/{pages(settings.console)}, for all",
            *rest(settings, rest_port),
            f"  queue      up to {settings.queue_rows} rows per model and worker",
        ):
            log.info("%s", line)


# --- private ------------------------------------------------------------------------------------------


class _Process:
    """One worker, over all its lives."""

    def __init__(self, number: int, scratch: Path, settings: Settings, give_up: Callable[[int], bool]) -> None:
        self.number = number
        self.restarts: Counter[str] = Counter()
        self.forwarded = 0
        self._counting = threading.Lock()
        self.first_ready = threading.Event()
        self._http = scratch / f"worker-{number}"
        self._settings = settings
        self._give_up = give_up
        self._serving = False
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self._code = 0
        self._thread = threading.Thread(target=self._live, name=f"worker-{number}", daemon=True)

    def start(self, settings: Settings) -> None:
        share = max(1, cores() // settings.workers)
        self._settings = replace(settings, workers=1, port_file=None, compute_threads=settings.compute_threads or share)
        self._thread.start()

    def serves(self) -> bool:
        return self._serving

    def page(self, path: str) -> str:
        """Return one of the worker's HTTP pages; empty while it is not there."""
        try:
            answer = unix_client.ask(self._http, path, timeout_s=PAGE_S)
        except OSError:
            return ""
        return answer.body.decode() if answer.status == 200 else ""

    def forward(
        self, method: str, path: str, body: bytes | bytearray, headers: Mapping[str, str]
    ) -> unix_client.Answer:
        """Let it answer what this process cannot.

        Raises:
            OSError: it is not there.
        """
        with self._counting:
            self.forwarded += 1
        try:
            return unix_client.ask(self._http, path, method=method, body=body, headers=headers, timeout_s=FORWARD_S)
        finally:
            with self._counting:
                self.forwarded -= 1

    def fetch(self, method: str, path: str, headers: Mapping[str, str]) -> unix_client.Fetched:
        """Let it answer with what is read piece by piece.

        Raises:
            OSError: it is not there.
        """
        return unix_client.fetch(self._http, path, method=method, headers=headers, timeout_s=FORWARD_S)

    def stop(self) -> None:
        """Let it drain and end, and start no other."""
        self._stopping.set()
        with self._lock, suppress(OSError):  # where it has ended by itself
            if self._line is not None:
                self._line.shutdown(socket.SHUT_WR)

    def ends(self, *, by: float) -> bool:
        """Wait for its end; False if it has not come by then."""
        self._thread.join(max(0.0, by - time.monotonic()))
        return not self._thread.is_alive()

    def join(self, *, by: float) -> int:
        """Wait for its end, which comes by then at the latest; return its exit code."""
        if not self.ends(by=by):
            log.error("worker %d did not end within the grace period, and is killed", self.number)
            self.kill()
            if not self.ends(by=time.monotonic() + KILLED_S):
                return -signal.SIGKILL
        return self._code

    def kill(self) -> None:
        """End it at once, if it is still there, and start no other."""
        self._stopping.set()
        self.send(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it is there."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._process.send_signal(number)

    def _live(self) -> None:
        pause = FIRST_PAUSE_S
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                why, how = self._run()
            except OSError as error:
                self._code, why, how = 1, NOT_STARTED, str(error)
            if self._stopping.is_set():
                return
            if not self.first_ready.is_set() and self._give_up(max(1, self._code)):
                log.critical("worker %d could not start: %s", self.number, how)
                return
            if time.monotonic() - began > HEALTHY_S:
                pause = FIRST_PAUSE_S
            self.restarts[why] += 1
            log.error("worker %d %s: %s; starting another in %g s", self.number, _WORDS[why], how, pause)
            self._stopping.wait(pause)
            pause = min(2 * pause, LAST_PAUSE_S)

    def _run(self) -> tuple[str, str]:
        """Start the process, and wait for its end; return what became of it, and how it ended.

        Raises:
            OSError: it cannot be started: no memory, or no more processes or files.
        """
        ours, theirs = socket.socketpair()
        with ours:
            ours.settimeout(ALIVE_EVERY_S)
            with theirs:
                process = self._started(ours, theirs.fileno())
            if process is None:
                return CRASHED, ""
            hung = hangs(lambda: ours.recv(64), self._settings.worker_timeout_s, BEGINS_S, self._serves)
            if hung:
                log.error("worker %d gives no sign of life, and is killed", self.number)
                process.kill()
            self._code = self._end_of(process)
        served, self._serving = self._serving, False
        return (HUNG if hung else CRASHED if served else NOT_STARTED), _ended(self._code)

    def _started(self, ours: socket.socket, theirs: int) -> "subprocess.Popen[bytes] | None":
        """Start the process, unless all is to end."""
        with self._lock:
            if self._stopping.is_set():
                return None
            self._http.unlink(missing_ok=True)
            self._line = ours
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "horngate_server"],
                env=environment(replace(self._settings, worker=Worker(self.number, theirs, self._http))),
                pass_fds=[theirs],
            )
            return self._process

    def _end_of(self, process: "subprocess.Popen[bytes]") -> int:
        """Return the exit code of a process that ends; kill it where it only seems to."""
        try:
            return process.wait(LEAVES_S)
        except subprocess.TimeoutExpired:
            log.error("worker %d does not end, and is killed", self.number)
            process.kill()
            return process.wait()

    def _serves(self) -> None:
        self._serving = True
        self.first_ready.set()


_WORDS = {CRASHED: "crashed", HUNG: "hung", NOT_STARTED: "could not be started"}


def _ended(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
