"""A TensorFlow Serving caller of every model of `support.any_models`: its generated code, and TensorFlow's own tensors.

    python any_model_client.py HOST:PORT ROOT CALLERS

Prints what was wrong as JSON, by model; nothing where every answer is TensorFlow's.
"""

import json
import sys
import threading
from collections import defaultdict
from pathlib import Path

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from support.any_models import KINDS, answers

address, root, callers = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
wrong: dict[str, list[str]] = defaultdict(list)


def caller(number: int, begin: threading.Barrier) -> None:
    """Ask every model everything, beginning with another request than the others."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(address, options=options) as channel:
        prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        for name, kind in KINDS.items():
            begin.wait()
            wanted = answers.read(root, kind)
            for step in range(len(kind.asks)):
                place = (number + step) % len(kind.asks)
                request = predict_pb2.PredictRequest()
                request.model_spec.name = name
                request.model_spec.signature_name = kind.asks[place].signature
                for key, array in kind.asks[place].inputs.items():
                    request.inputs[key].CopyFrom(tf.make_tensor_proto(array))
                try:
                    response = prediction.Predict(request, timeout=60)
                except grpc.RpcError as error:
                    wrong[name].append(f"{error.code().name}: {error.details()}")
                    continue
                got = {key: tf.make_ndarray(tensor) for key, tensor in response.outputs.items()}
                if difference := answers.difference(kind, wanted[place], got):
                    wrong[name].append(difference)


for count in (1, callers):
    barrier = threading.Barrier(count)
    threads = [threading.Thread(target=caller, args=(number, barrier)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print(json.dumps(wrong))
