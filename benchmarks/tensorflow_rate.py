"""TensorFlow's own Python signature, with every core: called one after the other, and from several threads at once.

python benchmarks/tensorflow_rate.py VERSION_FOLDER SECONDS THREADS ROWS...

Prints rows a second for each number of rows, called one after the other, and for calls with one row from so many
threads at once ("threads"), as JSON. Inputs with a free axis are `sequences.lengths` long, in turn.
"""

import json
import os
import sys
import threading
import time
from itertools import count

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
import sequences
import tensorflow as tf

loaded = tf.saved_model.load(sys.argv[1])
serve = loaded.signatures["serving_default"]
[(name, spec)] = serve.structured_input_signature[1].items()
seconds, threads = float(sys.argv[2]), int(sys.argv[3])


def requests(rows: int) -> list[tf.Tensor]:
    """Return what is asked for in turn."""
    return [tf.constant(each) for each in sequences.inputs(spec.dtype.as_numpy_dtype, spec.shape[1:], rows)]


def rate(rows: int, callers: int) -> float:
    """Return rows a second."""
    given = requests(rows)
    for each in given:
        serve(**{name: each})
    calls = [0] * callers
    began = time.perf_counter()

    def call(place: int) -> None:
        for number in count(place):
            if time.perf_counter() - began > seconds:
                return
            for answer in serve(**{name: given[number % len(given)]}).values():
                answer.numpy()
            calls[place] += 1

    workers = [threading.Thread(target=call, args=(place,)) for place in range(callers)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(calls) * rows / (time.perf_counter() - began)


rates: dict[str, float] = {str(rows): rate(int(rows), 1) for rows in sys.argv[4:]}
rates["threads"] = rate(1, threads)
print(json.dumps(rates))
