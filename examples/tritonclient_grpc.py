"""NVIDIA's client by gRPC. `pip install tritonclient[grpc] pillow`, then: tritonclient_grpc.py HOST:PORT IMAGE."""

import sys

import numpy as np
import tritonclient.grpc as triton
from PIL import Image

address, image = sys.argv[1:]
pixels = np.asarray(Image.open(image).convert("L"), np.uint8)[np.newaxis]  # [1, 28, 28]

tensor = triton.InferInput("images", list(pixels.shape), "UINT8")
tensor.set_data_from_numpy(pixels)
with triton.InferenceServerClient(address) as client:
    answer = client.infer("mnist", [tensor])
print(answer.as_numpy("classes")[0])
