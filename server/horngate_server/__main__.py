"""``python -m horngate_server``: the command ``horngate-server``."""

import sys

from horngate_server.process.cli import main

sys.exit(main())
