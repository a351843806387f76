"""Wiring and lifecycle: the only place that builds things, and that knows the order of start and stop."""

import gc
import logging
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime

from horngate_protos import __version__
from horngate_server.core.errors import SettingsError
from horngate_server.core.methods import CHECK, HEALTH, MODEL, OPEN_INFERENCE, PREDICTION, STREAM_INFER, WATCH
from horngate_server.core.observer_guard import ObserverGuard
from horngate_server.core.rpc import Transport
from horngate_server.core.settings import Settings
from horngate_server.engine.routing import Models
from horngate_server.lifecycle.loader import Loaded
from horngate_server.lifecycle.manager import Lifecycle
from horngate_server.lifecycle.readiness import Readiness
from horngate_server.lifecycle.remote_repository import RemoteRepository
from horngate_server.process.ports import grpc_web, rest, write_port_file
from horngate_server.process.signals import Stop
from horngate_server.process.worker import SupervisorLink
from horngate_server.protocols.codecs import CODECS
from horngate_server.runtimes import process_memory, tensorflow
from horngate_server.services import openapi, reflection, unimplemented
from horngate_server.services.health import Health
from horngate_server.services.inference import InferenceService
from horngate_server.services.model_control import ModelControl
from horngate_server.services.open_inference_metadata import OpenInferenceMetadata
from horngate_server.services.stream_inference import model_stream_infer
from horngate_server.services.tensorflow_serving_metadata import TensorflowServingMetadata
from horngate_server.telemetry import access_log, log_format, metrics, tracing
from horngate_server.telemetry.recorder import Recorder
from horngate_server.telemetry.refusal_log import RefusalLog
from horngate_server.telemetry.request_record import RequestObserver
from horngate_server.telemetry.request_telemetry import RequestTelemetry
from horngate_server.telemetry.sampling import Sampler
from horngate_server.telemetry.statistics import Statistics
from horngate_server.transports.access.gate import Gate
from horngate_server.transports.call_collector import CallCollector
from horngate_server.transports.grpcio.transport import GrpcioTransport
from horngate_server.transports.http import concurrency, console_files, server

log = logging.getLogger(__name__)

LAST_ANSWERS_S = 1.0
"""What is left at least for the last answers to leave, whatever the grace period."""
LIFECYCLE_S = 1.0
"""How long the lifecycle's thread may take to end; longer, and it waits for a disk that does not answer."""
FLUSH_S = 0.5
"""How long the last spans may take to leave, and the last records to be written."""
BY_FORCE_S = 1.25
"""How long after the grace period the process ends, whatever hangs."""
SILENCE_S = 0.05
"""How long no call must have come until callers have moved."""


