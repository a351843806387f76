"""`make run`: train (or reuse) the digits model, serve it, classify the 10,000 test images, and keep serving.

Uses the three commands and the client as any user would.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from horngate_client import Client
from horngate_client.chart import picture

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
MODELS = Path("models")


def trained() -> Path:
    """Return the newest exported version; train one if there is none."""
    versions = [path.parents[1] for path in MODELS.glob("mnist/[0-9]*/assets.extra/horngate.json")]
    if versions:
        version = max(versions, key=lambda path: int(path.name))
        print(f"using     {version} (make clean removes it, and a new one is trained)", flush=True)
        return version
    print("training  the Keras MNIST network, 10 epochs", flush=True)
    done = subprocess.run(
        [BIN / "horngate-trainer", "--output", MODELS], check=False, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        sys.exit(done.returncode)  # it has said why
    return Path(done.stdout.splitlines()[-1])


@contextmanager
def serving() -> Iterator[tuple["subprocess.Popen[str]", str, str]]:
    """Start the server; yields it with its gRPC and HTTP addresses once it is ready."""
    with tempfile.TemporaryDirectory() as scratch:
        ports = Path(scratch, "ports")
        server = subprocess.Popen(
            [BIN / "horngate-server", "--models", MODELS, "--port-file", ports],
            stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip  # a session of its own: Ctrl-C reaches this script, which stops the server in order
        ready = threading.Event()
        log = threading.Thread(target=_relay, args=(server, ready), daemon=True)
        log.start()
        try:
            ready.wait()
            if server.poll() is not None or not ports.exists():
                sys.exit(server.wait() or 1)
            numbers = dict(line.split() for line in ports.read_text().splitlines())
            yield server, f"localhost:{numbers['grpc']}", f"http://localhost:{numbers['http']}"
        finally:
            server.terminate()
            server.wait()
            log.join()


def classify(address: str, version: Path) -> None:
    """Send the test images, compare with the trainer's own evaluation, and show a few digits."""
    with np.load(ROOT / "trainer/horngate_trainer/data/mnist.npz") as data:
        images, labels = data["x_test"], data["y_test"]
    with Client(address, timeout=60) as client:
        client.predict(images[:1])  # the first call connects and reads the signature
        began = time.perf_counter()
        prediction = client.predict(images)
        seconds = time.perf_counter() - began
    right = int((prediction.classes == labels).sum())
    expected = json.loads((version / "assets.extra/horngate.json").read_text())["evaluation"]["correct"]
    agreement = "as the trainer found" if right == expected else f"but the trainer found {expected}"
    print(f"\nclassified {len(images)} test images over gRPC in {seconds:.2f} s: {len(images) / seconds:,.0f} images/s")
    print(f"right      {right} of {len(images)} ({right / len(images):.2%}), {agreement}\n")
    shown = max(2, shutil.get_terminal_size().columns // 29)  # 28 pixels and a gap each
    chosen = [
        *np.flatnonzero(prediction.classes == labels)[: shown - 1],
        np.flatnonzero(prediction.classes != labels)[0],
    ]
    for row in zip(*(picture(images[index]) for index in chosen), strict=True):
        print(" ".join(row).rstrip())
    captions = [_caption(prediction.probabilities[i], prediction.classes[i], labels[i]) for i in chosen]
    print(" ".join(caption.ljust(28) for caption in captions).rstrip())


def main() -> int:
    """Do it all; return the exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: leave no server behind
    version = trained()
    try:
        with serving() as (server, grpc, http):
            classify(grpc, version)
            python = os.path.relpath(BIN)
            print(
                f"""
gRPC       {grpc}   (Triton's, KServe's and TensorFlow Serving's clients work too)
console    {http}/
metrics    {http}/metrics

try next, in another terminal:
  {python}/horngate-client --server {grpc} status
  {python}/horngate-client --server {grpc} load --duration 5s
  {python}/horngate-client --server {grpc} predict DIGIT.png
  curl {http}/metrics

serving until Ctrl-C""",
                flush=True,
            )
            return _wait(server)
    except KeyboardInterrupt:
        return 0


# --- private ------------------------------------------------------------------------------------------


def _wait(server: "subprocess.Popen[str]") -> int:
    """Wait for the server's end, with pauses: a Ctrl-C that another thread receives does not interrupt a plain wait."""
    while True:
        with suppress(subprocess.TimeoutExpired):
            return server.wait(timeout=0.5)


def _relay(server: "subprocess.Popen[str]", ready: threading.Event) -> None:
    """Pass the server's log on; its last banner line, or its end, sets the event."""
    assert server.stderr
    for line in server.stderr:
        sys.stderr.write(line)
        sys.stderr.flush()
        if "queue      up to" in line:
            ready.set()
    ready.set()


def _caption(probabilities: np.ndarray, predicted: int, label: int) -> str:
    verdict = "" if predicted == label else f", is {label}"
    return f"{predicted} ({probabilities[predicted]:.0%}{verdict})"


if __name__ == "__main__":
    sys.exit(main())
