"""Training on a cluster: what the manifests start is what the command takes, and its processes find each other."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from horngate_protos import __version__
from horngate_trainer import clusters, settings

FOLDER = Path(__file__).parents[2] / "deploy/kubernetes/training"
TFJOB = yaml.safe_load((FOLDER / "tfjob.yaml").read_text())
SERVICE, JOB = yaml.safe_load_all((FOLDER / "job.yaml").read_text())
REPLICAS = TFJOB["spec"]["tfReplicaSpecs"]
TEMPLATES = {"job": JOB["spec"]["template"], **{role: each["template"] for role, each in REPLICAS.items()}}


def container(template: Mapping[str, Any]) -> dict[str, Any]:
    """The pod's only container."""
    (found,) = template["spec"]["containers"]
    return dict(found)


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_pods_start_a_command_that_there_is(template: Mapping[str, Any]) -> None:
    """Its flags, its image's version, a pod that fits its schema, and volumes for all folders that it writes to."""
    found = container(template)
    chosen = settings.parse(found["args"], {"HORNGATE_OUTPUT": "/models", "HORNGATE_REPORT": "/report"})
    assert (chosen.strategy, chosen.resume) == ("multi-worker", True)
    assert found["image"] == f"horngate-trainer:{__version__}"
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": template["spec"]}
    kubernetes_validate.validate(pod, "1.34", strict=True)
    mounted = {each["mountPath"] for each in found["volumeMounts"]}
    assert {chosen.data, "/tmp"} <= mounted
    assert {each["name"] for each in found["volumeMounts"]} == {each["name"] for each in template["spec"]["volumes"]}


def test_kubeflows_operator_finds_container_and_port() -> None:
    """By the names that it looks for; chief and workers have the same flags, and only the chief writes models."""
    assert set(REPLICAS) == {"Chief", "Worker"}
    for role in REPLICAS.values():
        found = container(role["template"])
        assert found["name"] == "tensorflow"
        assert found["ports"] == [{"name": "tfjob-port", "containerPort": 2222}]
        assert role["restartPolicy"] == "OnFailure"
    chief, worker = (container(REPLICAS[role]["template"]) for role in ("Chief", "Worker"))
    assert chief["args"] == worker["args"]
    assert "/models" in {each["mountPath"] for each in chief["volumeMounts"]}
    assert "/models" not in {each["mountPath"] for each in worker["volumeMounts"]}


def test_an_indexed_jobs_pods_know_each_other() -> None:
    """TF_CONFIG names as many as there are, by the names of the pods; the first is the chief."""
    spec, found = JOB["spec"], container(JOB["spec"]["template"])
    number, config = found["env"]
    assert number["name"] == "NUMBER"
    assert spec["completionMode"] == "Indexed"
    assert spec["parallelism"] == spec["completions"]
    assert spec["template"]["spec"]["subdomain"] == SERVICE["metadata"]["name"]
    assert SERVICE["spec"]["selector"].items() <= spec["template"]["metadata"]["labels"].items()
    for index in range(spec["completions"]):
        cluster = clusters.parse(config["value"].replace("$(NUMBER)", str(index)))
        (port,) = found["ports"]
        assert cluster.addresses[index] == (
            f"{JOB['metadata']['name']}-{index}.{SERVICE['metadata']['name']}:{port['containerPort']}"
        )
        assert len(cluster.addresses) == spec["completions"]
        assert cluster.chief == (index == 0)
