"""The gRPC services that Horngate speaks beside reflection, and those of their methods that are asked for by name."""

OPEN_INFERENCE = "inference.GRPCInferenceService"
PREDICTION = "tensorflow.serving.PredictionService"
MODEL = "tensorflow.serving.ModelService"
HEALTH = "grpc.health.v1.Health"
INFER = f"/{OPEN_INFERENCE}/ModelInfer"
"""The method that most calls are for."""
LOAD = f"/{OPEN_INFERENCE}/RepositoryModelLoad"
UNLOAD = f"/{OPEN_INFERENCE}/RepositoryModelUnload"
RELOAD = f"/{MODEL}/HandleReloadConfigRequest"
ADMIN = frozenset([LOAD, UNLOAD, RELOAD])
"""The methods that change what is served."""
STREAM_INFER = f"/{OPEN_INFERENCE}/ModelStreamInfer"
CHECK = f"/{HEALTH}/Check"
WATCH = f"/{HEALTH}/Watch"
HEALTH_BYTES = 4096
"""A request for health has a model's name; it may come from anyone."""
