"""On clusters, as kustomize builds it, by Kubernetes' schemas and the restricted Pod Security Standard."""

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from horngate_protos import __version__
from horngate_server.core import settings
from support.kubernetes import Manifest, container, of_kind, pods, violations

FOLDER = Path(__file__).parents[2] / "deploy/kubernetes"
KUBERNETES = "1.37"
"""Whose schemas count."""
MANIFESTS = sorted(FOLDER.rglob("*.yaml"))
COMPONENTS = sorted(path.name for path in (FOLDER / "components").iterdir())
OF_OTHERS = re.compile(r"(kustomize\.config\.k8s|gateway\.networking\.k8s|keda|kubeflow|monitoring\.coreos|serving\.)")
"""Not Kubernetes' own API: test_types.py has their types."""
KSERVE = Path(str(distribution("kserve").locate_file("kserve/models")))
KUBECTL = shutil.which("kubectl")
needs_kubectl = pytest.mark.skipif(KUBECTL is None, reason="no kubectl on this machine")


def build(folder: Path) -> list[Manifest]:
    """Build a kustomization, as `kubectl apply -k` does."""
    done = subprocess.run(
        [str(KUBECTL), "kustomize", str(folder)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Manifest]]:
    """All kustomizations, and the base with each component alone."""
    copy = tmp_path_factory.mktemp("deploy")
    shutil.copytree(FOLDER.parent, copy, dirs_exist_ok=True)
    found = {name: build(copy / "kubernetes" / name) for name in ("base", "lite", "production")}
    for name in COMPONENTS:
        alone = copy / "kubernetes/alone"
        alone.mkdir(exist_ok=True)
        words = {"namespace": "horngate", "resources": ["../base"], "components": [f"../components/{name}"]}
        (alone / "kustomization.yaml").write_text(yaml.safe_dump(words))
        found[name] = build(alone)
    return found


def every(built: Mapping[str, list[Manifest]]) -> Iterator[tuple[str, Manifest]]:
    """Name each manifest of each build."""
    for name, manifests in built.items():
        for manifest in manifests:
            yield f"{name}: {manifest['kind']} {manifest['metadata']['name']}", manifest


@pytest.mark.parametrize("path", MANIFESTS, ids=[str(path.relative_to(FOLDER)) for path in MANIFESTS])
def test_manifests_fit_their_schemas(path: Path) -> None:
    """Kubernetes' own, strictly: a field that there is not is an error."""
    for manifest in yaml.safe_load_all(path.read_text()):
        if "kind" in manifest and not OF_OTHERS.match(manifest["apiVersion"]):
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


@needs_kubectl
def test_what_is_built_fits_its_schemas_and_the_policy(built: dict[str, list[Manifest]]) -> None:
    """With each component, patched as kustomize patches: the restricted standard and our own rules, no pod excepted."""
    broken = []
    for name, manifest in every(built):
        if not OF_OTHERS.match(manifest["apiVersion"]):
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
        broken += [f"{name}: {violation}" for pod in pods(manifest) for violation in violations(pod, manifest["kind"])]
        assert manifest["metadata"].get("namespace", "horngate") == "horngate", name
    assert not broken


@needs_kubectl
def test_the_base_needs_nothing_that_a_cluster_does_not_have(built: dict[str, list[Manifest]]) -> None:
    """So that `kubectl apply -k` succeeds; components bring what others define."""
    assert not [manifest["kind"] for manifest in built["base"] if OF_OTHERS.match(manifest["apiVersion"])]
    brought = {manifest["kind"] for _, manifest in every(built) if OF_OTHERS.match(manifest["apiVersion"])}
    assert brought == {"PodMonitor", "ScaledObject", "GRPCRoute"}


