"""Traces and access log: what a request's caller and the operator can follow it by, with a real OTLP collector."""

import json
import queue
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from horngate_server.core.methods import STREAM_INFER
from support.http2 import MODEL_INFER
from support.in_process import request
from support.process import ServerProcess

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
IMAGES = {"images": np.zeros((3, 28, 28), np.uint8)}


@pytest.fixture
def spans() -> Iterator[tuple[str, "queue.Queue[Span]"]]:
    """A collector's address, and the spans that it has got."""
    got: queue.Queue[Span] = queue.Queue()

    def export(message: ExportTraceServiceRequest, _context: object) -> ExportTraceServiceResponse:
        for resource in message.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    got.put(span)
        return ExportTraceServiceResponse()

    server = grpc.server(ThreadPoolExecutor(2))
    handler = grpc.unary_unary_rpc_method_handler(
        export, ExportTraceServiceRequest.FromString, ExportTraceServiceResponse.SerializeToString
    )
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"http://127.0.0.1:{port}", got
    server.stop(0).wait()


def call(server: ServerProcess, *metadata: tuple[str, str], model: str = "mnist") -> None:
    """Ask for three digits."""
    with grpc.insecure_channel(server.grpc) as channel:
        infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(MODEL_INFER)
        infer(request(IMAGES, model=model, id="own-id").SerializeToString(), metadata=metadata, timeout=10)


def call_json(server: ServerProcess, headers: dict[str, str]) -> None:
    """Ask for one digit by HTTP."""
    data = np.zeros((1, 28, 28), np.uint8).tolist()
    body = {"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 28, 28], "data": data}]}
    url = f"{server.http}/v2/models/mnist/infer"
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers), timeout=10):
        pass


def test_a_sampled_request_has_a_span_with_four_stages_below_its_callers(
    trained: Path, transport: str, tmp_path: Path, spans: tuple[str, "queue.Queue[Span]"]
) -> None:
    """Decode, queue, compute, encode follow one another; who is not sampled leaves none; the log has the same ids."""
    endpoint, got = spans
    flags = ["--otlp-endpoint", endpoint, "--trace-share", "0", "--access-log", "1", "--log-format", "json"]
    with ServerProcess(trained.parents[1], tmp_path, "--transport", transport, *flags) as server:
        call(server, ("traceparent", f"00-{TRACE}-{PARENT}-01"), ("x-request-id", "req-7"))
        call(server, ("traceparent", f"00-{TRACE}-{PARENT}-00"))
        call(server)
        with pytest.raises(grpc.RpcError):
            call(server, ("traceparent", f"00-{TRACE}-{PARENT}-01"), model="nothing")
        call_json(server, {"traceparent": f"00-{TRACE}-{PARENT}-00", "x-request-id": "by-http"})
        assert server.stop() == 0  # the last spans leave before it ends
        lines = [json.loads(line) for line in server.log if '"horngate_server.access"' in line]
    everything = [got.get_nowait() for _ in range(got.qsize())]
    good, bad = sorted(
        (span for span in everything if span.parent_span_id.hex() == PARENT), key=lambda s: s.status.code
    )
    assert {span.trace_id.hex() for span in everything} == {TRACE}
    stages = {span.name: span for span in everything if span.parent_span_id == good.span_id}
    assert list(stages) == ["decode", "queue", "compute", "encode"]
    times = [time for span in stages.values() for time in (span.start_time_unix_nano, span.end_time_unix_nano)]
    assert times == sorted(times)
    assert good.start_time_unix_nano <= times[0]
    assert times[-1] <= good.end_time_unix_nano
    values = {each.key: each.value for each in good.attributes}
    assert values["horngate.rows"].int_value == 3
    assert values["horngate.request_id"].string_value == "req-7"
    assert bad.status.message.startswith("no model 'nothing'")
    assert len(lines) == 5  # each line as its request ends, on whichever thread
    by_id = {line.get("request_id"): line for line in lines if line["code"] == "OK"}
    first, http = by_id["req-7"], by_id["by-http"]
    [failed] = [line for line in lines if line["code"] != "OK"]
    assert (first["request_id"], first["trace_id"], first["code"], first["rows"]) == ("req-7", TRACE, "OK", 3)
    assert first["total_ms"] >= first["compute_ms"] > 0
    assert [line.get("request_id") for line in lines].count("own-id") == 2
    assert failed["code"] == "NOT_FOUND"
    assert first["client"] == "127.0.0.1"
    assert (http["request_id"], http["trace_id"], http["client"]) == ("by-http", TRACE, "127.0.0.1")
    assert "nothing" in failed["error"]


def test_a_trace_that_begins_here_and_every_message_of_a_stream_can_be_found_by_the_log(
    trained: Path, transport: str, tmp_path: Path, spans: tuple[str, "queue.Queue[Span]"]
) -> None:
    """A log line has the trace id of its request's span, whether callers bring one or not, in streams too."""
    endpoint, got = spans
    flags = ["--otlp-endpoint", endpoint, "--trace-share", "1", "--access-log", "1", "--log-format", "json"]
    with ServerProcess(trained.parents[1], tmp_path, "--transport", transport, *flags) as server:
        call(server)
        with grpc.insecure_channel(server.grpc) as channel:
            stream: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(STREAM_INFER)
            messages = [request(IMAGES, model="mnist", id=str(n)).SerializeToString() for n in range(2)]
            metadata = (("traceparent", f"00-{TRACE}-{PARENT}-01"), ("x-request-id", "by-stream"))
            assert len(list(stream(iter(messages), metadata=metadata, timeout=10))) == 2
        assert server.stop() == 0
        lines = [json.loads(line) for line in server.log if '"horngate_server.access"' in line]
    everything = [got.get_nowait() for _ in range(got.qsize())]
    requests = [span for span in everything if span.name == "predict mnist"]
    assert [line["trace_id"] for line in lines] == [span.trace_id.hex() for span in requests]
    assert [line["trace_id"] == TRACE for line in lines] == [False, True, True]
    assert [span.parent_span_id.hex() for span in requests] == ["", PARENT, PARENT]
    assert [line["request_id"] for line in lines] == ["own-id", "by-stream", "by-stream"]


def test_one_request_in_so_many_is_logged(trained: Path, transport: str, tmp_path: Path) -> None:
    """--access-log 0.2: of two hundred, about forty; and none of it is switched on unless asked for."""
    with ServerProcess(trained.parents[1], tmp_path, "--transport", transport, "--access-log", "0.2") as server:
        with grpc.insecure_channel(server.grpc) as channel:
            infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(MODEL_INFER)
            for _ in range(200):
                infer(request(IMAGES, model="mnist").SerializeToString(), timeout=10)
        assert server.stop() == 0
    lines = [line for line in server.log if "request client=" in line]
    assert 10 < len(lines) < 90
    assert "code=OK" in lines[0]


def test_behind_workers_too_the_log_says_who_asked(trained: Path, transport: str, tmp_path: Path) -> None:
    """JSON comes by way of the supervisor, and is its caller's all the same; nobody can pretend to be somebody else."""
    flags = ["--workers", "2", "--transport", transport, "--access-log", "1", "--log-format", "json"]
    with ServerProcess(trained.parents[1], tmp_path, *flags) as server:
        call_json(server, {"x-horngate-peer": "10.0.0.1"})
        assert server.stop() == 0
        [line] = [json.loads(line) for line in server.log if '"horngate_server.access"' in line]
    assert line["client"] == "127.0.0.1"
