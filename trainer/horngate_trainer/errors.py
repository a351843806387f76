"""What can go wrong, as the domain sees it; cli.py has the table from these to exit codes.

TrainerError
├── InputError             what the caller gave cannot be used
│   ├── SettingsError      a flag or variable
│   ├── DataError          the training data
│   │   └── TooLargeError  they need more memory than there is
│   ├── SourceError        the model that is to be imported
│   ├── ExamplesError      the rows that it is to be tried with (an ExportError, too)
│   └── ResumeError        the checkpoint belongs to another training
├── CheckpointError        the checkpoint is damaged
├── DownloadError          Keras's own download failed
├── WorkersError           another process of the same training has failed, or did not come
├── AccuracyError          the trained model is worse than --min-accuracy
└── ExportError            the model could not be written, verified or published
    └── VerificationError  what was written does not compute what the original computes
"""

import re


class TrainerError(Exception):
    """Anything that the trainer refuses or fails to do; its text is one line for the user."""


class InputError(TrainerError):
    """What the caller gave cannot be used as it is."""


class SettingsError(InputError):
    """A flag or HORNGATE_ variable has a value that cannot be used; the text names the flag."""


class DataError(InputError):
    """The training data are not what Keras's layout asks for."""


class TooLargeError(DataError):
    """The training data need more memory than there is."""


class SourceError(InputError):
    """The model that is to be imported is none, or cannot be loaded as things are."""


class ResumeError(InputError):
    """The checkpoint belongs to a training with other settings."""


class CheckpointError(TrainerError):
    """The checkpoint is damaged, or is none."""


class DownloadError(TrainerError):
    """The data could not be downloaded."""


class WorkersError(TrainerError):
    """Another process of the same training has failed, or cannot be reached."""


class AccuracyError(TrainerError):
    """The trained model is worse than the operator accepts."""


class ExportError(TrainerError):
    """The model could not be written, verified or published. Nothing was published."""


class ExamplesError(ExportError, InputError):
    """The rows that the model is to be tried with do not fit it. Nothing was published."""


class VerificationError(ExportError):
    """The written model does not compute what the original computes."""


def first_line(exc: BaseException) -> str:
    """Return the one line of another library's error that says what is wrong."""
    lines = [_ANSI.sub("", line).strip() for line in str(exc).splitlines()]
    telling = [line for line in lines if line and not line.startswith(_PREAMBLE)]
    return telling[0] if telling else type(exc).__name__


_ANSI = re.compile(r"\x1b\[\d*m")
_PREAMBLE = (
    "Exception encountered when calling", "Graph execution error", "Detected at node", "<stack traces unavailable>",
    "Arguments received by", "\N{BULLET}",
)  # fmt: skip
