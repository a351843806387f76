"""A day's traffic, recorded and held against the next version, in minutes.

python benchmarks/replayed_day.py [--seconds 60] [--requests 6000] [--share 0.5] [FIRST SECOND]

A day of callers is made of test images, more of them by day than by night, and sent to a server of the first model as
fast as its 24 hours fit into so many seconds; the server records a share. What it recorded is sent again as it came: to
the same model, to the same one on the other engine, and to the second model. Each report is the client's own. Fails if
the same model answers differently, or the second one the same. FIRST and SECOND are versions' folders; without them,
two are trained.
"""

import argparse
import subprocess
import sys
import tempfile
from math import cos, pi
from pathlib import Path

import numpy as np
from serving_process import Server
from swaps import DATA, train

from horngate_protos import tfrecords
from horngate_protos.datatypes import BY_NAME
from horngate_protos.tensor_protos import fill
from horngate_protos.tensorflow_serving_pb2 import PredictionLog

DAY_S = 86400.0
BEGAN_S = 1_767_225_600
"""A midnight."""
BY_NIGHT = 0.2
"""Callers at the quietest hour, as a share of those at the busiest."""


def main() -> int:
    """Record a day, replay it three times, and say whether that showed what it should."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*", type=Path, metavar="FIRST SECOND")
    parser.add_argument("--seconds", type=float, default=60.0, help="that the day takes")
    parser.add_argument("--requests", type=int, default=6000, help="of the day")
    parser.add_argument("--share", default="0.5", help="that is recorded")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        first, second = given.versions or (train(scratch, seed) for seed in (1, 2))
        day, recorded = scratch / "day.tfrecord", scratch / "recorded"
        write_day(day, given.requests)
        with served(scratch / "first", first, "--record", str(recorded), "--record-share", given.share) as server:
            say(f"a day in {given.seconds:g} s, of which {given.share} are recorded")
            well = replay(server, day, "--speed", f"{DAY_S / given.seconds:g}") == 0
        with served(scratch / "first", first) as server:
            say("the recorded requests, to the same version")
            well &= replay(server, recorded) == 0
        with served(scratch / "first", first, "--engine", "tensorflow") as server:
            say("the same, computed by TensorFlow")
            well &= replay(server, recorded) == 0
        with served(scratch / "second", second, number=2) as server:
            say("the recorded requests, to the next version")
            well &= replay(server, recorded) == 1
    return 0 if well else 1


def write_day(file: Path, requests: int) -> None:
    """Write requests as if they had been recorded: images of the test data, by the hour."""
    with np.load(DATA) as data:
        images = data["x_test"]
    hours = np.linspace(0, 24, 24 * 60)
    callers = np.array([1 - (1 - BY_NIGHT) * (1 + cos(2 * pi * hour / 24)) / 2 for hour in hours])
    random = np.random.default_rng(0)
    times = np.sort(random.choice(hours, requests, p=callers / callers.sum()) * 3600 + random.random(requests) * 60)
    with file.open("wb") as out:
        for number, at in enumerate(times):
            log = PredictionLog()
            request = log.predict_log.request
            request.model_spec.name = "mnist"
            image = images[number % len(images)]
            fill(request.inputs["images"], BY_NAME["UINT8"], (1, *image.shape), image.tobytes())
            log.log_metadata.horngate_arrived_us = round((BEGAN_S + at) * 1e6)
            out.write(tfrecords.framed(log.SerializeToString()))


def served(root: Path, version: Path, *flags: str, number: int = 1) -> Server:
    """Return a server of one version of mnist."""
    place = root / f"mnist/{number}"
    if not place.is_symlink():
        place.parent.mkdir(parents=True)
        place.symlink_to(version.resolve())
    return Server(root, *(flags if "--engine" in flags else ("--engine", "litert", *flags)))


def replay(server: Server, *arguments: object) -> int:
    """Send requests again, show the report, and return the exit code."""
    command = [sys.executable, "-m", "horngate_client", "--server", server.grpc, "replay", *map(str, arguments)]
    return subprocess.run(command, check=False).returncode


def say(line: str) -> None:
    """Show what comes next."""
    print(f"\n# {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
