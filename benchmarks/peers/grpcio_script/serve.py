"""The server that everyone writes first: a thread pool, the signature called once per request, no batching.

python serve.py VERSION_FOLDER PORT
"""

import os
import sys
from concurrent import futures

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import grpc
import numpy as np
import tensorflow as tf

from horngate_protos.open_inference_pb2 import ModelInferRequest, ModelInferResponse

infer = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
NAMES = {np.dtype(np.float32): "FP32", np.dtype(np.int64): "INT64"}


def model_infer(request: ModelInferRequest, _context: object) -> ModelInferResponse:
    """Answer one request."""
    shape = tuple(request.inputs[0].shape)
    images = np.frombuffer(request.raw_input_contents[0], np.uint8).reshape(shape)
    response = ModelInferResponse(model_name=request.model_name, model_version="1")
    for name, tensor in sorted(infer(images=tf.constant(images)).items()):
        array = tensor.numpy()
        response.outputs.add(name=name, datatype=NAMES[array.dtype], shape=array.shape)
        response.raw_output_contents.append(array.tobytes())
    return response


server = grpc.server(futures.ThreadPoolExecutor(max_workers=10), options=[("grpc.max_receive_message_length", -1)])
handler = grpc.unary_unary_rpc_method_handler(
    model_infer, ModelInferRequest.FromString, ModelInferResponse.SerializeToString
)
server.add_generic_rpc_handlers(
    (grpc.method_handlers_generic_handler("inference.GRPCInferenceService", {"ModelInfer": handler}),)
)
server.add_insecure_port(f"127.0.0.1:{sys.argv[2]}")
server.start()
server.wait_for_termination()
