"""What a request costs an Envoy between callers and replicas, and a connection, a health check, a scrape a replica."""

import json
import socket
import tempfile
import urllib.request
from pathlib import Path

import contestants
import grpc
import harness
from callers import INFER, infer_body
from fleet import Costs
from load import Load, measure
from proxy import Proxy, without_checks
from serving_process import Server, cpu_s

from horngate_server.transports.pyvoy import grpc_framing

HERE = Path(__file__).parent
GROWTH = harness.RESULTS / "growth.json"
ANSWER_BYTES = 180
"""About what a class and ten probabilities take."""
CONNECTIONS = 200
CHECKS = 500
SCRAPES = 20
MODELS = 10
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))


def sleeping_models(root: Path, *names: str) -> None:
    """Write what `sleeping_server` wants to see of models."""
    for name in names:
        version = root / name / "1"
        version.mkdir(parents=True)
        (version / "model.tflite").touch()


def sleeping_server(models: Path, milliseconds: float, rows: int) -> Server:
    """Return a server whose batches take so long, and have so many rows at most."""
    flags = "--transport", "grpcio", "--max-batch-rows", str(rows), "--target-batch-time", "10s"
    return Server(models, *flags, program=(str(HERE / "sleeping_server.py"), f"{milliseconds:g}"))


def measured(seconds: float) -> Costs:
    """Measure all of it; what a request costs a replica is what `growth` has measured."""
    envoy_s, connection_bytes = _transport(seconds)
    check_s, scrape_s, scrape_bytes, series = _replica(1)
    _, _, many_bytes, many_series = _replica(1 + MODELS)
    return Costs(
        request_s=json.loads(GROWTH.read_text())["simulated"]["cost"]["python_s"],
        envoy_s=envoy_s,
        connection_bytes=connection_bytes,
        check_s=check_s,
        scrape_s=scrape_s,
        scrape_bytes=scrape_bytes,
        model_scrape_bytes=(many_bytes - scrape_bytes) / MODELS,
        series=series,
        model_series=(many_series - series) / MODELS,
    )


# --- private ------------------------------------------------------------------------------------------


def _transport(seconds: float) -> tuple[float, float]:
    """Return Envoy's processor seconds for a request, and a replica's bytes for a connection; it only echoes."""
    body = grpc_framing.frame(infer_body("mnist", "images", "UINT8", (1, 28, 28), bytes(784)))
    with contestants.echo({len(body): ANSWER_BYTES}) as echo, Proxy([echo.address], without_checks) as proxy:
        load = Load(f"http://{proxy.target}{INFER}", body, ANSWER_BYTES, connections=4, in_flight=32)
        before, sent = cpu_s(proxy.process.pid), proxy.statistics("cluster.replicas.upstream_rq_total")
        measure(load, seconds)
        requests = proxy.statistics("cluster.replicas.upstream_rq_total") - sent
        envoy_s = (cpu_s(proxy.process.pid) - before) / requests
        assert echo.memory_mb is not None
        host, port = echo.address.split(":")
        memory = echo.memory_mb()
        opened = [socket.create_connection((host, int(port)), timeout=10) for _ in range(CONNECTIONS)]
        for connection in opened:
            connection.sendall(PREFACE)
        for connection in opened:
            connection.recv(64)  # its settings: it has taken the connection in
        bytes_each = (echo.memory_mb() - memory) * 1e6 / CONNECTIONS
        for connection in opened:
            connection.close()
    return envoy_s, bytes_each


def _replica(models: int) -> tuple[float, float, float, float]:
    """Return processor seconds of a check and of a scrape, and a scrape's bytes and series, with so many models."""
    with tempfile.TemporaryDirectory() as scratch:
        names = [f"m{number}" for number in range(models)]
        sleeping_models(Path(scratch), *names)
        with sleeping_server(Path(scratch), 1, 4) as server, grpc.insecure_channel(server.grpc) as channel:
            infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(INFER)
            for name in names:
                infer(infer_body(name, "x", "FP32", (1, 1), bytes(4)), timeout=10)
            check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/grpc.health.v1.Health/Check")
            before = cpu_s(server.process.pid)
            for _ in range(CHECKS):
                check(b"", timeout=10)  # of the whole server
            check_s = (cpu_s(server.process.pid) - before) / CHECKS
            before = cpu_s(server.process.pid)
            for _ in range(SCRAPES):
                with urllib.request.urlopen(f"{server.http}/metrics", timeout=10) as response:
                    text: bytes = response.read()
            scrape_s = (cpu_s(server.process.pid) - before) / SCRAPES
    series = sum(not line.startswith(b"#") for line in text.splitlines())
    return check_s, scrape_s, len(text), series
