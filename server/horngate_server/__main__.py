"""The command ``horngate-server``, also as ``python -m horngate_server``."""

import signal
import sys

# Before the other imports: Ctrl-C during them ends the process without a traceback. A job in the background ignores it.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from horngate_server.process.cli import main

if __name__ == "__main__":
    sys.exit(main())
