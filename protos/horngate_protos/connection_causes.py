"""Why gRPC could not make a connection, as far as its words tell; client and server's probe say it in theirs."""

from enum import Enum, auto


class Cause(Enum):
    """What is wrong with a connection that could not be made."""

    UNTRUSTED = auto()
    OTHER_NAME = auto()
    NO_TLS = auto()
    HTTP = auto()
    NOBODY = auto()
    SILENT = auto()
    UNKNOWN_NAME = auto()
    HUNG_UP = auto()


def cause(details: str) -> Cause | None:
    """Return the cause that a status's details tell of; None where they tell of none that is known here.

    Args:
        details: of a call that failed with UNAVAILABLE.
    """
    return next((cause for words, cause in _WORDS.items() if words in details), None)


_WORDS = {
    "CERTIFICATE_VERIFY_FAILED": Cause.UNTRUSTED,
    "Hostname Verification Check failed": Cause.OTHER_NAME,
    "WRONG_VERSION_NUMBER": Cause.NO_TLS,
    "http1.x server": Cause.HTTP,
    "Expected SETTINGS frame": Cause.HTTP,
    "Connection refused": Cause.NOBODY,
    "before receiving SETTINGS": Cause.SILENT,
    "errors resolving": Cause.UNKNOWN_NAME,
    "Socket closed": Cause.HUNG_UP,
    "Connection reset": Cause.HUNG_UP,
}
"""Of several that are found, the first counts."""
