"""Ray Serve: one replica, @serve.batch with a window of 1 ms, raw bytes over HTTP.

python serve.py VERSION_FOLDER PORT
"""

import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import numpy as np
from ray import serve
from starlette.requests import Request


@serve.deployment(
    max_ongoing_requests=1000, ray_actor_options={"num_cpus": 1}, logging_config={"enable_access_log": False}
)
class Mnist:
    """The SavedModel's signature as a deployment."""

    def __init__(self, folder: str) -> None:
        import tensorflow as tf

        self._tf = tf
        self._call = tf.saved_model.load(folder).signatures["serving_default"]

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.001)
    async def infer(self, images: list[np.ndarray]) -> list[dict]:
        """Compute a batch that Ray has put together."""
        outputs = self._call(images=self._tf.constant(np.concatenate(images)))
        probabilities, classes = outputs["probabilities"].numpy(), outputs["classes"].numpy()
        ends = np.cumsum([len(each) for each in images])
        return [
            {
                "probabilities": probabilities[end - len(each) : end].tolist(),
                "classes": classes[end - len(each) : end].tolist(),
            }
            for each, end in zip(images, ends, strict=True)
        ]

    async def __call__(self, request: Request) -> dict:
        """Answer one request."""
        return await self.infer(np.frombuffer(await request.body(), np.uint8).reshape(-1, 28, 28))


serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2])}, logging_config={"enable_access_log": False})
serve.run(Mnist.bind(sys.argv[1]), route_prefix="/")
while True:
    time.sleep(3600)
