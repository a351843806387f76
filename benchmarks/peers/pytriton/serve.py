"""PyTriton: Triton's own server in front of a Python function, dynamic batching with a window of 1 ms.

python serve.py VERSION_FOLDER PORT
"""

import os
import socket
import sys
import sysconfig

# Triton's own Python takes the first libpython that the loader finds, which must be that of these modules.
os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(
    filter(None, [sysconfig.get_config_var("LIBDIR"), os.environ.get("LD_LIBRARY_PATH")])
)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import numpy as np
import tensorflow as tf
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

call = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]


@batch
def infer(images):
    """Compute a batch that Triton has put together."""
    outputs = call(images=tf.constant(images))
    return {"classes": outputs["classes"].numpy().reshape(-1, 1), "probabilities": outputs["probabilities"].numpy()}


def free() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


config = TritonConfig(grpc_port=int(sys.argv[2]), http_port=free(), metrics_port=free(), grpc_address="127.0.0.1")
with Triton(config=config) as triton:
    triton.bind(
        model_name="mnist",
        infer_func=infer,
        inputs=[Tensor(name="images", dtype=np.uint8, shape=(28, 28))],
        outputs=[
            Tensor(name="classes", dtype=np.int64, shape=(1,)),
            Tensor(name="probabilities", dtype=np.float32, shape=(10,)),
        ],
        config=ModelConfig(max_batch_size=1024, batcher=DynamicBatcher(max_queue_delay_microseconds=1000)),
    )
    triton.serve()
