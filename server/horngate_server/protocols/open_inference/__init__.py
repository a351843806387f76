"""The Open Inference Protocol's ModelInfer, with the parameters that Triton's clients use."""

from horngate_server.protocols import Codec
from horngate_server.protocols.open_inference.request import decode
from horngate_server.protocols.open_inference.response import encode, template

INFER = Codec("open_inference", decode, encode, template)
