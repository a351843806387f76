"""``python -m horngate_client`` is the command."""

import sys

from horngate_client.cli import main

sys.exit(main())
