"""TensorFlow prints two lines about itself whenever it is imported; no setting of its own stops them."""

import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from horngate_trainer.errors import TrainerError

_CHATTER = ("WARNING: All log messages before absl::InitializeLog()", "I0000 ")


@contextmanager
def imports() -> Iterator[None]:
    """Hold back what native code writes to stderr meanwhile, and pass on at the end all but that chatter.

    Raises:
        TrainerError: TensorFlow is not installed; for the newest Pythons there may be none.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except ModuleNotFoundError as error:
            if error.name not in {"tensorflow", "keras"}:
                raise
            raise TrainerError(
                "TensorFlow is not installed: pip install 'horngate[trainer]' on Python 3.11 to 3.13; "
                f"this is {platform.python_version()}"
            ) from error
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
            held.seek(0)
            for line in held.read().decode(errors="replace").splitlines(keepends=True):
                if not line.startswith(_CHATTER):
                    os.write(2, line.encode())