class App:
    """One server process.

    Args:
        settings: all of them.
        transport: the one to serve with, where the process was made for one; otherwise grpcio.
        gate: the transport's.
        why: why it is this transport, for the banner.

    Attributes:
        stuck: after `run`, whether a thread is left that does not end, as a model or a disk does not answer. The
            process then must not wait for it.
    """

    def __init__(
        self, settings: Settings, transport: Transport | None = None, gate: Gate | None = None, *, why: str = ""
    ) -> None:
        self._settings = settings
        self._clock = time.monotonic
        self._stop = Stop()
        self._died: BaseException | None = None
        self._unanswered = False
        self.stuck = False
        self._flush: Callable[[], None] = lambda: None
        self._readiness = Readiness()
        self._models = Models(starting=True)
        self._metrics = metrics.Metrics(metrics.default_registry())
        self._statistics = Statistics()
        self._guard = ObserverGuard(self._clock)
        self._recorder = Recorder.of(settings, self._clock, _wall_clock, self._guard)
        self._why = why
        self._sampler = Sampler.of(settings)
        gate = gate or Gate.of(settings, self._clock)
        self._rest_gate = gate.beside(settings)
        self._transport: Transport = transport or GrpcioTransport(
            host=settings.host,
            port=settings.grpc_port,
            max_message_bytes=settings.max_message_bytes,
            gate=gate,
            max_connections=settings.max_connections,
            max_connection_age_s=settings.max_connection_age_s,
            shared=settings.worker is not None,
            tls=settings.tls,
            clock=self._clock,
            sampler=self._sampler,
        )
        self._service = InferenceService(
            codecs=CODECS,
            models=self._models,
            telemetry=RequestTelemetry(
                self._metrics,
                self._statistics,
                self._clock,
                self._observers(),
                guard=self._guard,
                record=None if self._recorder is None else self._recorder.take,
            ),
            deliver=self._transport.deliver,
            clock=self._clock,
            may_compute=self._transport.may_compute,
        )
        self._lifecycle = Lifecycle(
            settings,
            models=self._models,
            readiness=self._readiness,
            finish=self._service.finish,
            forget=self._forget,
            clock=self._clock,
            on_death=self._on_death,
            stopping=self._stop,
            guard=self._guard,
        )
        self._remote = RemoteRepository.of(
            settings, self._lifecycle.config_of, self._lifecycle.states, self._clock, self._stop
        )
        self._admin = ModelControl(self._lifecycle, self._metrics, self._clock)
        self._about = OpenInferenceMetadata(
            models=self._models,
            readiness=self._readiness,
            statistics=self._statistics,
            states=self._lifecycle.states,
            clock=self._clock,
            wall_clock=_wall_clock,
            admin=settings.admin,
        )
        self._about_v1 = TensorflowServingMetadata(self._models, self._lifecycle.states)
        self._add_methods()
        self._metrics.watch(
            self._lifecycle.executors,
            self._lifecycle.states,
            config_valid=lambda: self._lifecycle.config_valid,
            refused=lambda: Counter(gate.refused) + Counter(self._rest_gate.refused),
            tokens=gate.tokens,
            observer_errors=lambda: self._guard.errors,
            recording=self._recorder,
        )
        self._supervisor_link: SupervisorLink | None = None
        self._http = server.HttpServer(
            server.app(
                self._readiness.serving,
                self._metrics.exposition,
                self._admin.json,
                self._rest,
                console_files.shown if settings.console == "on" else dict,
            ),
            host=settings.host,
            port=settings.http_port,
            rest_port=settings.rest_port,
            path=settings.worker.http if settings.worker else None,
            refused=RefusalLog(self._clock).note,
        )

    def run(self) -> int:
        """Serve until a signal or a fatal error; return the exit code.

        Raises:
            HorngateError: it cannot start.
        """
        process_memory.few_arenas()
        for library in self._settings.op_library:
            tensorflow.load_op_library(library)
        with self._ending_in_time():
            with self._stop.on_signals(self._look_now), ExitStack() as ports:
                if self._settings.worker is None:
                    grpc_port = ports.enter_context(self._listening())
                    http_port = ports.enter_context(self._answering_http())
                    write_port_file(self._settings, grpc_port, http_port, self._http.rest_port)
                    self._begin()
                else:  # the others answer meanwhile: no caller is to come here before it can
                    http_port = ports.enter_context(self._answering_http())
                    self._supervisor_link = SupervisorLink(self._settings.worker.line, self._stop.set)
                    self._begin()
                    grpc_port = ports.enter_context(self._listening())
                process_memory.release()
                _settle()
                if not self._stop.is_set():
                    self._say_ready(grpc_port, http_port)
                    self._stop.wait()
                self._drain()
            self._in_time(self._flush, FLUSH_S)
            if self._recorder is not None:
                self._in_time(self._recorder.stop, FLUSH_S)
        if self._died is not None:
            log.critical("stopped: %s", self._died)
            return 1
        if self._unanswered:
            log.error("stopped: the grace period ended with requests unanswered; their callers got UNAVAILABLE")
            return 1
        log.info("stopped: every accepted request was answered")
        return 0

    # --- private --------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Load what is there; return earlier where the process is to stop.

        Raises:
            HorngateError: it cannot start.
        """
        if self._recorder is not None:
            self._recorder.start()
        if self._remote is not None:
            self._stop.tell(self._remote.stop)
            self._remote.start()
            self._remote.wait_begun()
        turn = threading.Event()
        begun = self._lifecycle.start()
        begun.add_done_callback(lambda _: turn.set())
        self._stop.tell(turn.set)
        turn.wait()
        if begun.done():
            begun.result()

    @contextmanager
    def _ending_in_time(self) -> Iterator[None]:
        """End the process by force should the end take longer than it may: something hangs that nobody thought of."""
        ended = threading.Event()

        def watch() -> None:
            if not ended.wait(self._settings.grace_period_s + BY_FORCE_S):
                log.critical("stopped by force: the end hung for %g s after the grace period", BY_FORCE_S)
                log_format.leave()
                os._exit(1)

        self._stop.tell(threading.Thread(target=watch, name="end by force", daemon=True).start)
        try:
            yield
        finally:
            ended.set()

    def _in_time(self, step: Callable[[], object], seconds: float) -> None:
        """Take a step of the end that somebody else might never finish."""
        thread = threading.Thread(target=step, name="end", daemon=True)
        thread.start()
        thread.join(seconds)
        self.stuck |= thread.is_alive()

    def _add_methods(self) -> None:
        """Let the service answer what it does not compute."""
        service, health = self._service, Health(self._readiness)
        service.add(unimplemented.handlers())
        service.add(self._about.handlers())
        service.add(self._about_v1.handlers())
        service.add({CHECK: health.check}, streams={WATCH: health.watch})
        if self._settings.admin:
            service.add(deferred=self._admin.deferred())
        service.add(streams={STREAM_INFER: model_stream_infer(CallCollector(service.accept).take)})
        if self._settings.reflection == "on":
            services = [OPEN_INFERENCE, PREDICTION, MODEL, HEALTH]
            service.add(streams=reflection.streams(services))

    def _observers(self) -> list[RequestObserver]:
        """Return who tells about requests; to be flushed at the end."""
        settings = self._settings
        observers: list[RequestObserver] = [access_log.write] if settings.access_log else []
        if settings.otlp_endpoint:
            try:
                tell, self._flush = tracing.tracer(settings.otlp_endpoint, _wall_clock, self._clock)
            except ImportError as error:
                raise SettingsError("--otlp-endpoint: pip install 'horngate[otel]' first") from error
            observers.append(tell)
        return observers

    def _look_now(self) -> None:
        """Look at what there is, at once."""
        if self._remote is not None:
            self._remote.look_now()
        self._lifecycle.look_now()

    def _rest(self) -> concurrency.App:
        """Return the app for what is computed, or known of models."""
        from horngate_server.transports.http.rest import app  # noqa: PLC0415 - only those who ask pay for it

        settings = self._settings
        return app(
            self._service.accept,
            self._about,
            self._about_v1,
            self._rest_gate,
            document=lambda: openapi.document(self._models),
            max_message_bytes=settings.max_message_bytes,
            sampler=self._sampler,
            versions=lambda: [each.version for each in self._lifecycle.ready()],
            control=self._admin.deferred() if settings.admin else {},
        )

    def _forget(self, model: str, version: str) -> None:
        """Drop the numbers of a version that left long ago."""
        self._metrics.forget(model, version)
        self._statistics.forget(model, version)

    @contextmanager
    def _listening(self) -> Iterator[int]:
        """Open the gRPC port, and close it at the end."""
        port = self._transport.start(self._service)
        try:
            yield port
        finally:
            self.stuck |= not self._transport.stop(0)

    @contextmanager
    def _answering_http(self) -> Iterator[int]:
        """Open the HTTP port, live but not ready, and close it at the end."""
        port = self._http.start()
        try:
            yield port
        finally:
            self.stuck |= not self._http.stop()

    def _drain(self) -> None:
        """Undo the flow in reverse: refuse, compute what was accepted, let the answers leave, close the models."""
        self._readiness.shut_down()
        ends = self._clock() + self._settings.grace_period_s
        self._transport.drain()
        moving = min(LAST_ANSWERS_S, self._settings.grace_period_s / 2)
        self._service.wait_until_quiet(SILENCE_S, moving)  # while callers move, they are answered
        self.stuck |= not self._lifecycle.stop(min(LIFECYCLE_S, self._settings.grace_period_s))
        drained = self._lifecycle.drain(ends - self._clock())
        if not drained:
            self._unanswered = self.stuck = True  # a model that still computes is not closed under its own feet
            self._http.end()
            self._transport.stop(LAST_ANSWERS_S / 2)  # those of the model that hangs never leave
            return
        if not self._transport.stop(max(LAST_ANSWERS_S, ends - self._clock())):
            log.warning("some callers had not read their answer, or ended their call, when the grace period was over")
        if not self.stuck:
            self._lifecycle.close()

    def _on_death(self, error: BaseException) -> None:
        """Stop the process: an executor's thread is gone."""
        self._died = error
        self._readiness.shut_down()
        self._stop.set()

    def _say_ready(self, grpc_port: int, http_port: int) -> None:
        """Tell the supervisor, or whoever reads the log."""
        if self._supervisor_link is not None:
            self._supervisor_link.ready()
        else:
            self._banner(self._lifecycle.ready(), grpc_port, http_port)

    def _banner(self, loaded: list[Loaded], grpc_port: int, http_port: int) -> None:
        settings = self._settings
        host = settings.shown_host
        lines = [f"horngate {__version__} serves"]
        for each in loaded:
            lines += [
                f"  model      {each.info.name} version {each.info.version}, {each.report.verification}",
                f"             {each.info.signature}",
                f"  batching   {_batching(each)}",
                f"  engine     {_engines(each)}",
                f"  device     {each.device.kind} ({each.device.why})",
                f"  threads    {each.report.threads}",
            ]
        if not loaded:
            waits = f"waits for {self._lifecycle.places.expected()}"
            lines.append(f"  no model   yet: {'/models says why' if self._lifecycle.states() else waits}")
        if self._remote is not None:
            lines.append(f"  store      {settings.models}, fetched into {settings.model_root}")
        if self._recorder is not None:
            lines.append(f"  record     {settings.record_share:.4g} of the requests, in {settings.record}")
        lines += [
            f"  grpc       {host}:{grpc_port} ({self._transport.name} transport{self._why and ': '}{self._why})",
            *grpc_web(settings),
            f"  http       http://{host}:{http_port}/{server.pages(settings.console)}",
            *rest(settings, self._http.rest_port),
            f"  batches    {settings.max_batch_rows} rows at most, {settings.max_queue_delay_s * 1000:g} ms delay",
            f"  queue      up to {settings.queue_rows} rows per model",
        ]
        for line in lines:
            log.info("%s", line)


SWITCH_INTERVAL_S = 0.0001
"""How long a thread may keep Python while another waits for it. The default, fifty times as long, is a request's whole
latency many times over; see docs/measuring.md."""
YOUNG_OBJECTS = 50_000


def _batching(loaded: Loaded) -> str:
    """Say how requests for a version's default signature are computed, and why so."""
    batching = loaded.info.batching
    how = "one request, one run" if batching.whole else f"up to {loaded.report.max_batch_rows} rows in one run"
    said = [f"{how}: {batching.why}", batching.of_lengths]
    said.append("" if loaded.report.proved else "it was not seen to answer anything")
    return "; ".join(filter(None, said))


def _engines(loaded: Loaded) -> str:
    """Say what computes a version, and why so."""
    report = loaded.report
    others = [f"{name}: {engine}" for name, engine in report.engines.items() if engine != report.engine]
    return f"{'; '.join([report.engine, *others])} ({report.why_engine})"


def _wall_clock() -> float:
    """Return the seconds since 1970: only ever shown, never reckoned with."""
    return datetime.now(UTC).timestamp()


def _settle() -> None:
    """Keep the garbage collector off what is there for good: a full collection would hold up every caller for 20 ms."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
