"""TF_CONFIG: who takes part, and what is said where that is not clear."""

import json
from typing import Any

import pytest

from horngate_trainer import clusters, settings
from horngate_trainer.clusters import ALONE
from horngate_trainer.errors import SettingsError


def config(cluster: Any, role: Any = "worker", index: Any = 0) -> str:
    """A variable's content."""
    return json.dumps({"cluster": cluster, "task": {"type": role, "index": index}, "environment": "cloud"})


def test_the_chief_is_the_first_whoever_is_called_so() -> None:
    """The job `chief`, as Kubeflow's TFJob has it, or else worker 0; an index may be a text, as TensorFlow takes it."""
    both = {"worker": ["b:1", "c:1"], "chief": ["a:1"]}
    assert clusters.parse(config(both, "chief")).chief
    second = clusters.parse(config(both, "worker", 1))
    assert (second.addresses, second.index, second.chief) == (("a:1", "b:1", "c:1"), 2, False)
    assert clusters.parse(config({"worker": ["b:1", "c:1"]}, "worker", "0")).chief
    assert not clusters.parse(config({"worker": ["b:1"]})).several


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "TF_CONFIG is not set"),
        ("{", "is not JSON"),
        ("[]", "has no cluster"),
        ('{"cluster": {"worker": ["a:1"]}}', "has no task"),
        (config({"worker": ["a:1"], "ps": ["b:1"]}), "the cluster has 'ps'"),
        (config({"worker": "a:1"}), "must be a list of host:port"),
        (config({"worker": ["a:1"]}, "evaluator"), "must have a type"),
        (config({"worker": ["a:1"]}, index=True), "must have a type"),
        (config({"worker": ["a:1"]}, index=1), "has no worker 1"),
        (config({"chief": ["a:1", "b:1"]}, "chief"), "there can be one chief"),
    ],
    ids=["unset", "no JSON", "no object", "no task", "parameter server", "text", "evaluator", "bool", "absent", "two"],
)
def test_what_does_not_say_who_takes_part_is_refused(text: str, said: str) -> None:
    """In a line that names the variable; other strategies do not read it."""
    chosen = settings.parse(["--strategy", "multi-worker"], {})
    with pytest.raises(SettingsError, match=said):
        settings.cluster(chosen, {"TF_CONFIG": text})
    assert settings.cluster(settings.parse([], {}), {"TF_CONFIG": text}) is ALONE
