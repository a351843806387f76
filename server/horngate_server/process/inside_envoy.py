"""The server inside Envoy: pyvoy, which `embedded` gives it to, calls `app` for every call; the rest runs beside it.

For calls by gRPC-Web it calls `web`. Importing it starts the server, since Envoy listens as soon as it is imported: the
model loads meanwhile. A worker's import ends only once its models are there: others listen on its port.
"""

import logging
import os
import shutil
import threading
import time
from functools import partial

from horngate_server.core import settings
from horngate_server.process.app import App
from horngate_server.process.cli import exit_code
from horngate_server.telemetry import log_format
from horngate_server.telemetry.sampling import Sampler
from horngate_server.transports.access import tls
from horngate_server.transports.access.gate import Gate
from horngate_server.transports.pyvoy import envoy
from horngate_server.transports.pyvoy.deadlines import Deadlines
from horngate_server.transports.pyvoy.envoy_admin import EnvoyAdmin
from horngate_server.transports.pyvoy.grpc_web import WithGrpcWeb
from horngate_server.transports.pyvoy.transport import FastTransport

log = logging.getLogger(__name__)

_settings = settings.read([])  # `launch` has put all of them into variables
assert _settings.scratch
_scratch = _settings.scratch
_gate = Gate.of(_settings, time.monotonic)


def _transport(port: int) -> FastTransport:
    return FastTransport(
        port=port,
        admin=EnvoyAdmin(envoy.admin(_scratch)),
        max_message_bytes=_settings.max_message_bytes,
        gate=_gate,
        clock=time.monotonic,
        sampler=Sampler.of(_settings),
    )


app = _transport(_settings.grpc_port)
_web = None if _settings.grpc_web_port is None else _transport(_settings.grpc_web_port)
web = None if _web is None else Deadlines(_web)


def _main() -> None:
    """Serve, and end the process: Envoy itself never decides to."""
    code = 1
    try:
        code = exit_code(lambda: App(_settings, WithGrpcWeb(app, _web) if _web else app, _gate).run())
    except BaseException:  # the process ends below, without a word of its own
        log.critical("unexpected failure. This is a bug.", exc_info=True)
    finally:
        shutil.rmtree(_scratch, ignore_errors=True)
        log_format.leave()
        os._exit(code)


log_format.set_up(_settings.log_format, _settings.log_level, _settings.worker.number if _settings.worker else None)
if _settings.tls is not None:
    tls.renew(tls.Certificates(_settings.tls, time.monotonic), partial(envoy.write_secrets, _scratch))
threading.Thread(target=_main, name="main").start()
if _settings.worker is not None:
    app.wanted.wait()  # Envoy listens once this module is there
