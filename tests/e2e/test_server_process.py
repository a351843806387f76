"""A real server process, real sockets, the real MNIST, and clients that are not ours."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from prometheus_client.parser import text_string_to_metric_families

from horngate_client import Client
from horngate_protos.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from horngate_protos.tensorflow_pb2 import TensorProto
from horngate_protos.tensorflow_serving_pb2 import (
    PredictRequest,
    PredictResponse,
    RegressionRequest,
    RegressionResponse,
)
from horngate_server.transports.access import tokens
from support.in_process import request
from support.process import ServerProcess, health, usage_error

MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
PREDICT, REGRESS = (f"/tensorflow.serving.PredictionService/{name}" for name in ("Predict", "Regress"))


def unary(channel: grpc.Channel, method: str) -> "grpc.UnaryUnaryMultiCallable[bytes, bytes]":
    """Return a method that takes and returns bytes."""
    return channel.unary_unary(method)


@pytest.fixture(scope="module")
def server(trained: Path, transport: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server with the trained model, for every test that leaves it as it was."""
    with ServerProcess(trained.parents[1], tmp_path_factory.mktemp("server"), "--transport", transport) as running:
        yield running


def scrape(server: ServerProcess) -> dict[str, float]:
    """Read /metrics as {name{labels}: value}."""
    with urllib.request.urlopen(f"{server.http}/metrics", timeout=10) as response:
        text = response.read().decode()
    return {
        sample.name + json.dumps(sample.labels, sort_keys=True): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.parametrize("rows", [1, 7, 64, 1000])
def test_accuracy_over_grpc_equals_the_trainers_own_evaluation(
    server: ServerProcess, trained: Path, mnist: tuple[np.ndarray, np.ndarray], rows: int
) -> None:
    """The same number of right answers on the 10,000 test images, whatever the batch size."""
    images, labels = mnist
    evaluation = json.loads((trained / "assets.extra/horngate.json").read_text())["evaluation"]
    with Client(server.grpc, rows_per_request=rows, in_flight=64, timeout=60) as client:
        prediction = client.predict(images)
    assert int((prediction.classes == labels).sum()) == evaluation["correct"]
    assert prediction.version == trained.name
    assert (prediction.probabilities.argmax(axis=1) == prediction.classes).all()


def test_the_model_is_verified_and_the_banner_says_what_serves_where(
    server: ServerProcess, trained: Path, transport: str
) -> None:
    """Version, verification, signature, device with its reason, ports and limits are in the log."""
    log = "\n".join(server.log)
    assert f"model      mnist version {trained.name}, verified (" in log
    assert "(images UINT8[?,28,28]) -> (classes INT64[?], probabilities FP32[?,10])" in log
    for word in ("device     ", f"{transport} transport", "/metrics", "up to 1024 rows", "up to 16384 rows"):
        assert word in log


def test_tensorflow_is_told_how_much_to_say_before_its_library_is_loaded(
    trained: Path, transport: str, tmp_path: Path
) -> None:
    """It asks once, as it is loaded: told later, it would write its chatter past the log for as long as it serves."""
    models = trained.parents[1]
    with ServerProcess(models, tmp_path, "--transport", transport, "--log-level", "debug") as server:
        log = "\n".join(server.log)
    assert "loaded model mnist" in log
    assert "Reading SavedModel from" not in log  # what it says of itself (INFO) while it opens one


def test_health_and_reflection_answer_their_official_clients(server: ServerProcess) -> None:
    """grpc.health.v1 knows the server and the model; reflection lists the services and describes them."""
    with grpc.insecure_channel(server.grpc) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )
        assert check(HealthCheckRequest()).status == HealthCheckResponse.SERVING
        assert check(HealthCheckRequest(service="mnist")).status == HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as unknown:
            check(HealthCheckRequest(service="nobody"))
        assert unknown.value.code() == grpc.StatusCode.NOT_FOUND
        database = ProtoReflectionDescriptorDatabase(channel)
        assert set(database.get_services()) >= {
            "inference.GRPCInferenceService", "tensorflow.serving.PredictionService",
            "tensorflow.serving.ModelService", "grpc.health.v1.Health",
        }  # fmt: skip
        file = database.FindFileContainingSymbol("inference.GRPCInferenceService")
        assert "ModelInfer" in [method.name for method in file.service[0].method]
        assert database.FindFileContainingSymbol("grpc.health.v1.Health").package == "grpc.health.v1"


