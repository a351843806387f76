"""Whether inputs and answers still look as on the test data."""

import logging
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from horngate_protos.datatypes import BY_NAME
from horngate_server.core.inference import Header, InferenceRequest, InputHeader, ModelInfo, Outputs
from horngate_server.core.signature import Signature, TensorSpec
from horngate_server.engine.batch_queue import Work
from horngate_server.engine.batch_runner import BatchReport
from horngate_server.engine.validation import plan
from horngate_server.lifecycle.drift import LEAST_ROWS, LOOK_EVERY_S, LOOKS, WINDOW_ROWS, Baseline, Drift, psi
from horngate_server.protocols.open_inference import INFER
from support.in_process import Clock, FakeReply

INFO = ModelInfo(
    "digits",
    "1",
    Signature(
        "s",
        (TensorSpec("images", BY_NAME["UINT8"], (-1, 4)),),
        (TensorSpec("probabilities", BY_NAME["FP32"], (-1, 2)),),
    ),
)
BASELINE = Baseline((0.5, 0.5), 0.9, 33.0, 0.0, 255.0)


def batch(images: np.ndarray, scores: np.ndarray) -> BatchReport:
    """Make one request, computed."""
    header = Header("digits", "", (InputHeader("images", "UINT8", images.shape),))
    request = InferenceRequest(header, "", (images.tobytes(),))
    work = Work(FakeReply(), INFER, request, plan(header, INFO, 10_000), request.data, 0.0, 1e9)
    rows = len(images)
    return BatchReport(INFO, [work], Outputs([], [], []), 0.0, rows, rows, 0.001, 0.001, [scores.astype(np.float32)])


def watch(image: list[int], *, batches: int = LOOKS, share: float = 0.5, rows: int = 20) -> Drift:
    """Let a watcher see batches of one image, a share of which is called class 0."""
    clock = Clock()
    drift = Drift(INFO, BASELINE, clock)
    first = round(rows * share)
    scores = np.array([[0.8, 0.2]] * first + [[0.1, 0.9]] * (rows - first))
    for _ in range(batches):
        drift.see(batch(np.array([image] * rows, np.uint8), scores))
        clock.now += LOOK_EVERY_S
    return drift


@pytest.mark.parametrize(
    ("image", "suspicion"),
    [
        pytest.param([0, 0, 1, 0], "scaled down", id="0..1 sent as bytes"),
        pytest.param([255, 255, 255, 123], "inverted", id="dark on light"),
        pytest.param([0, 0, 0, 132], "", id="as in training"),
        pytest.param([0, 255, 100, 90], "", id="brighter"),
    ],
)
def test_wrongly_prepared_inputs_are_named_once(
    image: list[int], suspicion: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One log line and a metric, not one per request."""
    drift = watch(image, batches=3 * LOOKS)
    assert drift.report().suspicion == suspicion
    assert caplog.text.count("its inputs look") == bool(suspicion)
    if suspicion:
        assert f"digits version 1: its inputs look {suspicion}" in caplog.text


def test_inputs_that_look_right_again_are_said_to(caplog: pytest.LogCaptureFixture) -> None:
    """The suspicion ends when the inputs do."""
    caplog.set_level(logging.INFO)
    drift = watch([0, 0, 1, 0])
    for _ in range(300):
        drift._next = 0.0
        drift.see(batch(np.array([[0, 0, 0, 132]], np.uint8), np.array([[1.0, 0.0]])))
    assert drift.report().suspicion == ""
    assert "look as in training again" in caplog.text


def test_the_cost_is_bounded_by_looking_now_and_then() -> None:
    """Between two looks at the inputs, batches pass unlooked at."""
    clock = Clock()
    drift = Drift(INFO, BASELINE, clock)
    for _ in range(1000):
        drift.see(batch(np.zeros((1, 4), np.uint8), np.array([[1.0, 0.0]])))
    assert len(drift._looks) == 1


def test_class_shares_and_confidence_are_compared_with_the_baseline() -> None:
    """Equal shares have an index of 0, shifted ones a large one; too few rows have none."""
    assert watch([0] * 4, batches=1).report().psi is None
    same = watch([0] * 4, batches=LEAST_ROWS // 20)
    assert same.report().psi == pytest.approx(0.0)
    assert same.report().confidence == pytest.approx(0.85)
    shifted = watch([0] * 4, batches=LEAST_ROWS // 20, share=0.9).report().psi
    assert shifted == pytest.approx(0.4 * np.log(1.8) - 0.4 * np.log(0.2))


def test_the_window_forgets() -> None:
    """What was chosen long ago does not hide what is chosen now."""
    drift = watch([0] * 4, batches=2 * WINDOW_ROWS // 1000, rows=1000, share=0.5)
    scores = np.array([[0.8, 0.2]] * 1000)
    for _ in range(2 * WINDOW_ROWS // 1000):
        drift._next = 0.0
        drift.see(batch(np.zeros((1000, 4), np.uint8), scores))
    assert (drift.report().psi or 0) > 1


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=10))
def test_the_index_is_never_negative_and_zero_for_equals(weights: list[float]) -> None:
    """A property of the sum: each term has the sign of a square."""
    shares = [weight / sum(weights) for weight in weights]
    even = [1 / len(shares)] * len(shares)
    assert psi(shares, shares) == 0
    assert psi(shares, even) >= 0


@pytest.mark.parametrize("manifest", [None, {}, {"baseline": None}, {"baseline": {"class_shares": "x"}}])
def test_a_manifest_without_a_baseline_is_no_error(manifest: dict[str, Any] | None) -> None:
    """Any Keras model may be exported without one."""
    assert Baseline.of(manifest) is None


def test_one_row_that_is_no_number_does_not_spoil_the_rest() -> None:
    """Neither the shares of classes nor the mean confidence; it counts for neither."""
    drift = watch([0] * 4, batches=LEAST_ROWS // 20)
    before = drift.report()
    drift._next = 0.0
    drift.see(batch(np.zeros((2, 4), np.uint8), np.array([[float("nan"), 0.5], [float("inf"), 0.5]])))
    after = drift.report()
    assert (after.psi, after.confidence) == (before.psi, before.confidence)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_baseline_that_is_no_number_is_none(wrong: float) -> None:
    """Nothing can be compared with it."""
    found = {
        "class_shares": [0.5, 0.5], "confidence_histogram": {"edges": [0, 0.5, 1], "counts": [1, 3]},
        "input_mean": 33.0, "input_min": 0.0, "input_max": 255.0,
    }  # fmt: skip
    assert Baseline.of({"baseline": found}) is not None
    assert Baseline.of({"baseline": {**found, "input_mean": wrong}}) is None
    assert Baseline.of({"baseline": {**found, "class_shares": []}}) is None
    assert Baseline.of({"baseline": {**found, "confidence_histogram": {"edges": [0, 1], "counts": [0]}}}) is None
