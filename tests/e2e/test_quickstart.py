"""`make run`, as a newcomer sees it."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "deploy/quickstart.py"


def test_the_quickstart_trains_serves_classifies_and_stops_when_told_to(tmp_path: Path) -> None:
    """Accuracy as the trainer found it, digits as pictures, addresses, next steps; the second run reuses the model.

    Ctrl-C or SIGTERM: the server ends with it.
    """
    quick = {
        "HORNGATE_GRPC_PORT": "0",
        "HORNGATE_HTTP_PORT": "0",
        "HORNGATE_EPOCHS": "2",
        "HORNGATE_MIN_ACCURACY": "0.9",
    }
    for first_line, number in (
        ("training  the Keras MNIST network", signal.SIGINT),
        ("using     models/mnist/1", signal.SIGTERM),
    ):
        with subprocess.Popen(
            [sys.executable, SCRIPT],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path, env={**os.environ, **quick},
        ) as process:  # fmt: skip
            assert process.stdout
            watchdog = threading.Timer(50, process.kill)
            watchdog.start()
            seen = []
            for line in process.stdout:
                seen.append(line)
                if line.startswith("serving until Ctrl-C"):
                    process.send_signal(number)
            watchdog.cancel()
            assert process.wait(30) == 0, "".join(seen)
        text = "".join(seen)
        assert text.startswith(first_line)
        assert "of 10000 (9" in text
        assert "as the trainer found" in text
        assert "images/s" in text
        assert "█" in text
        assert "/metrics" in text
        assert "stopped: every accepted request was answered" in text
