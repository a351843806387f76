"""Several protocols at one server: the same line, the same model, each caller answered in its own words."""

import tracemalloc
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from math import inf
from typing import Any

import numpy as np
import pytest

from horngate_protos.datatypes import BY_NAME
from horngate_protos.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from horngate_protos.tensorflow_pb2 import Example
from horngate_protos.tensorflow_serving_pb2 import ClassificationRequest, PredictRequest, PredictResponse
from horngate_server.core.inference import ModelInfo
from horngate_server.core.methods import INFER, PREDICTION
from horngate_server.core.model import Array
from horngate_server.core.rpc import Call
from horngate_server.core.signature import Signature, TensorSpec
from horngate_server.engine.routing import Servable
from horngate_server.protocols.open_inference.json import JSON, decode_json
from horngate_server.telemetry.statistics import Totals
from support.in_process import SIGNATURE, WAIT_S, Clock, FakeModel, FakeReply, InProcessServer, double, request
from support.waiting import until

PREDICT = f"/{PREDICTION}/Predict"


TFS = {"model": "m", "protocol": "tensorflow_serving"}


OIP = {"model": "m", "protocol": "open_inference"}


def predict(x: object, *, model: str = "m", signature: str = "", label: str = "") -> bytes:
    """Make a PredictRequest for the input ``x``."""
    array = np.asarray(x, np.int32)
    made = PredictRequest()
    made.model_spec.name = model
    made.model_spec.signature_name = signature
    if label:
        made.model_spec.version_label = label
    made.inputs["x"].dtype = 3
    made.inputs["x"].tensor_content = array.tobytes()
    for axis in array.shape:
        made.inputs["x"].tensor_shape.dim.add(size=axis)
    return made.SerializeToString()


def doubled(reply: FakeReply) -> list[list[int]]:
    """Wait for a PredictResponse; return what it says."""
    answer = reply._wait()
    assert isinstance(answer, bytes)
    content = PredictResponse.FromString(answer).outputs["double"].tensor_content
    return [[int(value) for value in row] for row in np.frombuffer(content, np.int64).reshape(-1, 2)]


def test_callers_of_different_protocols_share_a_batch_and_are_counted_apart() -> None:
    """One batch for all of them; each answer is its caller's, in its caller's protocol."""
    with InProcessServer() as server:
        held = server.hold()
        replies = [(n, server.send(predict([[n, n]]), method=PREDICT), server.ask([[-n, -n]])) for n in range(1, 4)]
        server.model.gate.set()
        for n, theirs, ours in replies:
            assert doubled(theirs) == [[2 * n, 2 * n]]
            assert ours.output("double").tolist() == [[-2 * n, -2 * n]]
        assert held.status() == "OK"
    assert [len(each) for each in server.model.ran] == [1, 8], "the six of them, padded"
    assert server.sample("horngate_requests_total", {**TFS, "code": "OK"}) == 3
    assert server.sample("horngate_requests_total", {**OIP, "code": "OK"}) == 4
    assert server.sample("horngate_request_seconds_count", TFS) == 3


def test_each_protocol_has_its_own_codes() -> None:
    """A full queue and an unknown label are what TensorFlow Serving's callers know them as."""
    with InProcessServer(queue_rows=2) as server:
        held, waiting = server.hold(), server.ask([[1, 1], [2, 2]])
        assert server.ask([[1, 1]]).status() == "RESOURCE_EXHAUSTED"
        assert server.send(predict([[1, 1]]), method=PREDICT).status() == "UNAVAILABLE"
        assert server.ask([[1, 1]], model_version="canary").status() == "NOT_FOUND"
        assert server.send(predict([[1, 1]], label="canary"), method=PREDICT).status() == "INVALID_ARGUMENT"
        assert server.send(predict([[1, 1]], signature="nope"), method=PREDICT).status() == "FAILED_PRECONDITION"
        server.model.gate.set()
        assert [held.status(), waiting.status()] == ["OK", "OK"]
    assert server.sample("horngate_requests_total", {**TFS, "code": "UNAVAILABLE"}) == 1