def test_any_signature_can_be_asked_for(foreign_models: Path, transport: str, tmp_path: Path) -> None:
    """A model with several signatures: each computes its own, by name; the default one by any protocol."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models/signatures").symlink_to(foreign_models / "signatures")
    x = np.array([[1, 3], [5, 7]], np.float32)
    tensor = TensorProto(dtype=1, tensor_content=x.tobytes())
    for axis in x.shape:
        tensor.tensor_shape.dim.add(size=axis)
    predict = PredictRequest(inputs={"x": tensor})
    predict.model_spec.name = "signatures"
    regress = RegressionRequest(model_spec=predict.model_spec)
    for row in x:
        regress.input.example_list.examples.add().features.feature["x"].float_list.value.extend(row.tolist())
    with (
        ServerProcess(tmp_path / "models", tmp_path, "--transport", transport) as server,
        grpc.insecure_channel(server.grpc) as channel,
    ):
        answer = PredictResponse.FromString(unary(channel, PREDICT)(predict.SerializeToString()))
        assert np.frombuffer(answer.outputs["y"].tensor_content, np.float32).tolist() == [2, 6, 10, 14]
        predict.model_spec.signature_name = regress.model_spec.signature_name = "mean"
        answer = PredictResponse.FromString(unary(channel, PREDICT)(predict.SerializeToString()))
        assert np.frombuffer(answer.outputs["outputs"].tensor_content, np.float32).tolist() == [2, 6]
        assert answer.model_spec.signature_name == "mean"
        values = RegressionResponse.FromString(unary(channel, REGRESS)(regress.SerializeToString())).result.regressions
        assert [each.value for each in values] == [2, 6]
        ours = request({"x": x}, model="signatures").SerializeToString()
        response = ModelInferResponse.FromString(unary(channel, MODEL_INFER)(ours, timeout=20))
        assert np.frombuffer(response.raw_output_contents[0], np.float32).tolist() == [2, 6, 10, 14]


def test_metadata_say_what_may_wait_and_methods_that_there_are_not_say_so(
    server: ServerProcess, mnist: tuple[np.ndarray, np.ndarray]
) -> None:
    """``horngate-priority`` works for any protocol; whatever is unknown is refused with a sentence."""
    message = request({"images": mnist[0][:1]}, model="mnist").SerializeToString()
    with grpc.insecure_channel(server.grpc) as channel:
        for value in ("interactive", "bulk"):
            unary(channel, MODEL_INFER)(message, timeout=20, metadata=(("horngate-priority", value),))
        for method, metadata, code in (
            (MODEL_INFER, (("horngate-priority", "urgent"),), "INVALID_ARGUMENT"),
            ("/inference.GRPCInferenceService/Nothing", (), "UNIMPLEMENTED"),
            ("/nobody.Knows/This", (), "UNIMPLEMENTED"),
        ):
            with pytest.raises(grpc.RpcError) as refused:
                unary(channel, method)(message, timeout=20, metadata=metadata)
            assert refused.value.code().name == code
            said = refused.value.details() or ""
            assert method in said or "expected interactive or bulk" in said


def test_http_answers_what_operators_and_probes_ask(server: ServerProcess) -> None:
    """Live, ready, metrics; other paths are 404 and other methods 405, each with a sentence."""
    assert urllib.request.urlopen(f"{server.http}/livez", timeout=10).read() == b"ok\n"
    assert urllib.request.urlopen(f"{server.http}/readyz", timeout=10).read() == b"ok\n"
    with pytest.raises(urllib.error.HTTPError, match="404") as missing:
        urllib.request.urlopen(f"{server.http}/nothing", timeout=10)
    assert b"expected one of /metrics" in missing.value.read()
    missing.value.close()
    with pytest.raises(urllib.error.HTTPError, match="405") as wrong:
        urllib.request.urlopen(f"{server.http}/metrics", data=b"x", timeout=10)
    wrong.value.close()
    assert health(grpc_port=server.grpc.split(":")[1]) == 0
    assert health(grpc_port=1) == 1


def test_requests_that_come_together_are_computed_together(
    server: ServerProcess, mnist: tuple[np.ndarray, np.ndarray]
) -> None:
    """Sixty-four callers of single images: a run of the model has several of theirs, on either transport."""
    message = request({"images": mnist[0][:1]}, model="mnist").SerializeToString()

    async def caller(infer: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]) -> None:
        for _ in range(20):
            await infer(message, timeout=60)

    async def callers() -> None:
        async with grpc.aio.insecure_channel(server.grpc) as channel:
            infer: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(MODEL_INFER)
            await asyncio.gather(*(caller(infer) for _ in range(64)))

    before = scrape(server)
    asyncio.run(callers())
    after = scrape(server)
    rows, runs = (
        sum(after[name] - before.get(name, 0.0) for name in after if name.startswith(f"horngate_batch_rows_{what}{{"))
        for what in ("sum", "count")
    )
    assert rows == 64 * 20
    assert runs < rows / 1.5


def test_two_thousand_concurrent_mixed_requests_each_get_their_own_right_answer(
    server: ServerProcess, mnist: tuple[np.ndarray, np.ndarray]
) -> None:
    """Good, malformed, cancelled, expired and oversized calls at once over one socket, and all of them counted."""
    images, _ = mnist
    before = scrape(server)
    kinds = ["good", "good", "good", "bulk", "malformed", "cancelled", "expired", "oversized"]
    plan = [(kinds[n % len(kinds)] if n % 100 or n % 8 != 7 else "oversized", n) for n in range(2000)]

    async def run() -> list[tuple[str, int, str, bytes]]:
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        async with grpc.aio.insecure_channel(server.grpc, options=options) as channel:
            infer: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(MODEL_INFER)
            huge = b"\0" * (65 << 20)

            async def call(kind: str, number: int) -> tuple[str, int, str, bytes]:
                rows = 40 if kind == "bulk" else 1 + number % 5  # all of them together fit the queue
                message = request({"images": images[number : number + rows]}, model="mnist", id=str(number))
                if kind == "malformed":
                    message.raw_input_contents[0] += b"?"
                body = message.SerializeToString()
                if kind == "oversized":
                    body = huge if number % 400 == 7 else b"\xff\xff"  # a few are really too large
                sent = infer(body, timeout=0.000001 if kind == "expired" else 60)
                if kind == "cancelled":
                    asyncio.get_running_loop().call_soon(sent.cancel)
                try:
                    return kind, number, "OK", await sent
                except grpc.aio.AioRpcError as error:
                    return kind, number, error.code().name, b""
                except asyncio.CancelledError:
                    return kind, number, "CANCELLED", b""

            return list(await asyncio.gather(*(call(kind, number) for kind, number in plan)))

    ended = asyncio.run(run())
    allowed = {
        "good": {"OK"},
        "bulk": {"OK"},
        "malformed": {"INVALID_ARGUMENT"},
        "cancelled": {"CANCELLED", "OK"},
        "expired": {"DEADLINE_EXCEEDED"},
        "oversized": {"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"},
    }
    assert len(ended) == 2000
    with Client(server.grpc, timeout=60) as client:
        expected = client.predict(images[:2400]).classes
    for kind, number, code, body in ended:
        assert code in allowed[kind], (kind, number, code)
        if code == "OK":
            answer = ModelInferResponse.FromString(body)
            assert answer.id == str(number)
            classes = np.frombuffer(answer.raw_output_contents[0], np.int64)
            assert (classes == expected[number : number + len(classes)]).all()
    after = scrape(server)
    name = 'horngate_requests_total{"code": "OK", "model": "mnist", "protocol": "open_inference"}'
    answered = sum(code == "OK" for _, _, code, _ in ended)
    own = -(-2400 // 1024) + 3  # the check above asked too: at most a few requests
    assert answered <= after[name] - before.get(name, 0) <= answered + own + sum(k == "cancelled" for k, *_ in ended)
    assert after["horngate_requests_in_flight{}"] == 0


def same(one: bytes, other: bytes) -> bool:
    """Whether two answers say the same: batches of other sizes may differ in a number's last bits."""
    (classes, scores), (others, their_scores) = (
        (ModelInferResponse.FromString(each).raw_output_contents) for each in (one, other)
    )
    numbers, their_numbers = np.frombuffer(scores, np.float32), np.frombuffer(their_scores, np.float32)
    return classes == others and bool(np.abs(numbers - their_numbers).max() < 1e-5)


