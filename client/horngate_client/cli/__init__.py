"""The command ``horngate-client``.

A module for each command, or a few that belong together: it has ``add``, which tells the parser of them, and what they
do. ``parser`` has the options that all share, ``connection`` the client and the model that they mean.

Nothing is imported here that takes time: Ctrl-C in the first second is as quiet as later.
"""

from collections.abc import Sequence

DONE, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    try:
        from horngate_client.cli.command import run  # noqa: PLC0415 - imports gRPC and NumPy

        return run(argv)
    except KeyboardInterrupt:
        return INTERRUPTED
