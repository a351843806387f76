"""Numbers, folded per batch, read out as Prometheus expects them."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.parser import text_string_to_metric_families

from horngate_protos.datatypes import BY_NAME
from horngate_server.core.inference import ModelInfo, Outputs
from horngate_server.core.model import Array
from horngate_server.core.signature import WHOLE, Batching, Signature, TensorSpec
from horngate_server.engine.batch_runner import BatchReport
from horngate_server.lifecycle.loader import LoadReport
from horngate_server.lifecycle.version_state import SHOWN, State, VersionState
from horngate_server.telemetry.metrics import SECONDS, Metrics, default_registry
from support.in_process import InProcessServer

WAIT_S = 20.0
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


WAIT_S = 20.0


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


def test_nobody_who_computes_waits_while_a_page_is_formatted() -> None:
    """Between two families of a page, numbers are counted; the page shows those of its beginning."""
    metrics = Metrics(CollectorRegistry())
    metrics.refused("deadline", 1)
    page = iter(metrics.collect())
    next(page)
    counting = threading.Thread(target=metrics.refused, args=("deadline", 1), daemon=True)
    counting.start()
    counting.join(WAIT_S)
    assert not counting.is_alive()
    [refused] = [family for family in page if family.name == "horngate_refused"]
    assert [sample.value for sample in refused.samples] == [1]


def test_one_state_at_a_time_is_1() -> None:
    """A version is in exactly one state."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.watch(tuple, lambda: [VersionState("m", 1, State.READY, "", 0.0)])
    states = {
        state: registry.get_sample_value("horngate_model_state", {"model": "m", "version": "1", "state": state})
        for state in SHOWN
    }
    assert states == {"loading": 0, "ready": 1, "draining": 0, "failed": 0, "ended": 0}


def test_the_exposition_parses_and_has_every_promised_name() -> None:
    """Prometheus's own parser reads /metrics, and each name of the contract is there, with the process's own."""
    with InProcessServer() as server:
        server.ask([[1, 1]]).response()
        report = LoadReport("m", 3, "m/3", "abc", "(x)", {}, "CPU", "why", "verified", 0.1, 1, 8, ())
        states = [VersionState("m", 3, State.READY, "", 0.0, [""], report)]
        server.metrics.watch(lambda: [server.executor], lambda: states)
        names = {family.name for family in text_string_to_metric_families(server.metrics.exposition().decode())}
    assert names >= {
        "horngate_requests", "horngate_request_seconds", "horngate_rows", "horngate_queue_seconds",
        "horngate_queue_rows", "horngate_queue_capacity_rows", "horngate_batch_rows", "horngate_batch_seconds",
        "horngate_requests_in_flight", "horngate_refused", "horngate_model_state", "horngate_model_load_seconds",
        "horngate_model_info", "horngate_device_info", "horngate_predicted_class", "horngate_prediction_confidence",
    }  # fmt: skip
    process = {family.name for family in Metrics(default_registry()).registry.collect()}
    assert "process_resident_memory_bytes" in process


def classified(name: str, scores: Array, rows: int = 3) -> BatchReport:
    """A batch of a signature of this name, without padding."""
    spec = TensorSpec("probabilities", BY_NAME["FP32"], None)
    info = ModelInfo("m", "1", Signature(name, (), (spec,)))
    return BatchReport(info, [], Outputs([], [], []), 0.0, rows, rows, 0.1, 0.1, arrays=[scores])


def test_rows_that_are_not_finite_are_counted_apart() -> None:
    """NaN and infinity spoil neither the sum of confidences nor the classes, now or later."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    nan, inf = float("nan"), float("inf")
    metrics.batch(CLASSIFIER, classified("s", np.array([[nan, 0.1], [0.25, 0.75], [inf, 0]], np.float32)), [0.0])
    labels = {"model": "m", "version": "1"}
    assert registry.get_sample_value("horngate_not_finite_rows_total", labels) == 2
    assert registry.get_sample_value("horngate_prediction_confidence_sum", labels) == pytest.approx(0.75)
    assert registry.get_sample_value("horngate_predicted_class_total", {**labels, "class": "0"}) == 0
    assert registry.get_sample_value("horngate_predicted_class_total", {**labels, "class": "1"}) == 1


@pytest.mark.parametrize(
    "scores",
    [
        pytest.param(np.array([b"a", b"b", b"c"], object), id="strings"),
        pytest.param(np.array([[b"a"]] * 3, object), id="strings-in-columns"),
        pytest.param(np.float32(0.5).reshape(()), id="scalar"),
        pytest.param(np.zeros((6, 2), np.float32), id="several-rows-a-row"),
        pytest.param(np.zeros((3, 0), np.float32), id="no-classes"),
        pytest.param(np.zeros((3, 2, 2), np.float32), id="more-axes"),
        pytest.param(np.zeros((3, 2), np.complex64), id="complex"),
        pytest.param(np.zeros((3, 2), np.int64), id="whole-numbers"),
    ],
)
def test_outputs_that_are_no_classes_are_passed_over(scores: Array) -> None:
    """Whatever is called probabilities: the batch counts, and nothing is raised."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.batch(CLASSIFIER, classified("s", scores), [0.0])
    labels = {"model": "m", "version": "1"}
    assert registry.get_sample_value("horngate_rows_total", labels) == 3
    assert registry.get_sample_value("horngate_prediction_confidence_count", labels) is None