def test_sigterm_under_load_answers_everything_that_was_accepted(
    trained: Path, transport: str, tmp_path: Path, mnist: tuple[np.ndarray, np.ndarray]
) -> None:
    """Each call ends with its right answer or with UNAVAILABLE, never in silence; the server exits 0."""
    images, _ = mnist
    with ServerProcess(trained.parents[1], tmp_path, "--transport", transport) as server:

        async def run() -> tuple[list[str], int]:
            async with grpc.aio.insecure_channel(server.grpc) as channel:
                infer: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(MODEL_INFER)
                body = request({"images": images[:3]}, model="mnist").SerializeToString()
                first = await infer(body, timeout=60)
                codes: list[str] = []
                flowing = asyncio.Event()

                async def caller() -> None:
                    while not codes or codes[-1] == "OK":
                        try:
                            answer = await infer(body, timeout=60)
                            assert same(answer, first)
                            codes.append("OK")
                        except grpc.aio.AioRpcError as error:
                            codes.append(error.code().name)
                        if len(codes) > 200:
                            flowing.set()

                callers = [asyncio.create_task(caller()) for _ in range(32)]
                await flowing.wait()
                code = await asyncio.to_thread(server.stop)
                await asyncio.gather(*callers)
                return codes, code

        codes, code = asyncio.run(run())
    assert code == 0
    assert set(codes) == {"OK", "UNAVAILABLE"}
    assert "stopped: every accepted request was answered" in server.log[-1]


