"""The Open Inference Protocol's ModelInfer, with the parameters that Triton's clients use."""

from horngate_server.core.codec import Codec
from horngate_server.protocols.open_inference import decode as request
from horngate_server.protocols.open_inference import encode as response

INFER = Codec("open_inference", request.decode, response.encode, response.template)
