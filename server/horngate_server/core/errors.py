"""What can go wrong, in the words of the domain. No error here knows a status code: `grpc_status` has that table.

HorngateError
├── RequestError              one caller's request cannot be answered
│   ├── InvalidRequest        malformed, or it does not fit the model: never retry
│   ├── ModelNotFound         unknown model or version: never retry
│   │   └── LabelNotFound     unknown label of a known model: never retry
│   ├── SignatureNotFound     unknown signature of a known model: never retry
│   ├── MessageTooLarge       a message over the limit, or one that expands beyond it: never retry
│   ├── QueueFull             no room in the waiting line or in memory: retry later
│   ├── DeadlineExpired       the caller's deadline has passed, or cannot be met
│   ├── CallerGone            the caller has cancelled: nobody reads the answer
│   ├── NotReady              loading, draining or shutting down: retry elsewhere or later
│   ├── InputRefused          the model says that this request's values are wrong: never retry
│   ├── ModelFailed           the model raised while computing this batch: our fault
│   │   ├── OutOfMemory       a run needed more memory than there is: retry with fewer rows
│   │   └── NotInRows         the model did not answer row by row, as it had while it was proved
│   ├── Unauthenticated       no token, or nobody's: never retry
│   ├── Forbidden             a token that may not do this: never retry
│   ├── Refused               an administrator's wish that cannot be done as things are
│   └── NotImplementedHere    a method that this server does not have
├── ModelError                a SavedModel cannot be served
│   └── DeviceUnavailable     --device gpu, and there is none that works
├── StoreError                an object store failed, or holds what cannot be taken
└── SettingsError             wrong flags or variables: the message names the flag
"""

from typing import Self


class HorngateError(Exception):
    """Root of everything that Horngate raises on purpose."""


class RequestError(HorngateError):
    """One request cannot be answered; the message goes to its caller."""

    def bare(self) -> Self:
        """Return it without the way that it came: the frames on it hold requests, as long as the error is kept."""
        self.__traceback__ = self.__context__ = self.__cause__ = None
        return self


class InvalidRequest(RequestError):
    """The request is malformed or does not fit the model's signature."""


class ModelNotFound(RequestError):
    """No such model, or no such version of it."""


class LabelNotFound(ModelNotFound):
    """No version of the model has such a label."""


class SignatureNotFound(RequestError):
    """The model has no such signature."""


class MessageTooLarge(RequestError):
    """The message is larger than --max-message-bytes, as it came or expanded."""


class QueueFull(RequestError):
    """The waiting line has no room for this many rows, or memory none for this many bytes.

    Args:
        message: what was asked for and what the limits are.
        retry_after_s: seconds until there is likely to be room.
    """

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExpired(RequestError):
    """The caller's deadline passed while it waited, or would pass before its turn."""


class CallerGone(RequestError):
    """The caller cancelled or disconnected before its answer was ready."""


class NotReady(RequestError):
    """The model is not warm yet, or the server is draining."""


class InputRefused(RequestError):
    """The model refuses a request's values: an index out of range, a sequence too short, a failed assertion."""


class ModelFailed(RequestError):
    """The model failed on a batch."""


class OutOfMemory(ModelFailed):
    """A run needed more memory than there is."""


class NotInRows(ModelFailed):
    """The model answered a batch with other rows than it was given."""


class Unauthenticated(RequestError):
    """The call has no token, or one that nobody has."""


class Forbidden(RequestError):
    """The call's token is good, but not for this."""


class Refused(RequestError):
    """An administrator's wish cannot be done as things are; the message says why."""


class NotImplementedHere(RequestError):
    """The method belongs to a service that Horngate speaks, but Horngate does not have it."""


class ModelError(HorngateError):
    """A SavedModel that cannot be loaded or served; the message says what is wrong with it."""


class DeviceUnavailable(ModelError):
    """A GPU was demanded and none can be used."""


class SettingsError(HorngateError):
    """Wrong usage; the message names the offending flag or variable."""


class StoreError(HorngateError):
    """An object store failed, or holds what cannot be taken; the message holds no secret."""
