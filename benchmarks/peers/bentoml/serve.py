"""BentoML: its adaptive batching, arrays as JSON, which is all that it takes over HTTP without a client of its own.

python serve.py VERSION_FOLDER PORT
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

if __name__ == "__main__":
    os.environ["MNIST_FOLDER"] = sys.argv[1]
    os.environ["BENTOML_DO_NOT_TRACK"] = "1"
    os.execv(
        os.path.join(os.path.dirname(sys.executable), "bentoml"),
        [
            "bentoml",
            "serve",
            "serve:Mnist",
            "--working-dir",
            os.path.dirname(os.path.abspath(__file__)),
            "--host",
            "127.0.0.1",
            "--port",
            sys.argv[2],
        ],
    )

import bentoml
import numpy as np
import tensorflow as tf


@bentoml.service(traffic={"timeout": 60, "max_concurrency": 1000}, workers=1, logging={"access": {"enabled": False}})
class Mnist:
    """The SavedModel's signature as a service."""

    def __init__(self) -> None:
        self._call = tf.saved_model.load(os.environ["MNIST_FOLDER"]).signatures["serving_default"]

    @bentoml.api(batchable=True, batch_dim=0, max_batch_size=1024, max_latency_ms=1000)
    def infer(self, images: np.ndarray) -> np.ndarray:
        """Compute a batch that BentoML has put together."""
        return self._call(images=tf.constant(images.astype(np.uint8)))["probabilities"].numpy()
