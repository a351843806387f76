"""The command ``horngate-client``.

A module for each command, or a few that belong together: it has ``add``, which tells the parser of them, and what they
do. ``parser`` has the options that all share, ``connection`` the client and the model that they mean.

Nothing is imported here that takes time: Ctrl-C in the first second is as quiet as later.
"""

from collections.abc import Callable, Sequence

DONE, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    try:
        return _imported()(argv)
    except KeyboardInterrupt:
        return INTERRUPTED


# --- private ---------------------------------------------------------------------------------------------


def _imported() -> Callable[[Sequence[str] | None], int]:
    """Import the command. Ctrl-C ends the process meanwhile: in an import it may become another error."""
    import os  # noqa: PLC0415
    import signal  # noqa: PLC0415

    before = signal.getsignal(signal.SIGINT)
    try:
        if before is signal.default_int_handler:
            signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    except ValueError:  # not the main thread, which alone is interrupted
        before = None
    try:
        from horngate_client.cli.command import run  # noqa: PLC0415
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)
    return run
