"""TensorFlow prints two lines about itself whenever it is imported; no setting of its own stops them."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_CHATTER = ("WARNING: All log messages before absl::InitializeLog()", "I0000 ")


@contextmanager
def imports() -> Iterator[None]:
    """Hold back what native code writes to stderr meanwhile, and pass on at the end all but that chatter."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
            held.seek(0)
            for line in held.read().decode(errors="replace").splitlines(keepends=True):
                if not line.startswith(_CHATTER):
                    os.write(2, line.encode())
