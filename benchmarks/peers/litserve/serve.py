"""LitServe: batching with a window of 1 ms, images as base64 in JSON, which is its fastest way to take an array.

python serve.py VERSION_FOLDER PORT
"""

import base64
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import litserve
import numpy as np


class Mnist(litserve.LitAPI):
    """The SavedModel's signature behind LitServe's interface."""

    def setup(self, device):
        """Load it."""
        import tensorflow as tf

        self._tf = tf
        self._call = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]

    def decode_request(self, request):
        """Read an array."""
        return np.frombuffer(base64.b64decode(request["images"]), np.uint8).reshape(-1, 28, 28)

    def batch(self, inputs):
        """Put arrays together, whatever their lengths."""
        return np.concatenate(inputs), [len(each) for each in inputs]

    def predict(self, batch):
        """Compute a batch that LitServe has put together."""
        images, sizes = batch
        outputs = self._call(images=self._tf.constant(images))
        return outputs["probabilities"].numpy(), outputs["classes"].numpy(), np.cumsum(sizes)[:-1]

    def unbatch(self, output):
        """Take the answers apart."""
        probabilities, classes, cuts = output
        return list(zip(np.split(probabilities, cuts), np.split(classes, cuts), strict=True))

    def encode_response(self, output):
        """Write an answer."""
        return {"probabilities": output[0].tolist(), "classes": output[1].tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Mnist(max_batch_size=64, batch_timeout=0.001), accelerator="cpu", timeout=60)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning")
