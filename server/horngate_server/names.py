"""The gRPC services that Horngate speaks beside grpc.health.v1 and reflection."""

OPEN_INFERENCE = "inference.GRPCInferenceService"
PREDICTION = "tensorflow.serving.PredictionService"
MODEL = "tensorflow.serving.ModelService"
INFER = f"/{OPEN_INFERENCE}/ModelInfer"
"""The method that most calls are for."""
LOAD = f"/{OPEN_INFERENCE}/RepositoryModelLoad"
UNLOAD = f"/{OPEN_INFERENCE}/RepositoryModelUnload"
RELOAD = f"/{MODEL}/HandleReloadConfigRequest"
ADMIN = frozenset([LOAD, UNLOAD, RELOAD])
"""The methods that change what is served."""
STREAM_INFER = f"/{OPEN_INFERENCE}/ModelStreamInfer"