def test_a_second_signal_ends_at_once(trained: Path, transport: str, tmp_path: Path) -> None:
    """While it drains, another SIGTERM kills the process."""
    with ServerProcess(trained.parents[1], tmp_path, "--transport", transport) as server:
        server.process.send_signal(signal.SIGSTOP)  # both signals are there before it can act on the first
        server.process.send_signal(signal.SIGINT)
        server.process.send_signal(signal.SIGCONT)
        server.wait_for("draining")
        assert server.stop() in (128 + signal.SIGTERM, 0)


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        pytest.param(["--models", "nowhere"], 1, "--models nowhere: No such file or directory", id="no-root"),
        pytest.param(["--grpc-port", "http"], 2, "--grpc-port 'http': expected a whole number", id="usage"),
        pytest.param(
            ["--host", "192.0.2.1"], 2, "--grpc-port 0: cannot listen: that is no address of this machine", id="address"
        ),
    ],
)
def test_a_server_that_cannot_start_says_why_in_one_line(
    tmp_path: Path, transport: str, flags: list[str], code: int, said: str
) -> None:
    """Exit code 1 for failures, 2 for wrong usage, and no traceback."""
    done = subprocess.run(
        [
            sys.executable, "-m", "horngate_server", "--grpc-port", "0", "--http-port", "0",
            "--transport", transport, *flags,
        ],
        capture_output=True, text=True, check=False, cwd=tmp_path, timeout=60,
    )  # fmt: skip
    assert done.returncode == code
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_two_servers_on_one_port_are_an_error(
    server: ServerProcess, trained: Path, transport: str, tmp_path: Path
) -> None:
    """The second one says which address is taken, and does not share it in silence."""
    models, port = trained.parents[1], server.grpc.split(":")[1]
    stderr = usage_error(
        tmp_path, "--models", models, "--grpc-port", port, "--http-port", "0", "--transport", transport
    )
    assert f"--host 127.0.0.1, --grpc-port {port}: cannot listen: another server listens there" in stderr


