"""Horngate's client: asks any server that speaks the Open Inference Protocol over gRPC.

>>> from horngate_client import Client
>>> with Client("localhost:8001") as client:  # doctest: +SKIP
...     client.predict("seven.png").label
7
"""

TYPE_CHECKING = False  # typing itself is left for later, too
if TYPE_CHECKING:
    from horngate_client.public import *  # noqa: F403
    from horngate_client.public import __all__ as __all__
else:

    def __getattr__(name):  # noqa: ANN001, ANN202
        # The command is in this package too, and is to run before gRPC and NumPy are imported, which takes a while.
        if name[:1].isupper() or name in {"__all__", "__version__"}:  # others are modules, which Python finds itself
            from importlib import import_module  # noqa: PLC0415

            public = import_module("horngate_client.public")
            if name in ("__all__", *public.__all__):
                return getattr(public, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__():  # noqa: ANN202
        return [*globals(), *__getattr__("__all__")]
