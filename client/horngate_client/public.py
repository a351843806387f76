"""What ``horngate_client`` has, imported when somebody asks for the first of it."""

from horngate_client.aio import AsyncClient
from horngate_client.budget import RetryBudget
from horngate_client.channels import TlsConfig
from horngate_client.errors import (
    CallError,
    ClientClosed,
    ConfigurationError,
    ConversionError,
    DeadlineExceeded,
    HorngateError,
    InvalidRequest,
    MissingExtra,
    ModelNotFound,
    Overloaded,
    ProtocolError,
    ServerFault,
    TryLater,
    Unauthenticated,
    Unavailable,
)
from horngate_client.explanation import Explanation
from horngate_client.prediction import Prediction, Timing
from horngate_client.retry import RetryPolicy
from horngate_client.signature import ModelMetadata, ModelVersion, ServerInfo, Signature, TensorSpec
from horngate_client.sync import Client
from horngate_protos import __version__

__all__ = [
    "AsyncClient",
    "CallError",
    "Client",
    "ClientClosed",
    "ConfigurationError",
    "ConversionError",
    "DeadlineExceeded",
    "Explanation",
    "HorngateError",
    "InvalidRequest",
    "MissingExtra",
    "ModelMetadata",
    "ModelNotFound",
    "ModelVersion",
    "Overloaded",
    "Prediction",
    "ProtocolError",
    "RetryBudget",
    "RetryPolicy",
    "ServerFault",
    "ServerInfo",
    "Signature",
    "TensorSpec",
    "Timing",
    "TlsConfig",
    "TryLater",
    "Unauthenticated",
    "Unavailable",
    "__version__",
]
