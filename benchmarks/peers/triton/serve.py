"""Triton with its TensorFlow backend, from its own image: dynamic batching with a window of 1 ms, up to 1,024 rows.

python serve.py VERSION_FOLDER PORT

The image's tag is the last that has the TensorFlow backend.
"""

import shutil
import socket
import sys
import tempfile
from pathlib import Path

import container

CONFIG = """
platform: "tensorflow_savedmodel"
max_batch_size: 1024
input { name: "images" data_type: TYPE_UINT8 dims: [ 28, 28 ] }
output { name: "classes" data_type: TYPE_INT64 dims: [ 1 ] reshape { shape: [ ] } }
output { name: "probabilities" data_type: TYPE_FP32 dims: [ 10 ] }
dynamic_batching { max_queue_delay_microseconds: 1000 }
instance_group { kind: KIND_CPU count: 1 }
"""


def free() -> str:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return str(probe.getsockname()[1])


models = tempfile.mkdtemp()
shutil.copytree(sys.argv[1], Path(models, "mnist", "1", "model.savedmodel"))
Path(models, "mnist", "config.pbtxt").write_text(CONFIG)
container.become(
    Path(__file__).with_name("image").read_text().strip(),
    models,
    "/models",
    [
        "tritonserver",
        "--model-repository=/models",
        f"--grpc-port={sys.argv[2]}",
        f"--http-port={free()}",
        f"--metrics-port={free()}",
    ],
)