def test_an_answer_that_cannot_be_written_leaves_its_neighbours_alone() -> None:
    """A model that names two classes and scores three fails who classifies, not who infers in the same batch."""
    outputs = (TensorSpec("classes", BY_NAME["BYTES"], (-1, -1)), TensorSpec("probabilities", BY_NAME["FP32"], (-1, 3)))
    model = FakeModel(Signature("serving_default", SIGNATURE.inputs, outputs))
    model.compute = lambda inputs: [
        np.full((len(inputs[0]), 2), b"cat", object), np.zeros((len(inputs[0]), 3), np.float32),
    ]  # fmt: skip
    asked = ClassificationRequest()
    asked.model_spec.name = "m"
    asked.input.example_list.examples.add().features.feature["x"].int64_list.value.extend([1, 2])
    with InProcessServer(model) as server:
        held = server.hold()
        wrong = server.send(asked.SerializeToString(), method=f"/{PREDICTION}/Classify")
        right = server.ask([[1, 2]])
        server.model.gate.set()
        assert (held.status(), right.status(), wrong.status()) == ("OK", "OK", "INTERNAL")
        assert "2 names of classes for 3 scores" in wrong.message()
        assert [bytes(each) for each in right.response().raw_output_contents] == [b"\3\0\0\0cat" * 2, bytes(12)]


def test_requests_for_different_signatures_never_share_a_batch() -> None:
    """Each is computed by its own signature, even where the inputs look the same."""
    other = Signature("negated", SIGNATURE.inputs, (TensorSpec("double", BY_NAME["INT64"], (-1, 2)),))
    model = FakeModel()
    model.signatures = {SIGNATURE.name: SIGNATURE, "negated": other}
    computed = []
    feed = model.feed

    def watched(signature: Signature, shapes: list[tuple[int, ...]]) -> object:
        computed.append((signature.name, shapes[0][0]))
        model.compute = lambda inputs: (
            [-inputs[0].astype(np.int64)] if signature is other
            else [inputs[0].astype(np.int64) * 2, inputs[0].astype(np.float32).sum(axis=1)]
        )  # fmt: skip
        return feed(signature, shapes)

    model.feed = watched  # type: ignore[method-assign, assignment]
    with InProcessServer(model, pad=False) as server:
        infos = {name: ModelInfo("m", "3", each) for name, each in model.signatures.items()}
        infos[SIGNATURE.name] = server.info
        server.models.route("m", Servable(server.info, server.executor, infos))
        server.hold()
        asked = [("", [[1, 2]]), ("negated", [[3, 4]]), ("", [[5, 6]]), ("negated", [[7, 8]])]
        replies = [server.send(predict(x, signature=name), method=PREDICT) for name, x in asked]
        server.model.gate.set()
        assert [doubled(reply) for reply in replies] == [[[2, 4]], [[-3, -4]], [[10, 12]], [[-7, -8]]]
    assert computed == [("serving_default", 1), ("serving_default", 2), ("negated", 2)]


@pytest.mark.parametrize("how", ["metadata", "parameter", "name"])
def test_bulk_stands_back_by_metadata_or_parameter(how: str) -> None:
    """Interactive requests that come later are computed first."""
    with InProcessServer(max_batch_rows=2, pad=False) as server:
        held = server.hold()
        message = request({"x": np.full((1, 2), 9, np.int32)})
        if how == "parameter":
            message.parameters["priority"].uint64_param = 2
        elif how == "name":
            message.parameters["priority"].string_param = "bulk"
        bulk = server.send(message.SerializeToString(), bulk=how == "metadata")
        assert server.queue.bulk_rows == 1
        small = [server.ask([[n, n]]) for n in range(4)]
        server.model.gate.set()
        assert [reply.status() for reply in (held, bulk, *small)] == ["OK"] * 6
    assert [each[:, 0].tolist() for each in server.model.ran] == [[0], [0, 1], [2, 3], [9]]


def test_a_timeout_in_the_request_is_a_deadline_like_the_calls_own() -> None:
    """Whichever of the two comes first counts."""
    clock = Clock()
    with InProcessServer(clock=clock) as server:
        held = server.hold()
        ends = []
        for timeout_us, deadline in ((500_000, inf), (0, clock.now + 0.5), (5_000_000, clock.now + 0.5), (0, inf)):
            message = request({"x": np.ones((1, 2), np.int32)})
            message.parameters["timeout"].int64_param = timeout_us
            ends.append(server.send(message.SerializeToString(), deadline=deadline))
        clock.now += 1
        server.model.gate.set()
        assert [each.status() for each in (held, *ends)] == ["OK", *["DEADLINE_EXCEEDED"] * 3, "OK"]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("priority", "urgent", "priority 'urgent'; expected interactive or bulk"),
        ("priority", -1, "priority is -1; expected a whole number that is not negative"),
        ("priority", True, "priority is bool_param; expected int64_param or uint64_param"),
        ("timeout", 0.5, "timeout is double_param"),
    ],
)
def test_a_parameter_that_makes_no_sense_is_refused(name: str, value: object, said: str) -> None:
    """What was expected and what came, whatever the type."""
    kinds = {str: "string_param", int: "int64_param", bool: "bool_param", float: "double_param"}
    message = request({"x": np.ones((1, 2), np.int32)})
    setattr(message.parameters[name], kinds[type(value)], value)
    with InProcessServer() as server:
        assert said in server.send(message.SerializeToString()).message()


