"""The messages of the contract, whichever implementation of protobuf is installed."""

import os
import subprocess
import sys

import pytest

USES = """
from google.protobuf.internal import api_implementation
from horngate_protos.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from horngate_protos.tensorflow_pb2 import MetaGraphDef
request = ModelInferRequest(inputs=[ModelInferRequest.InferInputTensor(name="images", shape=[1])])
answer = ModelInferResponse.FromString(ModelInferResponse(
    outputs=[ModelInferResponse.InferOutputTensor(name=request.inputs[0].name)]
).SerializeToString())
print(api_implementation.Type(), answer.outputs[0].name, *MetaGraphDef.MetaInfoDef(tags=["serve"]).tags)
"""


@pytest.mark.parametrize("implementation", ["python", "upb"])
def test_messages_within_messages_are_there_with_protobuf_in_pure_python_too(implementation: str) -> None:
    """Python without its lock, and machines without a wheel, have no other."""
    done = subprocess.run(
        [sys.executable, "-c", USES],
        env={**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": implementation},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == (f"{implementation} images serve\n", "")
