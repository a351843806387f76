"""The generated contract: true to the .proto files, and at peace with other packages'."""

import os
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import pytest

from horngate_protos.open_inference_pb2 import ModelInferRequest

ROOT = Path(__file__).parents[2]


def test_generated_code_matches_the_proto_files() -> None:
    """What is committed is what `make protos` would write."""
    done = subprocess.run(
        [sys.executable, ROOT / "protos/generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


KSERVE = """
import importlib.metadata as m, importlib.util as u
path = next(file for file in m.files("kserve") if file.name == "grpc_predict_v2_pb2.py").locate()
kserve = u.module_from_spec(spec := u.spec_from_file_location("grpc_predict_v2_pb2", path))
spec.loader.exec_module(kserve)
"""
IMPORTS = {
    "horngate": "import horngate_client, horngate_protos.open_inference_pb2 as ours",
    "tritonclient": "import tritonclient.grpc.service_pb2 as triton",
    "kserve": KSERVE,  # its generated messages alone: the package would import Kubernetes
    "tensorflow-serving-api": "import tensorflow_serving.apis.predict_pb2 as tfs",
}
WORKS = {
    "horngate": "assert ours.ModelInferRequest.FromString(sent).raw_input_contents == [b'x']",
    "tritonclient": "assert triton.ModelInferRequest.FromString(sent).raw_input_contents == [b'x']",
    "kserve": "assert kserve.ModelInferRequest.FromString(sent).raw_input_contents == [b'x']",
    "tensorflow-serving-api": "assert tfs.PredictRequest().SerializeToString() == b''",
}
CLASH = {"tritonclient", "kserve"}
"""Both register inference.ModelInferRequest in protobuf's default pool: with or without us, they cannot be together."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "order",
    [pytest.param(pair, id="-".join(pair)) for pair in permutations(IMPORTS, 2) if {*pair} != CLASH],
)
def test_our_client_and_everybody_elses_live_in_one_process(order: tuple[str, str]) -> None:
    """Whoever is imported first, both work: each reads what another one wrote."""
    sent = ModelInferRequest(model_name="m", raw_input_contents=[b"x"]).SerializeToString()
    script = "\n".join([*(IMPORTS[name] for name in order), f"sent = {sent!r}", *(WORKS[name] for name in order)])
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
