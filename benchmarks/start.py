"""The server's start: process start to first answer, beside `import tensorflow`; memory with the model loaded.

python benchmarks/start.py [--rounds 5] [--models DIR]
"""

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import grpc
import harness
import numpy as np
from serving_process import trained

from horngate_protos.open_inference_pb2 import ModelInferRequest, ModelInferResponse

WORKING = 1000


def import_tensorflow() -> dict[str, float]:
    """Time the import that the server does without."""
    seconds, _ = harness.timed([sys.executable, "-c", "import tensorflow"])
    return {"seconds": seconds}


def server(models: Path) -> dict[str, float]:
    """Start a server, ask it for one image as soon as it listens, and look at its memory."""
    message = ModelInferRequest(model_name="mnist", raw_input_contents=[bytes(784)])
    message.inputs.add(name="images", datatype="UINT8", shape=[1, 28, 28])
    with tempfile.TemporaryDirectory() as scratch:
        ports = Path(scratch, "ports")
        began = time.perf_counter()
        process = subprocess.Popen(
            [
                sys.executable, "-m", "horngate_server", "--models", models, "--grpc-port", "0", "--http-port", "0",
                "--port-file", ports,
            ],
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            while not ports.exists():
                time.sleep(0.002)
            port = ports.read_text().split()[1]
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                infer: grpc.UnaryUnaryMultiCallable[bytes, ModelInferResponse] = channel.unary_unary(
                    "/inference.GRPCInferenceService/ModelInfer", response_deserializer=ModelInferResponse.FromString
                )
                answer = _first(infer, message.SerializeToString())
                seconds = time.perf_counter() - began
                assert len(np.frombuffer(answer.raw_output_contents[1], np.float32)) == 10
                for _ in range(WORKING):  # memory is that of a server that works, not of one that only listens
                    infer(message.SerializeToString())
            status = Path(f"/proc/{process.pid}/status").read_text()
            match = re.search(r"VmRSS:\s+(\d+) kB", status)
            assert match
            return {"seconds": seconds, "memory": int(match[1]) * 1024 / 1e6}
        finally:
            process.terminate()
            process.wait()


def _first(infer: "grpc.UnaryUnaryMultiCallable[bytes, ModelInferResponse]", message: bytes) -> ModelInferResponse:
    """Ask until the model is loaded."""
    while True:
        try:
            return infer(message)
        except grpc.RpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND):
                raise
            time.sleep(0.002)


def main() -> None:
    """Measure, print, save."""
    parser = harness.options(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", type=Path, help="a model root with mnist; one is trained where none is given")
    asked = parser.parse_args()
    with trained(asked.models) as models:
        values = harness.rounds(
            asked.rounds, {"import tensorflow": import_tensorflow, "first answer": lambda: server(models)}
        )
    seconds = harness.Figures("start", values["seconds"])
    memory = harness.Figures("memory, RSS", values["memory"], "MB")
    ratio = seconds.ratio("first answer", "import tensorflow")
    print(harness.table([seconds, memory]))
    print(f"first answer to import tensorflow: {ratio:.3f}")
    if asked.save:
        figures = {figure.name: figure.values for figure in (seconds, memory)}
        print(harness.save("start", {"ratio": ratio, "figures": figures}))


if __name__ == "__main__":
    main()
