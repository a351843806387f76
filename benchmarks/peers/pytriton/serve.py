"""PyTriton: Triton's own server in front of TensorFlow's signature, dynamic batching with a window of 1 ms.

python serve.py VERSION_FOLDER PORT
"""

import os
import socket
import sys
import sysconfig
from pathlib import Path

# Triton's own Python takes the first libpython that the loader finds, which must be that of these modules.
os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(
    filter(None, [sysconfig.get_config_var("LIBDIR"), os.environ.get("LD_LIBRARY_PATH")])
)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import tensorflow as tf
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

version = Path(sys.argv[1])
call = tf.saved_model.load(str(version)).signatures["serving_default"]


@batch
def infer(**inputs):
    """Compute a batch that Triton has put together."""
    outputs = call(**{name: tf.constant(rows) for name, rows in inputs.items()})
    return {name: rows(output.numpy()) for name, output in outputs.items()}


def rows(output):
    """Return an output with an axis behind the rows, which Triton wants."""
    return output if output.ndim > 1 else output.reshape(-1, 1)


def tensor(name, spec):
    """Describe an input or output to Triton."""
    return Tensor(name=name, dtype=spec.dtype.as_numpy_dtype, shape=[axis or -1 for axis in spec.shape[1:]] or (1,))


def free() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


config = TritonConfig(grpc_port=int(sys.argv[2]), http_port=free(), metrics_port=free(), grpc_address="127.0.0.1")
with Triton(config=config) as triton:
    triton.bind(
        model_name=version.parent.name,
        infer_func=infer,
        inputs=[tensor(name, spec) for name, spec in call.structured_input_signature[1].items()],
        outputs=[tensor(name, spec) for name, spec in call.structured_outputs.items()],
        config=ModelConfig(max_batch_size=1024, batcher=DynamicBatcher(max_queue_delay_microseconds=1000)),
    )
    triton.serve()
