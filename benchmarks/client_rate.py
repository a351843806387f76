"""The project's client classifies all 70,000 images.

python benchmarks/client_rate.py ADDRESS MNIST.npz

Prints images a second, the median of five times.
"""

import statistics
import sys
import time

import numpy as np

from horngate_client import Client

with np.load(sys.argv[2]) as data:
    images = np.concatenate([data["x_train"], data["x_test"]])
times = []
with Client(sys.argv[1], timeout=60) as client:
    for _ in range(6):
        began = time.perf_counter()
        assert len(client.predict(images).classes) == len(images)
        times.append(time.perf_counter() - began)
print(len(images) / statistics.median(times[1:]))
