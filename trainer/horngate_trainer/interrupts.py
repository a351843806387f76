"""Ctrl-C while modules are imported. It imports nearly nothing itself: what comes before it is not quiet."""

import os
import signal

EXIT_CODE = 130


class Silent:
    """Ends the process without a word on Ctrl-C, while it is entered: there is nothing to tidy up yet.

    KeyboardInterrupt would be raised in the middle of a module, and come out as a traceback, or as another error. Where
    the signal is ignored, or somebody else's, and in other threads than the main one, nothing is changed.
    """

    _changed = False

    def __enter__(self) -> None:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            try:
                signal.signal(signal.SIGINT, lambda *_: os._exit(EXIT_CODE))
            except ValueError:  # not the main thread
                return
            self._changed = True

    def __exit__(self, *_: object) -> None:
        if self._changed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
