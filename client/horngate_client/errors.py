"""What can go wrong, as a tree; every branch is what a caller can do about it.

::

    HorngateError
    ├── ConversionError        (ValueError)    the data do not fit the model, or a parameter is of the wrong type
    ├── ConfigurationError     (ValueError)    the client was built or called with options that cannot work
    ├── MissingExtra           (ImportError)   an optional package is not installed
    ├── ClientClosed           (RuntimeError)  the client was used after it was closed
    ├── ProtocolError                          the other side does not speak the protocol, or broke it
    └── CallError                              the call was made and failed: code, details, address, attempts
        ├── InvalidRequest                     never retry: the request itself is wrong
        ├── ModelNotFound                      never retry: the server has no such model or version
        ├── Unauthenticated                    never retry: no token, a wrong one, or one without this right
        ├── DeadlineExceeded   (TimeoutError)  the caller's choice: the time was up
        ├── TryLater                           retried within the deadline, and it did not pass
        │   ├── Overloaded                     the server's queue is full
        │   └── Unavailable                    nobody answers there, or the server is starting or stopping
        └── ServerFault                        the server's fault, retried once where that can help

No caller needs to import grpc: its exceptions are turned into these in one place,
``horngate_client.failures``.
"""


class HorngateError(Exception):
    """Everything that this package raises on purpose."""


class ConversionError(HorngateError, ValueError):
    """The data cannot become the model's input without a guess, or a parameter is of a type that cannot be meant.

    Raised before anything is sent.
    """


class ConfigurationError(HorngateError, ValueError):
    """An option makes no sense, alone or beside another: an address, a timeout, a token without TLS."""


class MissingExtra(HorngateError, ImportError):
    """An optional package is needed for this and is not installed; the message says how to get it."""


class ClientClosed(HorngateError, RuntimeError):
    """The client was used after ``close()``, or closed while it was being used."""


class ProtocolError(HorngateError):
    """The answer is not one that the Open Inference Protocol allows for this request."""


class CallError(HorngateError):
    """A call reached for a server and failed.

    Attributes:
        code: the name of the gRPC status, such as ``"UNAVAILABLE"``.
        details: the server's own words.
        address: the server that answered, or did not.
        attempts: how often it was tried.
        tried: the address of each try, in order.
        seconds: how long that took, from the start of the call.
        unsent: no connection could be made, so no server saw the request.
        lasting: neither time nor another try at this address cures it: TLS is spoken where none is, or a certificate
            is not trusted.
        share_only: the attempt's share of the time was used up, not the call's time.
        pushback: seconds that the server asked to wait before the next try; negative where it asked that
            there be none; None where it said nothing.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        details: str = "",
        address: str = "",
        attempts: int = 1,
        pushback: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.details = details
        self.address = address
        self.attempts = attempts
        self.pushback = pushback
        self.tried: tuple[str, ...] = (address,) if address else ()
        self.seconds = 0.0
        self.unsent = False
        self.lasting = False
        self.share_only = False

    def __str__(self) -> str:
        message = super().__str__()
        if self.attempts == 1:
            return message
        where = ", ".join(dict.fromkeys(self.tried))
        return f"{message} (tried {self.attempts} times in {self.seconds:.1f} s, at {where})"


class InvalidRequest(CallError):
    """The server refused the request as wrong: an unknown input, a shape, a datatype, a size."""


class ModelNotFound(CallError):
    """The server does not know the model or the version."""


class Unauthenticated(CallError):
    """The server wants a token, another token, or a token that may do this."""


class DeadlineExceeded(CallError, TimeoutError):
    """The time given to the whole call, retries included, was up."""


class TryLater(CallError):
    """It may work later; it was retried for as long as the deadline and the policy allowed."""


class Overloaded(TryLater):
    """The server's queue is full."""

    @property
    def retry_after(self) -> float | None:
        """Seconds that the server asked to wait; None where it said nothing, or not to come back."""
        return self.pushback if self.pushback is not None and self.pushback >= 0 else None


class Unavailable(TryLater):
    """Nobody answers at the address, or the server is loading, draining or shutting down."""


class ServerFault(CallError):
    """The model or the server failed."""
