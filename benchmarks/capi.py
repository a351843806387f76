"""TensorFlow's C API alone, with one thread.

python benchmarks/capi.py VERSION_FOLDER MNIST.npz

Prints the median seconds of one row, then of 256 rows.
"""

import statistics
import sys
import time
from pathlib import Path

import numpy as np

from horngate_server.runtimes.tensorflow import load

RUNS = 1500
UNCOUNTED = 100

with np.load(sys.argv[2]) as data:
    images = data["x_test"]
model = load(Path(sys.argv[1]), device="cpu", threads=1)
for rows in (1, 256):
    feed = model.feed(model.signature, [(rows, 28, 28)])
    feed.arrays[0][:] = images[:rows]
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        model.run(feed)
        times.append(time.perf_counter() - began)
    print(statistics.median(times[UNCOUNTED:]))
