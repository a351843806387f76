"""TensorFlow and its tools print about themselves, and no setting of their own stops them."""

import importlib.util
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from horngate_trainer import interrupts
from horngate_trainer.errors import TrainerError

_CHATTER = ("WARNING: All log messages before absl::InitializeLog()", "I0000 ")


def require(purpose: str, *modules: str, otherwise: str) -> None:
    """See that modules are installed, before hours of work that need them in the end.

    Args:
        purpose: what needs them, for the message.
        modules: their names.
        otherwise: what else a person can do.

    Raises:
        TrainerError: one is missing; the text says how to get it.
    """
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise TrainerError(
                f"{purpose} needs {module}, which is not installed: pip install 'horngate[trainer]', or {otherwise}"
            )


@contextmanager
def imports() -> Iterator[None]:
    """Hold back what native code writes to stderr meanwhile, and pass on at the end all but that chatter.

    Raises:
        TrainerError: TensorFlow is not installed; for the newest Pythons there may be none.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    saved = os.dup(2)
    with interrupts.Silent(), tempfile.TemporaryFile() as held:
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


@contextmanager
def everything() -> Iterator[None]:
    """Drop what anybody writes to stdout and stderr meanwhile, native code too."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    saved = [os.dup(descriptor) for descriptor in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for descriptor in (1, 2):
            os.dup2(nowhere, descriptor)
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for descriptor, kept in zip((1, 2), saved, strict=True):
            os.dup2(kept, descriptor)
        for descriptor in (nowhere, *saved):
            os.close(descriptor)