@needs_kubectl
def test_all_parts_select_the_same_pods(built: dict[str, list[Manifest]]) -> None:
    """Services, budgets, policies, monitors: what they select are labels of a Deployment beside them."""
    for name, manifests in built.items():
        labels = [
            each["spec"]["template"]["metadata"]["labels"]
            for each in manifests
            if each["kind"] in {"Deployment", "Job"}
        ]
        for manifest in manifests:
            spec = manifest.get("spec") or {}
            selector = spec.get("podSelector") or spec.get("selector")
            if selector:
                wanted = selector.get("matchLabels", selector)
                assert any(wanted.items() <= each.items() for each in labels), (name, manifest["kind"])
    monitor = of_kind(built["monitoring"], "PodMonitor")
    server = of_kind(built["monitoring"], "Deployment")
    assert server["spec"]["template"]["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "horngate"


@needs_kubectl
def test_a_rollout_has_the_time_that_callers_need(built: dict[str, list[Manifest]]) -> None:
    """Every caller looks names up anew, and every connection ends, while an old pod still serves; then it drains."""
    spec = of_kind(built["base"], "Deployment")["spec"]
    pod = spec["template"]["spec"]
    server = container(spec)
    variables = {each["name"]: each["value"] for each in server["env"] if "value" in each}
    chosen = settings.read(["--models", "m"], variables)
    still_serves = server["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert 0 < chosen.max_connection_age_s * 1.1 < still_serves  # give or take 10 %
    assert spec["minReadySeconds"] >= 35  # a resolver's cache, and gRPC's 30 s between two look-ups
    assert pod["terminationGracePeriodSeconds"] > still_serves + chosen.grace_period_s + 2
    assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


@needs_kubectl
def test_every_variable_is_a_setting(built: dict[str, list[Manifest]]) -> None:
    """And threads are counted by what the pod asks for, whatever the component."""
    known = {settings.names(attribute)[1] for attribute in settings.Settings.__dataclass_fields__}
    for name, manifest in every(built):
        if manifest["metadata"]["name"] != "horngate-server" or manifest["kind"] != "Deployment":
            continue
        variables = {each["name"]: each for each in container(manifest["spec"])["env"]}
        assert variables.keys() <= known, name
        counted = variables["HORNGATE_COMPUTE_THREADS"]["valueFrom"]["resourceFieldRef"]
        assert counted == {"containerName": "server", "resource": "requests.cpu"}, name
        mounts = {each["mountPath"] for each in container(manifest["spec"])["volumeMounts"]}
        files = {variables[each]["value"] for each in variables if re.search("TLS|TOKENS", each)}
        assert {str(Path(file).parent) for file in files} <= mounts, name
    lite = container(of_kind(built["lite"], "Deployment")["spec"])
    assert lite["image"].startswith("horngate-server-lite:")
    chosen = settings.read([], {each["name"]: each["value"] for each in lite["env"] if "value" in each})
    assert (chosen.transport, lite["resources"]["requests"]["memory"]) == ("grpcio", "128Mi")


@needs_kubectl
def test_an_autoscaler_owns_the_number_of_replicas(built: dict[str, list[Manifest]]) -> None:
    """It is not in the Deployment then; what it asks for is what prometheus-adapter offers."""
    assert "replicas" in of_kind(built["base"], "Deployment")["spec"]
    for name in ("autoscaling", "autoscaling-keda", "production"):
        assert "replicas" not in of_kind(built[name], "Deployment")["spec"], name
    scaler = of_kind(built["autoscaling"], "HorizontalPodAutoscaler")
    names = {metric["pods"]["metric"]["name"] for metric in scaler["spec"]["metrics"][1:]}
    adapter = yaml.safe_load((FOLDER / "components/autoscaling/prometheus-adapter.yaml").read_text())
    assert names == {rule["name"]["as"] for rule in adapter["rules"]["custom"]}


@needs_kubectl
def test_envoy_finds_its_configuration_and_the_replicas(built: dict[str, list[Manifest]]) -> None:
    """The ConfigMap that it mounts is deploy/envoy's file, whose cluster has a Service's name and port."""
    [configuration] = [each for each in built["envoy"] if each["kind"] == "ConfigMap"]
    [envoy] = [each for each in built["envoy"] if each["kind"] == "Deployment" and each["metadata"]["name"] == "envoy"]
    mounted = envoy["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"]
    assert mounted == configuration["metadata"]["name"]
    [cluster] = yaml.safe_load(configuration["data"]["envoy.yaml"])["static_resources"]["clusters"]
    [endpoint] = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    address = endpoint["endpoint"]["address"]["socket_address"]
    services = {each["metadata"]["name"]: each["spec"]["ports"] for each in built["envoy"] if each["kind"] == "Service"}
    assert address["port_value"] in {port["port"] for port in services[address["address"]]}


def test_kserve_calls_scrapes_and_asks_where_the_server_listens() -> None:
    """Protocols are those of the port that is declared; the scraped port is the HTTP port; pods are as restricted."""
    *runtimes, service = yaml.safe_load_all((FOLDER / "kserve.yaml").read_text())
    protocols = set()
    for runtime in runtimes:
        spec = runtime["spec"]
        [server] = spec["containers"]
        chosen = settings.read(server["args"], {})
        [port] = server["ports"]
        [protocol] = spec["protocolVersions"]
        assert (protocol, port["name"], port["containerPort"]) in {
            ("grpc-v2", "h2c", chosen.grpc_port),
            ("v2", "http1", chosen.http_port),
        }
        probe = server["readinessProbe"]
        assert (probe.get("grpc") or probe["httpGet"])["port"] == port["containerPort"]
        assert spec["annotations"]["prometheus.kserve.io/port"] == str(chosen.http_port)
        assert not violations({"automountServiceAccountToken": False, **spec}, "ServingRuntime")
        protocols.add((runtime["metadata"]["name"], protocol))
        kubernetes_validate.validate(_pod(spec["containers"], spec["volumes"]), KUBERNETES, strict=True)
        _fits(spec, "V1alpha1ServingRuntimeSpec")
    model = service["spec"]["predictor"]["model"]
    assert (model["runtime"], model["protocolVersion"]) in protocols
    _fits(service["spec"], "V1beta1InferenceServiceSpec")


def _pod(containers: list[Manifest], volumes: list[Manifest]) -> Manifest:
    spec = {"containers": containers, "volumes": volumes}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "m"}, "spec": spec}


