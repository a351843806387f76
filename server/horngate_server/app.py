"""Wiring and lifecycle: the only place that builds things, and that knows the order of start and stop."""

import gc
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from horngate_protos import __version__
from horngate_server import http, metrics, repository, runtime
from horngate_server import settings as settings_room
from horngate_server.errors import ModelError
from horngate_server.health import OVERALL, Health
from horngate_server.loading import Loaded, load_latest
from horngate_server.ports import write_port_file
from horngate_server.served import Models, Served
from horngate_server.service import Service
from horngate_server.settings import Settings
from horngate_server.stopping import Stop
from horngate_server.transports import Transport
from horngate_server.transports.grpcio import GrpcioTransport
from horngate_server.worker import Line

log = logging.getLogger(__name__)

LAST_ANSWERS_S = 1.0
"""What is left at least for the last answers to leave, whatever the grace period."""
SILENCE_S = 0.05
"""How long no call must have come before the port closes."""


class App:
    """One server process.

    Args:
        settings: all of them.
        transport: the one to serve with, where the process was made for one; otherwise grpcio.
        why: why it is this transport, for the banner.
    """

    def __init__(self, settings: Settings, transport: Transport | None = None, *, why: str = "") -> None:
        self._settings = settings
        self._clock = time.monotonic
        self._stop = Stop()
        self._died: BaseException | None = None
        self._health = Health()
        self._models = Models()
        self._metrics = metrics.Metrics(metrics.default_registry())
        self._metrics.watch(lambda: [served.executor for served in self._models])
        self._why = why
        self._transport: Transport = transport or GrpcioTransport(
            host=settings.host,
            port=settings.grpc_port,
            max_message_bytes=settings.max_message_bytes,
            max_request_bytes=settings.max_request_bytes,
            max_connections=settings.max_connections,
            shared=settings.worker is not None,
            tls=settings.tls,
            clock=self._clock,
        )
        self._service = Service(
            models=self._models,
            health=self._health,
            metrics=self._metrics,
            deliver=self._transport.deliver,
            clock=self._clock,
        )
        self._line: Line | None = None
        self._http = http.HttpServer(
            http.app(self._health.serving, self._metrics.exposition),
            host=settings.host,
            port=settings.http_port,
            path=settings.worker.http if settings.worker else None,
        )

    def run(self) -> int:
        """Serve until a signal or a fatal error; return the exit code.

        Raises:
            HorngateError: it cannot start.
        """
        settings_room.prepare_libraries(self._settings)
        with self._stop.on_signals(), self._listening() as (grpc_port, http_port):
            if self._settings.worker is not None:
                self._line = Line(self._settings.worker.line, self._stop.set)
            loaded = self._load()
            if not self._stop.is_set():
                self._health.set(OVERALL, serving=True)
                if self._line is not None:
                    self._line.ready()
                else:
                    self._banner(loaded, grpc_port, http_port)
                self._stop.wait()
            self._drain()
        if self._died is not None:
            log.critical("stopped: %s", self._died)
            return 1
        log.info("stopped: every accepted request was answered")
        return 0

    # --- private --------------------------------------------------------------------------------------

    @contextmanager
    def _listening(self) -> Iterator[tuple[int, int]]:
        """Open both ports, live but not ready, and close them at the end."""
        grpc_port = self._transport.start(self._service)
        try:
            http_port = self._http.start()
            try:
                write_port_file(self._settings, grpc_port, http_port)
                yield grpc_port, http_port
            finally:
                self._http.stop()
        finally:
            self._transport.stop(0)

    def _load(self) -> list[Loaded]:
        """Load the newest version of every model and put it to work.

        Raises:
            ModelError: a model has no version that can be served, or there is no model.
        """
        root = self._settings.models
        found = repository.models(root)
        if not found:
            raise ModelError(f"no model in {root.absolute()}: expected {root}/<name>/<integer version>/saved_model.pb")
        self._models.expect(found)
        loaded = []
        for name, paths in found.items():
            if self._stop.is_set():
                break
            each = load_latest(
                name,
                paths,
                self._settings,
                finish=self._service.finish,
                clock=self._clock,
                on_death=self._on_death,
            )
            each.executor.start()
            self._models.put(Served(each.info, each.executor))
            self._health.set(name, serving=True)
            self._metrics.model(each.info, "ready", load_s=each.seconds)
            self._metrics.model_info(each.info, each.device.kind, each.device.why, each.digest, each.verification)
            log.info(
                "loaded model %s version %s in %.2f s: %s, %s",
                name, each.info.version, each.seconds, each.verification, _device(each),
            )  # fmt: skip
            if each.device.surprise:
                log.warning("a GPU is present but not used: %s", each.device.why)
            loaded.append(each)
        runtime.release_pages()
        _settle()
        return loaded

    def _drain(self) -> None:
        """Undo the flow in reverse: refuse, compute what was accepted, let the answers leave, close the models."""
        self._health.shut_down()
        ends = self._clock() + self._settings.grace_period_s
        drained = [served.executor.stop(max(0.0, ends - self._clock())) for served in self._models]
        self._service.wait_until_quiet(SILENCE_S, LAST_ANSWERS_S)  # meanwhile, callers get UNAVAILABLE and go elsewhere
        self._transport.stop(max(LAST_ANSWERS_S, ends - self._clock()) if all(drained) else LAST_ANSWERS_S)
        if not all(drained):
            log.warning("the grace period ended with requests unanswered; they got UNAVAILABLE")
            return  # a model that still computes must not be closed under its own feet
        for served in self._models:
            served.executor.close()

    def _on_death(self, error: BaseException) -> None:
        """Stop the process: an executor's thread is gone."""
        self._died = error
        self._health.shut_down()
        self._stop.set()

    def _banner(self, loaded: list[Loaded], grpc_port: int, http_port: int) -> None:
        settings = self._settings
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        lines = [f"horngate {__version__} serves"]
        for each in loaded:
            lines += [
                f"  model      {each.info.name} version {each.info.version}, {each.verification}",
                f"             {each.info.signature}",
                f"  device     {_device(each)}",
            ]
        lines += [
            f"  grpc       {host}:{grpc_port} ({self._transport.name} transport{self._why and ': '}{self._why})",
            f"  http       http://{host}:{http_port}/metrics, /livez, /readyz",
            f"  batches    up to {settings.max_batch_rows} rows, {settings.max_queue_delay_s * 1000:g} ms queue delay",
            f"  queue      up to {settings.queue_rows} rows per model",
        ]
        for line in lines:
            log.info("%s", line)


SWITCH_INTERVAL_S = 0.0001
"""How long a thread may keep Python while another waits for it. The default, fifty times as long, is a request's whole
latency many times over; see DESIGN.md."""
YOUNG_OBJECTS = 50_000


def _settle() -> None:
    """Keep the garbage collector off what is there for good: a full collection would hold up every caller for 20 ms."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def _device(loaded: Loaded) -> str:
    return f"{loaded.device.kind} ({loaded.device.why})"
