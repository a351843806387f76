"""The command ``horngate-trainer``: settings, data, fit, export, report, in this order; errors to exit codes."""

import sys
from collections.abc import Sequence
from pathlib import Path

from horngate_protos.stores import StoreUrl
from horngate_trainer import data, memory, publish, quiet, remote, settings
from horngate_trainer.errors import InputError, TrainerError
from horngate_trainer.recipes import RECIPES

FAILED, USAGE, INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0 done, 1 failed, 2 wrong usage or input, 130 Ctrl-C."""
    try:
        chosen = settings.parse(sys.argv[1:] if arguments is None else arguments)
        # a store is asked in any case: what is wrong with it is better known before the training than after it
        there = _newest(chosen) if chosen.once or isinstance(chosen.output, StoreUrl) else None
        if chosen.once and there is not None:
            print("horngate-trainer: --once, and there is a version already", file=sys.stderr)
            print(there)
            return 0
        dataset = _load(chosen)  # before TensorFlow: bad data are refused at once
        with quiet.imports():
            from horngate_trainer import pipeline  # noqa: PLC0415 - TensorFlow takes seconds to import

        version: Path | str = pipeline.run(chosen, dataset, sys.stderr)
        if isinstance(chosen.output, StoreUrl):
            version = remote.upload(version, chosen.output)
    except InputError as error:
        return _failed(error, USAGE)
    except TrainerError as error:
        return _failed(error, FAILED)
    except OSError as error:
        return _failed(error, FAILED)
    except KeyboardInterrupt:
        print("\ninterrupted: --resume goes on after the last finished epoch", file=sys.stderr)
        return INTERRUPTED
    print(version)
    return 0


# --- private ---------------------------------------------------------------------------------------------------------


def _load(chosen: settings.Settings) -> data.Dataset:
    """Load the data, and say what a training with them needs.

    Raises:
        DataError: they are bad, or need more memory than there is; in that case no image was read.
        DownloadError: they could not be downloaded.
    """
    said = ""

    def check(size: memory.Size) -> None:
        nonlocal said
        batch = RECIPES[chosen.architecture].batch_size
        said = memory.check(size, chosen.architecture, batch, report=chosen.report is not None)

    dataset = data.load(chosen.data, check)
    if said:
        print(said, file=sys.stderr)
    return dataset


def _newest(chosen: settings.Settings) -> Path | str | None:
    """Return the newest version's folder, or its address in a store; None where there is none."""
    if isinstance(chosen.output, StoreUrl):
        return remote.newest(chosen.output, chosen.name)
    model = chosen.output / chosen.name
    numbers = publish.versions(model) if model.is_dir() else []
    return model / str(max(numbers)) if numbers else None


def _failed(error: Exception, code: int) -> int:
    print(f"horngate-trainer: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