def _fits(value: Any, kind: str) -> None:
    """Hold a value against a class of KServe's client, read as text: its imports are another project's client."""
    if listed := re.fullmatch(r"list\[(\w+)\]", kind):
        for each in value:
            _fits(each, listed[1])
        return
    file = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind).lower()
    path = KSERVE / f"{file}.py"
    if kind in {"str", "int", "bool"}:
        assert type(value).__name__ == kind, (value, kind)
    elif kind.startswith(("V1alpha", "V1beta")):  # what is Kubernetes' own is held by its own schema
        [made] = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]
        tables = {
            node.targets[0].id: ast.literal_eval(node.value)
            for node in made.body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        types = {tables["attribute_map"][name]: kind for name, kind in tables["openapi_types"].items()}
        assert value.keys() <= types.keys(), f"{kind}: {value.keys() - types.keys()}"
        for name, each in value.items():
            _fits(each, types[name])


def test_knative_starts_a_server_where_it_looks_for_one() -> None:
    """HTTP/2 without TLS on the port that is asked whether it is ready; nothing runs while nobody calls."""
    template = yaml.safe_load((FOLDER / "knative.yaml").read_text())["spec"]["template"]
    spec = template["spec"]
    server = container({"template": template})
    chosen = settings.read(["--models", "/models", *server["args"]], {})
    assert server["ports"] == [{"name": "h2c", "containerPort": chosen.grpc_port}]
    assert server["readinessProbe"]["grpc"]["port"] == chosen.grpc_port
    assert template["metadata"]["annotations"]["autoscaling.knative.dev/min-scale"] == "0"
    claims = yaml.safe_load((FOLDER / "base/models.yaml").read_text())["metadata"]["name"]
    assert spec["volumes"][0]["persistentVolumeClaim"]["claimName"] == claims
    assert not violations({"automountServiceAccountToken": False, **spec}, "Knative")
    kubernetes_validate.validate(_pod(spec["containers"], spec["volumes"]), KUBERNETES, strict=True)


def test_manifests_ask_for_the_images_of_this_version() -> None:
    """`make release` writes it there."""
    files = [*MANIFESTS, *FOLDER.rglob("kustomization.yaml")]
    tags = {tag for path in files for tag in re.findall(r"image: horngate-[\w-]+:(\S+)", path.read_text())}
    assert tags == {__version__}
