"""TensorFlow Serving's client code. `pip install tensorflow-serving-api pillow`, then: ... HOST:PORT IMAGE."""

import sys

import grpc
import numpy as np
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

address, image = sys.argv[1:]
pixels = np.asarray(Image.open(image).convert("L"), np.uint8)[np.newaxis]  # [1, 28, 28]

request = predict_pb2.PredictRequest()
request.model_spec.name = "mnist"  # version, version_label and signature_name too
request.inputs["images"].CopyFrom(tf.make_tensor_proto(pixels))
with grpc.insecure_channel(address) as channel:
    answer = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=10)
print(tf.make_ndarray(answer.outputs["classes"])[0])
