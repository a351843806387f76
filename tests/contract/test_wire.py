"""The generated contract: true to the .proto files, and at peace with other packages'."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_generated_code_matches_the_proto_files() -> None:
    """What is committed is what `make protos` would write."""
    done = subprocess.run(
        [sys.executable, ROOT / "protos/generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "order",
    [
        ("horngate_protos.open_inference_pb2", "tritonclient.grpc.service_pb2"),
        ("tritonclient.grpc.service_pb2", "horngate_protos.open_inference_pb2"),
    ],
    ids=["ours-first", "theirs-first"],
)
def test_our_messages_and_tritonclients_live_in_one_process(order: tuple[str, str]) -> None:
    """Both define inference.ModelInferRequest; each reads what the other wrote."""
    script = (
        f"import importlib; a, b = [importlib.import_module(name) for name in {order!r}];"
        "sent = a.ModelInferRequest(model_name='m', raw_input_contents=[b'x']).SerializeToString();"
        "assert b.ModelInferRequest.FromString(sent).raw_input_contents == [b'x']"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
