"""TensorFlow Serving, from its own image: the model as it is, batching with a window of 1 ms up to 1,024 rows.

python serve.py VERSION_FOLDER PORT

It ignores what it does not know of the folder, and warms up from the same file as Horngate.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import container

BATCHING = """
max_batch_size { value: 1024 }
batch_timeout_micros { value: 1000 }
num_batch_threads { value: %d }
max_enqueued_batches { value: 1000 }
"""

models = tempfile.mkdtemp()
shutil.copytree(sys.argv[1], Path(models, "mnist", "1"))
Path(models, "batching").write_text(BATCHING % os.cpu_count())
container.become(
    Path(__file__).with_name("image").read_text().strip(),
    models,
    "/models",
    [
        f"--port={sys.argv[2]}",
        "--rest_api_port=0",
        "--model_name=mnist",
        "--model_base_path=/models/mnist",
        "--enable_batching=true",
        "--batching_parameters_file=/models/batching",
    ],
)
