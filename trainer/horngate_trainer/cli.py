"""The command ``horngate-trainer``; what it does is in `commands`, which is loaded where Ctrl-C is quiet already."""

import sys
from collections.abc import Sequence

from horngate_trainer import interrupts

FAILED, USAGE, INTERRUPTED = 1, 2, interrupts.EXIT_CODE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0 done, 1 failed, 2 wrong usage or input, 130 Ctrl-C."""
    with interrupts.Silent():
        from horngate_trainer import commands  # noqa: PLC0415 - NumPy takes a tenth of a second to import
        from horngate_trainer.errors import InputError, TrainerError  # noqa: PLC0415 - as above

    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        others = {"import": commands.import_, "golden": commands.golden}
        version = others[given[0]](given[1:]) if given and given[0] in others else commands.train(given)
    except InputError as error:
        return _failed(error, USAGE)
    except (TrainerError, OSError) as error:
        return _failed(error, FAILED)
    except KeyboardInterrupt as interrupt:
        print(f"\n{interrupt}" if interrupt.args else "", file=sys.stderr)
        return INTERRUPTED
    if version is not None:
        print(version)
    return 0


# --- private ---------------------------------------------------------------------------------------------------------


def _failed(error: Exception, code: int) -> int:
    print(f"horngate-trainer: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
