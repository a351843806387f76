"""Models of every kind that people serve give TensorFlow's own answers: alone, and with eight callers at once."""

import json
import os
import subprocess
import sys
import threading
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from horngate_client import Client, HorngateError
from horngate_protos.open_inference_pb2 import ModelInferResponse
from support.any_models import KINDS, Kind, answers
from support.in_process import request
from support.process import ServerProcess

TESTS = Path(__file__).parents[1]
CALLERS = 8
WAIT_S = 60.0
UNPROVED = {"base64_in", "far_ids", "distribution"}
"""No input is guessed that these accept."""

Array = NDArray[Any]
Answer = Mapping[str, Array]
Ask = Callable[[str, Mapping[str, Array]], Answer]
Wrong = dict[str, list[str]]


@pytest.fixture(scope="session")
def any_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models' root, with TensorFlow's answers and a models.toml."""
    root = tmp_path_factory.mktemp("any") / "models"
    root.mkdir()
    subprocess.run(
        [sys.executable, "-m", "support.any_models", root], check=True, capture_output=True, timeout=300, cwd=TESTS
    )
    lines = []
    for name, kind in KINDS.items():
        options = {**kind.options, **({"tags": list(kind.tags)} if tuple(kind.tags) != ("serve",) else {})}
        if options:
            lines += [f"[models.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in options.items())]
    (root.parent / "models.toml").write_text("\n".join(lines))
    return root


@pytest.fixture(scope="module")
def server(any_models: Path, transport: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server with all of them."""
    flags = ["--transport", transport, "--config", str(any_models.parent / "models.toml")]
    with ServerProcess(any_models, tmp_path_factory.mktemp("server"), *flags) as running:
        yield running


def test_tritonclient(server: ServerProcess, any_models: Path) -> None:
    """Every model, over the Open Inference Protocol."""

    def connected() -> tuple[Ask, Callable[[], object]]:
        client = triton.InferenceServerClient(server.grpc)

        def ask(model: str, inputs: Mapping[str, Array]) -> Answer:
            tensors = []
            for name, array in inputs.items():
                bfloat = array.dtype == ml_dtypes.bfloat16
                tensor = triton.InferInput(
                    name, list(array.shape), "BF16" if bfloat else np_to_triton_dtype(array.dtype)
                )
                tensor.set_data_from_numpy(array)
                tensors.append(tensor)
            result = client.infer(model, tensors, client_timeout=WAIT_S)
            return {output.name: result.as_numpy(output.name) for output in result.get_response().outputs}

        return ask, client.close

    assert _wrong(any_models, connected, (InferenceServerException, ValueError)) == {}


def test_our_client(server: ServerProcess, any_models: Path) -> None:
    """Every model, with what `Client.infer` takes and returns."""

    def connected() -> tuple[Ask, Callable[[], object]]:
        def ask(model: str, inputs: Mapping[str, Array]) -> Answer:
            with Client(server.grpc, model=model, timeout=WAIT_S) as client:
                return client.infer(dict(inputs))

        return ask, lambda: None

    bfloats = {name for name, kind in KINDS.items() if _has(kind, ml_dtypes.bfloat16)}  # NumPy has no such type
    assert _wrong(any_models, connected, HorngateError, but=bfloats) == {}


def test_tensorflow_serving_api(server: ServerProcess, any_models: Path) -> None:
    """Every model and every signature, complex numbers too, over TensorFlow Serving's API."""
    done = subprocess.run(
        [sys.executable, TESTS / "foreign/any_model_client.py", server.grpc, any_models, str(CALLERS)],
        check=True, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(TESTS), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"},
    )  # fmt: skip
    assert json.loads(done.stdout) == {}


def test_what_is_batched_is_what_may_be(server: ServerProcess) -> None:
    """The report says of each signature whether its requests, and those of all lengths, share runs, and it is right."""
    with urllib.request.urlopen(f"{server.http}/models", timeout=10) as response:
        found = {each["name"]: each for each in json.load(response)}
    for name, kind in KINDS.items():
        report = found[name]["report"]
        assert report["proved"] == (name not in UNPROVED), name
        default = kind.options.get("signature", "serving_default")
        batching = report["batching"].get(default, next(iter(report["batching"].values())))
        if kind.batching:
            assert batching["mode"] == kind.batching, (name, batching)
        if kind.lengths:
            assert batching["lengths"]["mode"] == kind.lengths, (name, batching)


def test_a_callers_bad_values_are_its_own(server: ServerProcess) -> None:
    """Beside good callers, one sends ids that there are not: it hears so, and nobody else's call fails."""
    good = request({"ids": np.array([[1, 2, 3]], np.int32)}, model="embed").SerializeToString()
    bad = request({"ids": np.array([[1, 12, 3]], np.int32)}, model="embed").SerializeToString()
    ended = threading.Event()
    said: list[str] = []
    failed: list[str] = []

    def infer(channel: grpc.Channel) -> "grpc.UnaryUnaryMultiCallable[bytes, ModelInferResponse]":
        return channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer", response_deserializer=ModelInferResponse.FromString
        )

    def call_well() -> None:
        with grpc.insecure_channel(server.grpc, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            while not ended.is_set():
                try:
                    infer(channel)(good, timeout=WAIT_S)
                except grpc.RpcError as error:
                    failed.append(str(error.code()))

    callers = [threading.Thread(target=call_well) for _ in range(CALLERS)]
    for caller in callers:
        caller.start()
    with grpc.insecure_channel(server.grpc, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        for _ in range(100):
            with pytest.raises(grpc.RpcError, match="12 is not in") as refused:
                infer(channel)(bad, timeout=WAIT_S)
            said.append(refused.value.code().name)
    ended.set()
    for caller in callers:
        caller.join()
    assert (set(said), failed) == ({"INVALID_ARGUMENT"}, [])


# --- private ------------------------------------------------------------------------------------------


def _has(kind: Kind, dtype: Any) -> bool:
    return any(array.dtype == dtype for ask in kind.asks for array in ask.inputs.values())


def _wrong(
    root: Path,
    connected: Callable[[], tuple[Ask, Callable[[], object]]],
    error: type[Exception] | tuple[type[Exception], ...],
    but: Collection[str] = (),
) -> Wrong:
    """Ask every model for its default signature, alone and with eight callers; return what differs, by model."""
    wrong: Wrong = defaultdict(list)
    kinds = {name: kind for name, kind in KINDS.items() if not kind.foreign_only and name not in but}
    wanted = {name: answers.read(root, kind) for name, kind in kinds.items()}

    def call(number: int, begin: threading.Barrier) -> None:
        ask, close = connected()
        for name, kind in kinds.items():
            begin.wait()
            for step in range(len(kind.asks)):
                place = (number + step) % len(kind.asks)
                if not kind.asks[place].signature:
                    wrong[name] += _difference(
                        kind, wanted[name][place], partial(ask, name, kind.asks[place].inputs), error
                    )
        close()

    for count in (1, CALLERS):
        barrier = threading.Barrier(count)
        threads = [threading.Thread(target=call, args=(number, barrier)) for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return {name: differences for name, differences in wrong.items() if differences}


def _difference(kind: Kind, wanted: Answer, ask: Callable[[], Answer], error: Any) -> list[str]:
    try:
        difference = answers.difference(kind, wanted, ask())
    except error as refused:
        return [str(refused)]
    return [difference] if difference else []
