"""Imports TensorFlow once and forks an exporter for every line on stdin: for the kill -9 test.

Forking is safe: before its first operation TensorFlow has started no threads of its own. For each
line it prints the child's process id when the export begins, and how the child ended.
"""

import os
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras

from horngate_trainer.exporter import export


def run(root: Path) -> None:
    """Build a model and export it once."""
    model = keras.Sequential([keras.Input((28, 28), name="images"), keras.layers.Flatten(), keras.layers.Dense(128)])
    print(os.getpid(), flush=True)
    export(model, root, name="tiny", dtypes={"images": "uint8"}, divisors={"images": 255})


for _ in sys.stdin:
    child = os.fork()
    if not child:
        run(Path(sys.argv[1]))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    print(f"exit {code}" if code >= 0 else f"signal {-code}", flush=True)
