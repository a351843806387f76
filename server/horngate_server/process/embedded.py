"""What pyvoy imports inside Envoy: the server (`inside_envoy`), while TensorFlow's library is loaded beside it."""

import os
import sys
from functools import partial
from pathlib import Path

from horngate_server.core import settings
from horngate_server.lifecycle.model_places import needs_tensorflow
from horngate_server.runtimes import library_loading
from horngate_server.transports.pyvoy import envoy

sys.path[:] = [path for path in sys.path if path not in {"", "."}]  # pyvoy's; so far, it was a folder of our own
os.chdir(Path(envoy.HERE).readlink())

library_loading.begin(partial(needs_tensorflow, settings.read([])))

from horngate_server.process.inside_envoy import app, web  # noqa: E402 - meanwhile

__all__ = ["app", "web"]