def test_foreign_models_of_any_signature_are_served_side_by_side(
    foreign_models: Path, transport: str, tmp_path: Path
) -> None:
    """Several models, named one by one as they stand; several inputs and outputs, raw and typed; free axes."""
    [version] = (foreign_models / "free").iterdir()
    models = [foreign_models / "several", foreign_models / "every", version, foreign_models / "fails"]
    with ServerProcess(models, tmp_path, "--max-batch-rows", "32", "--transport", transport) as server:
        with Client(server.grpc, model="several") as client:
            a, b = np.array([[1, 2]], np.uint8), np.array([[0.5, 1.5]], np.float32)
            answer = client.infer({"a": a, "b": b})
            assert answer["sum"].tolist() == [[1.5, 3.5]]
            assert answer["many"].tolist() == [[10, 20]]
        with Client(server.grpc, model="free") as client:
            assert client.infer({"x": np.ones((2, 7), np.int32)})["total"].tolist() == [7, 7]
            assert client.infer({"x": np.ones((1, 3), np.int32)})["total"].tolist() == [3]
        with grpc.insecure_channel(server.grpc) as channel:
            infer = channel.unary_unary(
                MODEL_INFER,
                request_serializer=ModelInferRequest.SerializeToString,
                response_deserializer=ModelInferResponse.FromString,
            )
            typed = ModelInferRequest(model_name="several")
            typed.inputs.add(name="a", datatype="UINT8", shape=[1, 2]).contents.uint_contents.extend([1, 2])
            typed.inputs.add(name="b", datatype="FP32", shape=[1, 2]).contents.fp32_contents.extend([0.5, 1.5])
            response = infer(typed)
            assert {t.name: list(t.contents.fp32_contents) for t in response.outputs}["sum"] == [1.5, 3.5]
            with pytest.raises(grpc.RpcError, match="not a number in the batch") as failed:
                infer(request({"x": np.full((1, 1), np.nan, np.float32)}, model="fails"))
            assert failed.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_as_many_files_may_be_open_as_connections_are_allowed(trained: Path, transport: str) -> None:
    """The soft limit is raised to what is needed; where the hard one is lower, the log says so, and it serves."""
    for hard, warned in ((2000, False), (600, True)):
        command = f"ulimit -Sn 200; ulimit -Hn {hard}; exec {sys.executable} -m horngate_server"
        flags = ["--models", trained.parents[1], "--transport", transport, "--grpc-port", "0", "--http-port", "0"]
        with subprocess.Popen(
            ["bash", "-c", f'{command} "$@"', "bash", *map(str, flags)], stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr
            lines = []
            for line in process.stderr:
                lines.append(line)
                if "queue      up to" in line:
                    break
            limits = Path(f"/proc/{process.pid}/limits").read_text()
            process.send_signal(signal.SIGTERM)
            process.stderr.read()
            assert process.wait(30) == 0
        soft = next(line.split()[3] for line in limits.splitlines() if line.startswith("Max open files"))
        assert min(1512, hard) <= int(soft) <= hard  # Envoy takes all that it may
        assert any("may have 600 files open; expected 1512" in line for line in lines) == warned


def test_a_server_ends_though_nobody_reads_its_log_any_more(trained: Path, transport: str, tmp_path: Path) -> None:
    """Whoever started it may be gone, and its log's pipe broken: SIGTERM still drains and ends it."""
    ports = tmp_path / "ports"
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        [
            sys.executable, "-m", "horngate_server", "--models", trained.parents[1], "--transport", transport,
            "--grpc-port", "0", "--http-port", "0", "--port-file", ports,
        ],
        stderr=subprocess.PIPE, text=True, env=buffered,
    ) as process:  # fmt: skip
        assert process.stderr
        assert any("queue      up to" in line for line in process.stderr)
        process.stderr.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


@pytest.mark.parametrize(("host", "warned"), [("0.0.0.0", True), ("127.0.0.1", False)])
def test_tokens_that_would_travel_unencrypted_are_warned_of(tmp_path: Path, host: str, warned: bool) -> None:
    """Once, where callers can come from other machines; a proxy before the server may well do the TLS."""
    tokens.add(tmp_path / "tokens", "alice", admin=False)
    done = subprocess.run(
        [
            sys.executable, "-m", "horngate_server", "--models", "nowhere", "--host", host, "--grpc-port", "0",
            "--http-port", "0", "--tokens", "tokens", "--workers", "2",
        ],
        capture_output=True, text=True, check=False, cwd=tmp_path, timeout=60,
    )  # fmt: skip
    assert done.stderr.count("--tokens without --tls-cert") == warned
