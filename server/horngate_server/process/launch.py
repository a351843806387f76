"""From settings to a serving process: which transport runs, in which process, and why."""

import logging
import os
import resource
import shutil
import tempfile
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn, Protocol

from horngate_protos import stores
from horngate_protos.control_groups import cores
from horngate_protos.stores import StoreUrl
from horngate_server.core import addresses
from horngate_server.core.errors import SettingsError
from horngate_server.core.settings import Settings, environment, prepare_libraries
from horngate_server.lifecycle.model_places import ModelPlaces
from horngate_server.process import ports
from horngate_server.process.signals import block_signals
from horngate_server.telemetry import log_format
from horngate_server.transports.access import tls
from horngate_server.transports.access.tokens import Tokens
from horngate_server.transports.pyvoy import envoy

ENVOY_THREADS = 4
"""Envoy's threads do the HTTP/2; half as many as there are cores, and not more than this: see docs/measuring.md."""

NEEDED = ("grpc_health", "grpc_reflection", "prometheus_client", "starlette", "uvicorn", "watchfiles")
"""What the extras of the server install."""
OTHER_FILES = 512
"""Files that a server has open beside its gRPC callers' connections, generously: half are the HTTP port's."""

log = logging.getLogger(__name__)


def serve(settings: Settings) -> int:
    """Serve until told to stop; return the exit code. With the fast transport, this process becomes Envoy.

    Raises:
        HorngateError: it cannot start.
        ModuleNotFoundError: an extra is not installed.
    """
    block_signals()
    prepare_libraries(settings)  # what this process becomes, and its workers, inherit it
    log_format.set_up(settings.log_format, settings.log_level, settings.worker.number if settings.worker else None)
    if settings.tls is not None:
        tls.read(settings.tls)  # what is wrong with these files is said here, once, before anything starts
    if settings.tokens is not None:
        Tokens(settings.tokens, time.monotonic)
        if settings.tls is None and not settings.is_local and settings.worker is None:
            log.warning("--tokens without --tls-cert: what callers send, tokens too, can be read by who is in between")
    if isinstance(settings.models, StoreUrl) and find_spec("obstore") is None:
        raise SettingsError(f"--models {settings.models}: {stores.EXTRA}")
    _allow_open_files(settings.max_connections + OTHER_FILES)
    reason = envoy.why_not()
    if settings.transport == "fast" and reason is not None:
        raise SettingsError(f"--transport fast: {reason}")
    if settings.grpc_web_port is not None and reason is not None:
        raise SettingsError(f"--grpc-web-port needs --transport fast, which cannot run: {reason}")
    if settings.worker is None:
        _check(settings)
    if settings.workers > 1:
        from horngate_server.process.supervisor import Supervisor  # noqa: PLC0415 - one process needs none of it

        return _run(Supervisor(settings))
    if settings.transport != "grpcio" and reason is None:
        _become_envoy(settings)
    from horngate_server.process.app import App  # noqa: PLC0415 - becoming Envoy needs none of it

    return _run(App(settings, why=f"fast cannot run: {reason}" if settings.transport == "auto" else "as asked"))


def envoy_threads() -> int:
    """Return how many threads Envoy gets."""
    return max(1, min(ENVOY_THREADS, cores() // 2))


def listener(settings: Settings) -> envoy.Listener:
    """Return what Envoy is to listen on."""
    return envoy.Listener(
        host=addresses.numeric(settings.host)[1],
        port=settings.grpc_port,
        threads=envoy_threads(),
        max_message_bytes=settings.max_message_bytes,
        max_request_bytes=settings.max_request_bytes,
        max_connections=settings.max_connections,
        max_connection_age_s=settings.max_connection_age_s,
        tls=settings.tls,
        web=None if settings.grpc_web_port is None else envoy.Web(settings.grpc_web_port, settings.grpc_web_origins),
    )


# --- private ------------------------------------------------------------------------------------------


class _Server(Protocol):
    stuck: bool

    def run(self) -> int: ...


def _check(settings: Settings) -> None:
    """Say what is wrong before anything starts: whatever comes later is said from within Envoy, or a worker.

    Raises:
        HorngateError: what is to be served cannot be, or a port or a file.
        ModuleNotFoundError: an extra is not installed.
    """
    for name in NEEDED:
        if find_spec(name) is None:
            raise ModuleNotFoundError(name=name)
    ports.check(settings)
    ModelPlaces(settings).check()


def _run(server: _Server) -> int:
    """Let it serve; return the exit code, or end the process at once where it must wait for nothing more."""
    code = server.run()
    if server.stuck:
        log_format.leave()
        os._exit(code)
    return code


def _allow_open_files(wanted: int) -> None:
    """Let this process, and what comes of it, have so many files open: every connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        log.warning(
            "this process may have %d files open; expected %d, for --max-connections and what it needs itself: "
            "raise its limit (ulimit -n), or connections will fail before the limit is reached",
            allowed,
            wanted,
        )


def _become_envoy(settings: Settings) -> NoReturn:
    if settings.worker is None:
        settings, held = ports.reserve(settings)
        for port in held:  # they stay open until the process ends
            port.set_inheritable(True)
            port.detach()
    else:
        os.set_inheritable(settings.worker.line, True)
    scratch = _scratch(settings)
    variables = environment(replace(settings, scratch=scratch))
    log_format.flush()
    envoy.become(listener(settings), variables, scratch)


def _scratch(settings: Settings) -> Path:
    """Make a folder for Envoy's files; a worker's is in its supervisor's, and goes with it at the latest."""
    if settings.worker is None:
        return Path(tempfile.mkdtemp(prefix="horngate-"))
    folder = settings.worker.http.with_suffix(".envoy")
    shutil.rmtree(folder, ignore_errors=True)  # one before us was killed
    folder.mkdir(mode=0o700)
    return folder
