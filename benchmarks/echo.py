"""The fast transport alone, in the configuration that Horngate gives it.

python benchmarks/echo.py PORT

`echo_asgi` answers in the server's place.
"""

import sys
import tempfile
from pathlib import Path

from horngate_server.core import settings
from horngate_server.process import launch
from horngate_server.transports.pyvoy import envoy

envoy.APP = "echo_asgi:app"
chosen = settings.Settings(grpc_port=int(sys.argv[1]))
envoy.become(launch.listener(chosen), settings.environment(chosen), Path(tempfile.mkdtemp()))
