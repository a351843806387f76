"""Kubernetes' manifests: their pods, and what of the restricted Pod Security Standard and of our rules they break."""

from collections.abc import Iterator
from typing import Any

Manifest = dict[str, Any]

VOLUMES = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}
"""Of those that the restricted standard allows, the ones that need no node of ours."""
OF_THE_NODE = ("hostNetwork", "hostPID", "hostIPC")


def of_kind(manifests: list[Manifest], kind: str) -> Manifest:
    """Find the server's manifest of this kind, or the only one."""
    found = [each for each in manifests if each["kind"] == kind]
    named = [each for each in found if each["metadata"]["name"] == "horngate-server"]
    [manifest] = named or found
    return manifest


def container(spec: Manifest) -> Manifest:
    """Return the one container of what has a template."""
    found: Manifest
    [found] = spec["template"]["spec"]["containers"]
    return found


def pods(manifest: Manifest) -> Iterator[Manifest]:
    """Return the pods' specification, where the manifest has one."""
    if template := (manifest.get("spec") or {}).get("template"):
        yield template["spec"]


def violations(pod: Manifest, kind: str) -> list[str]:
    """Say what a pod breaks of the restricted Pod Security Standard, and of our own rules.

    Args:
        pod: its specification.
        kind: of what makes it; a Job's pod needs no probe.
    """
    broken = [f"{name} is set" for name in OF_THE_NODE if pod.get(name)]
    broken += [
        f"volume {each['name']} is {sorted(each.keys() - {'name'})}"
        for each in pod.get("volumes", ())
        if not each.keys() - {"name"} <= VOLUMES
    ]
    if pod.get("automountServiceAccountToken") is not False:
        broken.append("the service account's token is mounted")
    whole = pod.get("securityContext", {})
    for each in (*pod["containers"], *pod.get("initContainers", ())):
        has = whole | each.get("securityContext", {})
        rules = {
            "may be root": has.get("runAsNonRoot") is not True or has.get("runAsUser") == 0,
            "may gain privileges": has.get("allowPrivilegeEscalation") is not False or bool(has.get("privileged")),
            "keeps capabilities": has.get("capabilities") != {"drop": ["ALL"]},
            "has no seccomp profile": has.get("seccompProfile") != {"type": "RuntimeDefault"},
            "can write its root file system": has.get("readOnlyRootFilesystem") is not True,
            "has no memory limit": "memory" not in each["resources"]["limits"],
            "is throttled": "cpu" in each["resources"]["limits"],
            "asks for no CPU": "cpu" not in each["resources"]["requests"],
            "has no fixed image": ":" not in each["image"] or each["image"].endswith(":latest"),
            "is ready unasked": kind != "Job" and "readinessProbe" not in each,
            "takes a port of the node": any("hostPort" in port for port in each.get("ports", ())),
        }
        broken += [f"{each['name']} {rule}" for rule, is_broken in rules.items() if is_broken]
    return broken
