"""Which machines train together, as TF_CONFIG says: the variable that TensorFlow reads, and Kubeflow's TFJob sets."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from horngate_trainer.errors import SettingsError

ROLES = ("chief", "worker")
"""Who may take part; the first of the chiefs, or else of the workers, is the chief."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """The processes of a training, and which of them this one is.

    Attributes:
        addresses: of all, ``host:port``, the chief's first.
        index: of this one among them.
    """

    addresses: tuple[str, ...] = ("",)
    index: int = 0

    @property
    def chief(self) -> bool:
        """Whether this process keeps checkpoints, and exports."""
        return self.index == 0

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return len(self.addresses) > 1


ALONE = Cluster()


def parse(text: str) -> Cluster:
    """Read the content of TF_CONFIG.

    Raises:
        SettingsError: it is missing, no JSON, or does not say who takes part and who this is.
    """
    if not text:
        raise SettingsError(
            "--strategy multi-worker: TF_CONFIG is not set, which says who takes part, such as "
            '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}; '
            "for the devices of one machine there is --strategy mirrored"
        )
    try:
        config = json.loads(text)
    except ValueError as exc:
        raise SettingsError(f"TF_CONFIG is not JSON: {exc}") from exc
    jobs, task = _mapping(config, "cluster"), _mapping(config, "task")
    if others := sorted(set(jobs) - set(ROLES)):
        raise SettingsError(
            f"TF_CONFIG: the cluster has {others[0]!r}: all who take part train ({' and '.join(ROLES)}), there are "
            "neither parameter servers nor evaluators"
        )
    for role, addresses in jobs.items():
        if not isinstance(addresses, list) or not all(isinstance(each, str) and ":" in each for each in addresses):
            raise SettingsError(f"TF_CONFIG: {role} must be a list of host:port, not {addresses!r}")
    kind, number = task.get("type"), task.get("index")
    if isinstance(number, str) and number.isdigit():  # TensorFlow takes a text, too
        number = int(number)
    if kind not in ROLES or isinstance(number, bool) or not isinstance(number, int):
        raise SettingsError(f"TF_CONFIG: the task must have a type (chief or worker) and an index, not {task!r}")
    if len(jobs.get("chief", ())) > 1:
        raise SettingsError(f"TF_CONFIG: there can be one chief, not {len(jobs['chief'])}")
    if not 0 <= number < len(jobs.get(kind, ())):
        raise SettingsError(f"TF_CONFIG: the cluster has no {kind} {number}: it has {jobs!r}")
    before = len(jobs.get("chief", ())) if kind == "worker" else 0
    return Cluster(tuple(each for name in ROLES for each in jobs.get(name, ())), before + number)


# --- private ---------------------------------------------------------------------------------------------------------


def _mapping(config: Any, key: str) -> Mapping[str, Any]:
    found = config.get(key) if isinstance(config, dict) else None
    if not isinstance(found, dict):
        raise SettingsError(f"TF_CONFIG must be an object with cluster and task, and has no {key}: {config!r}")
    return found