def test_whoever_has_an_answer_finds_it_in_the_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer has left and is not counted yet: who asks for statistics then waits until it is."""
    with InProcessServer() as server, ThreadPoolExecutor(1) as caller:
        count = server.statistics.batch
        asked: list[Future[Totals]] = []

        def counted_late(*told: Any, **more: Any) -> None:
            asked.append(caller.submit(server.statistics.of, "m", "3"))
            with pytest.raises(TimeoutError):
                asked[0].result(0.1)
            count(*told, **more)

        monkeypatch.setattr(server.statistics, "batch", counted_late)
        server.ask([[1, 2]]).response()
        until(lambda: bool(asked))
        assert asked[0].result(WAIT_S).rows == 1


def test_statistics_are_what_was_done() -> None:
    """Rows, batches, and every stage's time, per request and per batch; failures apart."""
    clock = Clock()
    with InProcessServer(clock=clock, pad=False) as server:

        def slow(inputs: Sequence[Array]) -> list[Array]:
            clock.now += 2 * (len(inputs[0]) == 3)
            return double(inputs)

        server.model.compute = slow
        held = server.hold()
        first, second = server.ask([[1, 1]]), server.ask([[2, 2], [3, 3]])
        late = server.ask([[4, 4]], deadline=clock.now + 0.5)
        clock.now += 1
        server.model.gate.set()
        assert [each.status() for each in (held, first, second, late)] == ["OK", "OK", "OK", "DEADLINE_EXCEEDED"]
    totals = server.statistics.of("m", "3")
    assert (totals.rows, totals.batches, totals.last) == (4, 2, clock.now)
    assert (totals.success.count, totals.fail.count, totals.queue.count) == (3, 1, 3)
    assert totals.success.seconds == 1 + 3 + 3
    assert totals.queue.seconds == 2
    assert totals.fail.seconds == 3
    assert totals.requests.run_s == 1 + 2 * 2
    assert {rows: (each.count, each.run_s) for rows, each in totals.sizes.items()} == {1: (1, 1), 3: (1, 2)}


def test_what_is_decoded_elsewhere_is_computed_and_counted_like_any_other() -> None:
    """JSON from the HTTP port: the same model, its own protocol in the metrics."""
    body = b'{"id": "j", "inputs": [{"name": "x", "shape": [1, 2], "datatype": "INT32", "data": [[1, 2]]}]}'
    with InProcessServer() as server:
        reply = FakeReply()
        server.service.accept([Call("", b"", inf, reply, decoded=(JSON, decode_json(body, "m", "")))])
        answer = reply._wait()
    assert answer == (
        b'{"model_name":"m","model_version":"3","id":"j","outputs":['
        b'{"name":"double","datatype":"INT64","shape":[1,2],"data":[2,4]},'
        b'{"name":"total","datatype":"FP32","shape":[1],"data":[3.0]}]}'
    )
    assert (
        server.sample("horngate_requests_total", {"model": "m", "protocol": "open_inference_json", "code": "OK"}) == 1
    )


def test_classes_are_the_highest_values_with_their_labels() -> None:
    """``value:index[:label]``, the highest first, equals by index; raw as BYTES, typed as strings."""
    model = FakeModel()
    for raw in (True, False):
        with InProcessServer(model) as server:
            info = ModelInfo("m", "3", SIGNATURE, ("zero",))
            server.models.route("m", Servable(info, server.executor))
            message = request({"x": np.array([[3, 7]], np.int32)})
            if not raw:
                message = ModelInferRequest(model_name="m")
                tensor = message.inputs.add(name="x", datatype="INT32", shape=[1, 2])
                tensor.contents.int_contents.extend([3, 7])
            message.outputs.add(name="double").parameters["classification"].int64_param = 5
            message.outputs.add(name="total").parameters["classification"].int64_param = 1
            answer = server.send(message.SerializeToString()).response()
            assert [(each.datatype, list(each.shape)) for each in answer.outputs] == [
                ("BYTES", [1, 2]), ("BYTES", [1, 1]),
            ]  # fmt: skip
            expected = [b"14:1", b"6:0:zero"], [b"10.000000:0:zero"]
            if raw:
                assert answer.raw_output_contents[0] == b"".join(
                    len(each).to_bytes(4, "little") + each for each in expected[0]
                )
            else:
                assert [list(each.contents.bytes_contents) for each in answer.outputs] == list(expected)
            assert isinstance(answer, ModelInferResponse)


