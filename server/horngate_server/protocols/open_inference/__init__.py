"""The Open Inference Protocol's ModelInfer, with the parameters that Triton's clients use."""

from horngate_server.core.codec import Codec
from horngate_server.protocols.open_inference import decode, encode

INFER = Codec("open_inference", decode.decode, encode.encode, encode.template)
