"""MLServer: a custom runtime as its documentation shows, adaptive batching with a window of 1 ms, in one process.

python serve.py VERSION_FOLDER PORT
"""

import asyncio
import os
import socket
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import tensorflow as tf
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse


class Mnist(MLModel):
    """The SavedModel's signature behind MLServer's interface."""

    async def load(self) -> bool:
        """Load it."""
        self._call = tf.saved_model.load(self.settings.parameters.uri).signatures["serving_default"]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Compute a batch that MLServer has put together."""
        images = NumpyCodec.decode_input(payload.inputs[0])
        outputs = self._call(images=tf.constant(images))
        return InferenceResponse(
            model_name=self.name,
            outputs=[NumpyCodec.encode_output(name, tensor.numpy()) for name, tensor in sorted(outputs.items())],
        )


def free() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


async def main() -> None:
    """Serve."""
    server = MLServer(
        Settings(
            host="127.0.0.1", grpc_port=int(sys.argv[2]), http_port=free(), metrics_port=free(), parallel_workers=0,
            grpc_max_message_length=-1, debug=False,
        )
    )  # fmt: skip
    model = ModelSettings(
        name="mnist", implementation=Mnist, parameters=ModelParameters(uri=sys.argv[1]), max_batch_size=1024,
        max_batch_time=0.001,
    )  # fmt: skip
    await server.start([model])


asyncio.run(main())
