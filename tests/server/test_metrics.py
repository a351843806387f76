"""Numbers, folded per batch, read out as Prometheus expects them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.parser import text_string_to_metric_families

from horngate_protos.datatypes import BY_NAME
from horngate_server.batch_runner import BatchReport
from horngate_server.loading import LoadReport
from horngate_server.metrics import SECONDS, Metrics, default_registry
from horngate_server.model import Array
from horngate_server.request import ModelInfo, Outputs
from horngate_server.signature import Signature, TensorSpec
from horngate_server.states import STATES, VersionState
from support.desk import Desk

CLASSIFIER = ModelInfo(
    "m", "1", Signature("s", (), (TensorSpec("probabilities", BY_NAME["FP32"], (-1, 3)),))
)  # fmt: skip


@given(st.lists(st.one_of(st.floats(0, 20), st.sampled_from(SECONDS)), max_size=50))
def test_folded_histograms_equal_prometheus_own(values: list[float]) -> None:
    """Counting a batch at once gives the buckets that observing one by one would."""
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    metrics = Metrics(ours)
    observed = Histogram("horngate_request_seconds", "x", ["model", "protocol"], buckets=SECONDS, registry=theirs)
    child = observed.labels("m", "p")
    metrics.ended("m", "p", {"OK": len(values)}, values)
    for value in values:
        child.observe(value)
    for bound in [*map(str, SECONDS), "+Inf"]:
        labels = {"model": "m", "protocol": "p", "le": bound}
        assert ours.get_sample_value("horngate_request_seconds_bucket", labels) == theirs.get_sample_value(
            "horngate_request_seconds_bucket", labels
        )
    labels = {"model": "m", "protocol": "p"}
    assert ours.get_sample_value("horngate_request_seconds_sum", labels) == pytest.approx(sum(values))


def report(scores: Array) -> BatchReport:
    """A batch of three rows and one of padding, which nobody waits for."""
    return BatchReport(CLASSIFIER, [], Outputs([], [], []), 0.0, 3, 4, 0.1, 0.1, arrays=[scores])


def test_predictions_are_counted_by_class_without_the_padding() -> None:
    """The class with the highest probability of each real row is counted, and its confidence."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    scores = np.array([[0.7, 0.2, 0.1], [0.1, 0.0, 0.9], [0.0, 0.05, 0.95], [1, 0, 0]], np.float32)
    metrics.batch(CLASSIFIER, report(scores), [0.0])
    counted = [
        registry.get_sample_value(
            "horngate_predicted_class_total", {"model": "m", "version": "1", "class": str(number)}
        )
        for number in range(3)
    ]
    assert counted == [1, 0, 2]
    labels = {"model": "m", "version": "1"}
    assert registry.get_sample_value("horngate_prediction_confidence_count", labels) == 3


def test_one_state_at_a_time_is_1() -> None:
    """A version is in exactly one state."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.watch(tuple, lambda: [VersionState("m", 1, "ready", "", 0.0)])
    states = {
        state: registry.get_sample_value("horngate_model_state", {"model": "m", "version": "1", "state": state})
        for state in STATES
    }
    assert states == {"loading": 0, "ready": 1, "draining": 0, "failed": 0, "ended": 0}


def test_the_exposition_parses_and_has_every_promised_name() -> None:
    """Prometheus's own parser reads /metrics, and each name of the contract is there, with the process's own."""
    with Desk() as desk:
        desk.ask([[1, 1]]).response()
        report = LoadReport("m", 3, "m/3", "abc", "(x)", {}, "CPU", "why", "verified", 0.1, 1, 8, ())
        states = [VersionState("m", 3, "ready", "", 0.0, [""], report)]
        desk.metrics.watch(lambda: [desk.executor], lambda: states)
        names = {family.name for family in text_string_to_metric_families(desk.metrics.exposition().decode())}
    assert names >= {
        "horngate_requests", "horngate_request_seconds", "horngate_rows", "horngate_queue_seconds",
        "horngate_queue_rows", "horngate_queue_capacity_rows", "horngate_batch_rows", "horngate_batch_seconds",
        "horngate_requests_in_flight", "horngate_refused", "horngate_model_state", "horngate_model_load_seconds",
        "horngate_model_info", "horngate_device_info", "horngate_predicted_class", "horngate_prediction_confidence",
    }  # fmt: skip
    process = {family.name for family in Metrics(default_registry()).registry.collect()}
    assert "process_resident_memory_bytes" in process
