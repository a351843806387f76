"""Reads tensors with TensorFlow itself, for tests that compare: a serialized TensorProto in hex on each line of stdin.

Answers each with a line of JSON: what TensorFlow's own parser finds in it, as the C++ of TensorFlow Serving does, and
the same tensor as TensorFlow's Python writes it; or ``null`` where it is none.
"""

import json
import os
import sys
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto


def read(content: bytes) -> Any:
    """Return what a TensorProto holds."""
    proto = TensorProto.FromString(content)
    try:
        found = tf.io.parse_tensor(content, proto.dtype)
    except (tf.errors.OpError, TypeError, ValueError):
        return None
    array = found.numpy()
    strings = found.dtype == tf.string
    elements = array.reshape(-1).tolist() if found.shape.rank else [array]
    return {
        "shape": found.shape.as_list(),
        "data": [each.hex() for each in elements] if strings else array.tobytes().hex(),
        "written": tf.make_tensor_proto(array, found.dtype, found.shape).SerializeToString().hex(),
    }


print("ready", flush=True)
for line in sys.stdin:
    print(json.dumps(read(bytes.fromhex(line))), flush=True)
