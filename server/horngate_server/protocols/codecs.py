"""The methods that compute, whatever the protocol: by full name, what reads and writes their messages."""

from collections.abc import Mapping
from types import MappingProxyType

from horngate_server.core.codec import Codec
from horngate_server.core.methods import OPEN_INFERENCE, PREDICTION
from horngate_server.protocols import examples, open_inference, tensorflow_serving

CODECS: Mapping[str, Codec] = MappingProxyType(
    {
        f"/{OPEN_INFERENCE}/ModelInfer": open_inference.INFER,
        f"/{PREDICTION}/Predict": tensorflow_serving.PREDICT,
        f"/{PREDICTION}/Classify": examples.CLASSIFY,
        f"/{PREDICTION}/Regress": examples.REGRESS,
    }
)