def _many_inputs() -> tuple[str, bytes]:
    return INFER, ModelInferRequest(model_name="m").SerializeToString() + b"\x2a\0" * (2 << 20)


def _many_outputs() -> tuple[str, bytes]:
    return INFER, ModelInferRequest(model_name="m").SerializeToString() + b"\x32\0" * (2 << 20)


def _many_late_inputs() -> tuple[str, bytes]:
    return INFER, ModelInferRequest(raw_input_contents=[b""]).SerializeToString() + b"\x2a\0" * 40_000


def _long_name() -> tuple[str, bytes]:
    made = ModelInferRequest(model_name="m" * 80_000, raw_input_contents=[b""])
    made.inputs.add(name="x")
    return INFER, made.SerializeToString()


def _many_filters() -> tuple[str, bytes]:
    return PREDICT, predict([[1, 1]]) + b"\x1a\0" * (1 << 20)


def _many_keys() -> tuple[str, bytes]:
    entries = b"".join(b"\x12\7\x0a\5" + b"%05d" % number for number in range(50_000))
    return PREDICT, predict([[1, 1]]) + entries


def _many_contents() -> tuple[str, bytes]:
    return INFER, ModelInferRequest(model_name="m").SerializeToString() + b"\x3a\0" * (3 << 20)


def _long_list() -> tuple[str, bytes]:
    made = ModelInferRequest(model_name="m")
    made.inputs.add(name="x", datatype="INT64").contents.int64_contents.extend([1] * (5 << 20))
    return INFER, made.SerializeToString()


def _many_entries() -> tuple[str, bytes]:
    return PREDICT, predict([[1, 1]]) + b"\x12\0" * (3 << 20)


def _empty_examples() -> tuple[str, bytes]:
    made = ClassificationRequest()
    made.model_spec.name = "m"
    made.input.example_list_with_context.context.features.feature["x"].int64_list.value.extend([1, 2])
    made.input.example_list_with_context.examples.extend([Example()] * 70_000)
    return f"/{PREDICTION}/Classify", made.SerializeToString()


def _many_examples() -> tuple[str, bytes]:
    made = ClassificationRequest()
    made.input.example_list.examples.extend([Example()] * (3 << 20))
    return f"/{PREDICTION}/Classify", made.SerializeToString()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_many_inputs, "more than 1024 inputs, outputs or parameters; expected at most so many"),
        (_many_outputs, "more than 1024 inputs, outputs or parameters; expected at most so many"),
        (_many_late_inputs, "more than 1024 inputs, outputs or parameters; expected at most so many"),
        (_long_name, "bytes beside the tensors' contents; expected at most 65536"),
        (_many_filters, "more than 1024 inputs, outputs or parameters; expected at most so many"),
        (_many_keys, "more than 1024 inputs, outputs or parameters; expected at most so many"),
        (_empty_examples, "70000 examples; expected at most 65536 in a request"),
        (_many_contents, "larger tensors travel in raw_input_contents"),
        (_long_list, "larger tensors travel in raw_input_contents"),
        (_many_entries, "larger tensors travel in tensor_content"),
        (_many_examples, "larger tensors travel in Predict's tensor_content"),
    ],
)
def test_a_message_that_would_become_too_many_objects_is_refused(
    make: Callable[[], tuple[str, bytes]], said: str
) -> None:
    """Fields of two bytes cost hundreds in memory: what is made of a message is bounded, not only the message."""
    method, message = make()
    with InProcessServer() as server:
        tracemalloc.start()
        reply = server.send(message, method=method)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert reply.status() == "INVALID_ARGUMENT"
        assert said in reply.message()
    assert peak < len(message) + (8 << 20)


def test_a_question_that_is_longer_than_any_is_refused() -> None:
    """Calls that compute nothing take a megabyte at most."""
    with InProcessServer() as server:
        server.service.add({"/s/m": lambda message: message})
        assert server.send(bytes(1 << 20), method="/s/m").status() == "OK"
        assert (
            "1048577 bytes for /s/m; expected at most 1048576"
            in server.send(bytes((1 << 20) + 1), method="/s/m").message()
        )