def test_signatures_may_have_different_numbers_of_classes() -> None:
    """They are counted together, by number."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    for width in (2, 4, 3):
        metrics.batch(CLASSIFIER, classified(str(width), np.eye(width, dtype=np.float32)[-1:], rows=1), [0.0])
    counts = [
        registry.get_sample_value("horngate_predicted_class_total", {"model": "m", "version": "1", "class": str(n)})
        for n in range(4)
    ]
    assert counts == [0, 1, 1, 1]


def test_batching_is_shown_by_signature_and_any_name_is_text() -> None:
    """Mode and reason are labels, and names that are not UTF-8 do not end the page."""
    metrics = Metrics(CollectorRegistry())
    report = LoadReport(
        "m", 3, "m/3", "abc", "(x)", {}, "CPU", "why", "verified", 0.1, 1, 8, (),
        batching={"serving_default": Batching(WHOLE, "its rows look at each other")},
    )  # fmt: skip
    metrics.watch(tuple, lambda: [VersionState("caf\udce9", 3, State.READY, "r\udce9", 0.0, [""], report)])
    [sample] = [
        sample
        for family in text_string_to_metric_families(metrics.exposition().decode())
        for sample in family.samples
        if sample.name == "horngate_model_batching_info"
    ]
    assert (sample.value, sample.labels["signature"], sample.labels["batching"], sample.labels["why"]) == (
        1, "serving_default", "whole", "its rows look at each other",
    )  # fmt: skip


def test_it_is_shown_whether_lengths_share_runs() -> None:
    """Of signatures with an axis of any length alone."""
    metrics = Metrics(CollectorRegistry())
    batchings = {
        "serving_default": Batching(lengths="output 'y' of a row is another when it is padded"),
        "x": Batching(),
    }
    report = LoadReport(
        "m", 3, "m/3", "abc", "(x)", {}, "CPU", "why", "verified", 0.1, 1, 8, (), batching=batchings
    )  # fmt: skip
    metrics.watch(tuple, lambda: [VersionState("m", 3, State.READY, "r", 0.0, [""], report)])
    page = metrics.exposition().decode()
    assert 'signature="serving_default",version="3",why="output' in page
    assert page.count("horngate_model_lengths_info{") == 1
    assert "lengths" not in report.json()["batching"]["x"]
    assert report.json()["batching"]["serving_default"]["lengths"]["mode"] == "apart"


@pytest.mark.parametrize("method", ["batch", "ended", "began", "refused"])
def test_metrics_that_fail_cost_no_answer(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Callers get their answers, or their errors; the failure is counted."""

    def fail(*_: object) -> None:
        raise RuntimeError("broken")

    with InProcessServer() as server:
        monkeypatch.setattr(server.metrics, method, fail)
        assert server.ask([[1, 2]]).output("double").tolist() == [[2, 4]]
        assert server.ask([[1, 2]], deadline=0.0).status() == "DEADLINE_EXCEEDED"
        assert not server.died
        assert server.service._telemetry._guard.errors["metrics"] >= 1


@pytest.mark.parametrize("method", ["batch", "failed"])
def test_statistics_that_fail_cost_no_answer(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """As with metrics; and every request is counted all the same."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("broken")

    with InProcessServer() as server:
        monkeypatch.setattr(server.statistics, method, fail)
        assert server.ask([[1, 2]]).output("double").tolist() == [[2, 4]]
        assert server.ask([[1, 2]], deadline=0.0).status() == "DEADLINE_EXCEEDED"
        assert not server.died
        assert server.service._telemetry._guard.errors == {"statistics": 1}
    labels = {"model": "m", "protocol": "open_inference", "code": "OK"}
    assert server.sample("horngate_requests_total", labels) == 1
