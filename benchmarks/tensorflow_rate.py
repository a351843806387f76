"""TensorFlow's own Python signature, called one after the other, with every core.

python benchmarks/tensorflow_rate.py VERSION_FOLDER SECONDS ROWS...

Prints rows a second for each number of rows, as JSON.
"""

import json
import os
import sys
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
import numpy as np
import tensorflow as tf

loaded = tf.saved_model.load(sys.argv[1])
serve = loaded.signatures["serving_default"]
[(name, spec)] = serve.structured_input_signature[1].items()
seconds = float(sys.argv[2])
rates = {}
for rows in map(int, sys.argv[3:]):
    given = tf.constant(np.random.default_rng(1).random((rows, *spec.shape[1:]), np.float32))
    for _ in range(3):
        serve(**{name: given})
    calls = 0
    began = time.perf_counter()
    while (took := time.perf_counter() - began) < seconds:
        for answer in serve(**{name: given}).values():
            answer.numpy()
        calls += 1
    rates[rows] = calls * rows / took
print(json.dumps(rates))
