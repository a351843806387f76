"""Every number that Horngate exposes: names, help texts and buckets, in one place.

Numbers are folded in once per batch, with NumPy, rather than once per request; a scrape reads them out. Base units.
"""

import threading
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from horngate_server.core.inference import ModelInfo
from horngate_server.core.signature import APART, PADDED
from horngate_server.engine import class_scores
from horngate_server.engine.batch_runner import BatchReport
from horngate_server.engine.executor import Executor
from horngate_server.lifecycle.drift import SUSPICIONS
from horngate_server.lifecycle.version_state import SHOWN, VersionState

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROWS = tuple(float(2**power) for power in range(13))
CONFIDENCE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
CLASSES = 1000
"""Models with more classes get no per-class counter: each class is a time series."""
REFUSED = "Inference requests that were not computed, by reason."
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


_Value_co = TypeVar("_Value_co", covariant=True)


class ByLabels(Protocol[_Value_co]):
    """A mapping from label values; any tuple of strings will do."""

    def items(self) -> Iterable[tuple[tuple[str, ...], _Value_co]]:
        """Return pairs of labels' values and what there is to say of them."""
        ...


class WatchedFile(Protocol):
    """A file that is read again when it changes: whether what it says is good, and how long ago it was looked at."""

    valid: bool

    @property
    def age_s(self) -> float:
        """Seconds since the last look."""
        ...


class Recording(Protocol):
    """What became of requests that were chosen to be recorded."""

    @property
    def recorded(self) -> Mapping[tuple[str, str], int]:
        """Written, by model and version."""
        ...

    @property
    def dropped(self) -> Mapping[str, int]:
        """Not written, by reason."""
        ...


class Metrics(Collector):
    """All of the server's numbers. Callable from any thread.

    Args:
        registry: where to register; tests bring their own.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._lock = threading.Lock()
        self._numbers = _Numbers()
        self._executors: Callable[[], Iterable[Executor]] = tuple
        self._versions: Callable[[], Iterable[VersionState]] = tuple
        self._config_valid: Callable[[], bool] = lambda: True
        self._refused_before: Callable[[], Mapping[str, int]] = dict
        self._tokens: WatchedFile | None = None
        self._observer_errors: Callable[[], Mapping[str, int]] = dict
        self._recording: Recording | None = None
        registry.register(self)

    def watch(
        self,
        executors: Callable[[], Iterable[Executor]],
        versions: Callable[[], Iterable[VersionState]] = tuple,
        *,
        config_valid: Callable[[], bool] = lambda: True,
        refused: Callable[[], Mapping[str, int]] = dict,
        tokens: WatchedFile | None = None,
        observer_errors: Callable[[], Mapping[str, int]] = dict,
        recording: Recording | None = None,
    ) -> None:
        """Say what a scrape reads.

        Args:
            executors: whose queues are shown.
            versions: their states.
            config_valid: whether the configuration is good.
            refused: requests that were refused before they were decoded, by reason.
            tokens: whose file is good or not.
            observer_errors: how often each observer failed.
            recording: who records requests, if anybody does.
        """
        self._executors = executors
        self._versions = versions
        self._config_valid = config_valid
        self._refused_before = refused
        self._tokens = tokens
        self._observer_errors = observer_errors
        self._recording = recording

    def rows(self, model: str, version: str) -> int:
        """Return how many rows a version has computed for callers."""
        with self._lock:
            return self._numbers.rows.get((model, version), 0)

    def forget(self, model: str, version: str) -> None:
        """Drop the numbers of a version that left long ago: every version would be a dozen time series for ever."""
        with self._lock:
            now = self._numbers
            for numbers in (now.rows, now.classes, now.confidence, now.not_finite):
                numbers.pop((model, version), None)

    def began(self, requests: int) -> None:
        """Count inference requests in."""
        with self._lock:
            self._numbers.began += requests

    def ended(self, model: str, protocol: str, codes: Mapping[str, int], seconds: Sequence[float]) -> None:
        """Count inference requests out.

        Args:
            model: which.
            protocol: whose.
            codes: how many ended with each gRPC code.
            seconds: since they arrived, of those that were not refused at once: that would look quick.
        """
        numbers = self._numbers
        with self._lock:
            for code, count in codes.items():
                numbers.ended += count
                numbers.requests[model, protocol, code] += count
            numbers.request_seconds[model, protocol].add(seconds)

    def refused(self, reason: str, requests: int) -> None:
        """Count requests that were not computed, by reason."""
        with self._lock:
            self._numbers.refused[reason] += requests

    def batch(self, info: ModelInfo, report: BatchReport, queue_s: Sequence[float]) -> None:
        """Take in one batch and how long those that it completed had waited."""
        model = info.name
        key = (info.name, info.version)
        numbers = self._numbers
        with self._lock:
            numbers.rows[key] += report.rows
            numbers.batch_rows[model].add((report.rows,))
            numbers.batch_seconds[model, report.info.engine].add((report.seconds,))
            numbers.queue_seconds[model].add(queue_s)
            found = class_scores.of(report)
            if found is not None:
                self._predictions(key, found)

    def exposition(self) -> bytes:
        """Return everything in Prometheus's text format."""
        return generate_latest(self.registry)

    def collect(self) -> Iterable[Metric]:
        """Read everything out, for the registry; nobody who computes waits while it is formatted."""
        with self._lock:
            numbers = deepcopy(self._numbers)
        yield from self._collect(numbers)

    # --- private --------------------------------------------------------------------------------------

    def _predictions(self, key: tuple[str, str], found: class_scores.Scores) -> None:
        """Count rows by class; signatures of a version may have different numbers of classes."""
        numbers = self._numbers
        if found.left_out:
            numbers.not_finite[key] += found.left_out
        if found.width > CLASSES:
            return
        counts = numbers.classes.get(key)
        if counts is None or len(counts) < found.width:
            grown = np.zeros(found.width, np.int64)
            if counts is not None:
                grown[: len(counts)] = counts
            counts = numbers.classes[key] = grown
        counts += np.bincount(found.classes, minlength=len(counts))
        numbers.confidence[key].add(found.confidence)

    def _collect(
        self, numbers: "_Numbers"
    ) -> Iterable[Metric]:  # a list of every metric: long, flat, and read by operators
        executors = list(self._executors())
        refused = Counter(numbers.refused) + Counter(self._refused_before())
        yield counter(
            "horngate_requests", "Inference requests answered, by model, protocol and gRPC code.",
            ("model", "protocol", "code"), numbers.requests,
        )  # fmt: skip
        yield _histogram(
            "horngate_request_seconds",
            "Seconds from an inference request's arrival to its answer; not of those refused at once.",
            ("model", "protocol"), numbers.request_seconds,
        )  # fmt: skip
        in_flight = GaugeMetricFamily("horngate_requests_in_flight", "Inference requests not answered yet.")
        in_flight.add_metric((), numbers.began - numbers.ended)
        yield in_flight
        yield counter(
            "horngate_refused", REFUSED, ("reason",),
            {(reason,): count for reason, count in refused.items()},
        )  # fmt: skip
        yield counter("horngate_rows", "Rows computed, padding not counted.", ("model", "version"), numbers.rows)
        yield _histogram(
            "horngate_queue_seconds", "Seconds that a request waited before its first batch began.",
            ("model",), {(model,): data for model, data in numbers.queue_seconds.items()},
        )  # fmt: skip
        yield _gauge(
            "horngate_queue_rows", "Rows that wait.", ("model", "version", "priority"),
            {
                (each.info.name, each.info.version, priority): rows
                for each in executors
                for priority, rows in each.queue_rows.items()
            },
        )  # fmt: skip
        yield _gauge(
            "horngate_queue_capacity_rows", "Rows of each priority that may wait.", ("model", "version"),
            {(each.info.name, each.info.version): each.capacity_rows for each in executors},
        )  # fmt: skip
        yield _histogram(
            "horngate_batch_rows", "Rows in a batch, padding not counted.",
            ("model",), {(model,): data for model, data in numbers.batch_rows.items()},
        )  # fmt: skip
        yield _histogram(
            "horngate_batch_seconds", "Seconds to join, compute and split a batch.",
            ("model", "engine"), numbers.batch_seconds,
        )  # fmt: skip
        yield from _lifecycle(list(self._versions()), config_valid=self._config_valid())
        if self._tokens is not None:
            yield GaugeMetricFamily(
                "horngate_tokens_valid", "0 while the file of --tokens has an error: what is wrong lets nobody in.",
                self._tokens.valid,
            )  # fmt: skip
            yield GaugeMetricFamily(
                "horngate_tokens_age_seconds", "Seconds since the file of --tokens was last looked at; 1 is usual.",
                self._tokens.age_s,
            )  # fmt: skip
        yield counter(
            "horngate_predicted_class", "Rows by the class with the highest probability.",
            ("model", "version", "class"),
            {
                (*key, str(number)): int(count)
                for key, counts in numbers.classes.items()
                for number, count in enumerate(counts)
            },
        )  # fmt: skip
        yield _histogram(
            "horngate_prediction_confidence", "The highest probability of each row.",
            ("model", "version"), numbers.confidence,
        )  # fmt: skip
        yield counter(
            "horngate_not_finite_rows",
            "Rows whose highest probability is NaN or infinite; they count for no class and no confidence.",
            ("model", "version"), numbers.not_finite,
        )  # fmt: skip
        yield counter(
            "horngate_observer_errors",
            "Times that metrics, statistics, drift, a shadow, a recorder, the access log or traces failed. Callers got "
            "answers.",
            ("observer",), {(observer,): count for observer, count in self._observer_errors().items()},
        )  # fmt: skip
        if self._recording is not None:
            yield counter(
                "horngate_recorded_requests", "Requests that were written to a file, with their answers.",
                ("model", "version"), self._recording.recorded,
            )  # fmt: skip
            yield counter(
                "horngate_record_dropped_requests",
                "Requests that were chosen to be recorded and were not: the queue was full, the disk failed, or they "
                "are too large.",
                ("reason",), {(reason,): count for reason, count in self._recording.dropped.items()},
            )  # fmt: skip


def default_registry() -> CollectorRegistry:
    """Return a new registry with the process's own numbers in it."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def counter(name: str, text: str, labels: Sequence[str], values: ByLabels[float]) -> Metric:
    """Return a counter.

    Args:
        name: without ``_total``.
        text: what it counts.
        labels: their names.
        values: by the labels' values.
    """
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(_text(key), value)
    return family


# --- private ------------------------------------------------------------------------------------------


class _Distribution:
    """Counts per bucket, and the sum: a histogram that takes many values at once."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._edges = np.array(bounds)
        self._counts = np.zeros(len(bounds) + 1, np.int64)
        self.sum = 0.0

    def add(self, values: Sequence[float] | np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
        """Count values; a value on a bound belongs to that bound's bucket (Prometheus's ``le``)."""
        if len(values) == 1:
            self._counts[bisect_left(self._bounds, values[0])] += 1
            self.sum += values[0]
        elif len(values):
            array = np.asarray(values, np.float64)
            places = np.searchsorted(self._edges, array, side="left")
            self._counts += np.bincount(places, minlength=len(self._counts))
            self.sum += float(array.sum())

    def buckets(self) -> list[tuple[str, float]]:
        """Return the cumulative counts, as an exposition shows them."""
        names = [*map(str, self._bounds), "+Inf"]
        return list(zip(names, np.cumsum(self._counts).tolist(), strict=True))


@dataclass(slots=True)
class _Numbers:
    """What has been counted; changed with `Metrics`'s lock held."""

    began: int = 0
    ended: int = 0
    requests: defaultdict[tuple[str, str, str], int] = field(default_factory=lambda: defaultdict(int))
    request_seconds: defaultdict[tuple[str, str], _Distribution] = field(default_factory=lambda: defaultdict(_seconds))
    refused: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    rows: defaultdict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    queue_seconds: defaultdict[str, _Distribution] = field(default_factory=lambda: defaultdict(_seconds))
    batch_seconds: defaultdict[tuple[str, str], _Distribution] = field(default_factory=lambda: defaultdict(_seconds))
    batch_rows: defaultdict[str, _Distribution] = field(
        default_factory=lambda: defaultdict(lambda: _Distribution(ROWS))
    )
    classes: dict[tuple[str, str], "np.ndarray[tuple[int], np.dtype[np.int64]]"] = field(default_factory=dict)
    confidence: defaultdict[tuple[str, str], _Distribution] = field(
        default_factory=lambda: defaultdict(lambda: _Distribution(CONFIDENCE))
    )
    not_finite: defaultdict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))


def _seconds() -> _Distribution:
    return _Distribution(SECONDS)


def _lifecycle(versions: Sequence[VersionState], *, config_valid: bool) -> Iterable[Metric]:
    """What became of every version, and how those look that are loaded."""
    labels = ("model", "version")
    shown = {(each.name, str(each.version)): each for each in versions if each.state in SHOWN}
    loaded = {key: each.report for key, each in shown.items() if each.report is not None}
    drifts = {key: each.drift for key, each in shown.items() if each.drift is not None}
    baselines = {key: each.baseline for key, each in shown.items() if each.baseline is not None}
    shadows = {key: each.shadow for key, each in shown.items() if each.shadow is not None}
    yield _gauge(
        "horngate_model_state", "1 for the state that a version is in, 0 for the others.", (*labels, "state"),
        {(*key, state): state == each.state for key, each in shown.items() for state in SHOWN},
    )  # fmt: skip
    yield _info(
        "horngate_model_state_reason", "Why a version is in its state, where that is not plain.",
        {key: {"reason": each.reason} for key, each in shown.items() if each.reason},
    )  # fmt: skip
    yield _gauge(
        "horngate_model_label", "1 for every name that a version answers to; an empty one for those who name none.",
        (*labels, "label"), {(*key, label): 1 for key, each in shown.items() for label in each.labels},
    )  # fmt: skip
    yield _gauge(
        "horngate_model_load_seconds", "Seconds to load, verify and warm a version.", labels,
        {key: report.seconds for key, report in loaded.items()},
    )  # fmt: skip
    yield _gauge(
        "horngate_model_memory_bytes",
        "What a version took of the process's memory when it was loaded; without engines' libraries and GPUs' memory.",
        labels,
        {key: report.memory_bytes for key, report in loaded.items()},
    )  # fmt: skip
    yield _info(
        "horngate_model", "What a loaded version is.",
        {
            key: {
                "signature": report.signature,
                "digest": report.digest,
                "verification": report.verification,
                "proved": "true" if report.proved else "false",
            }
            for key, report in loaded.items()
        },
    )  # fmt: skip
    yield _gauge(
        "horngate_model_lengths_info",
        "1 for every signature with an axis of any length: whether requests of different lengths share runs (padded) "
        "or not (apart), and why.",
        (*labels, "signature", "lengths", "why"),
        {
            (*key, name, PADDED if each.padding else APART, each.lengths): 1
            for key, report in loaded.items()
            for name, each in report.batching.items()
            if each.lengths
        },
    )
    yield _gauge(
        "horngate_model_batching_info",
        "1 for every signature: whether requests share runs (rows) or each has its own (whole), and why.",
        (*labels, "signature", "batching", "why"),
        {
            (*key, name, each.mode, each.why): 1
            for key, report in loaded.items()
            for name, each in report.batching.items()
        },
    )  # fmt: skip
    yield _info(
        "horngate_device", "Where a version computes, and why there.",
        {
            key: {"device": report.device, "why": report.why, "engine": report.engine, "why_engine": report.why_engine}
            for key, report in loaded.items()
        },
    )  # fmt: skip
    valid = GaugeMetricFamily("horngate_config_valid", "0 while --config is wrong, and what it said before stands.")
    valid.add_metric((), config_valid)
    yield valid
    for name, text, values in (
        ("prediction_psi", "Population stability index of the classes chosen, to the baseline; 0.25 is a lot.",
            {key: drift.psi for key, drift in drifts.items()}),
        ("prediction_confidence_mean", "Mean of the highest probability, lately.",
            {key: drift.confidence for key, drift in drifts.items()}),
        ("baseline_confidence_mean", "Mean of the highest probability on the test data.",
            {key: baseline.confidence for key, baseline in baselines.items()}),
        ("input_mean", "Mean of the inputs' elements, lately.", {key: drift.mean for key, drift in drifts.items()}),
        ("input_low", "Least value of the inputs, lately.", {key: drift.low for key, drift in drifts.items()}),
        ("input_high", "Greatest value of the inputs, lately.", {key: drift.high for key, drift in drifts.items()}),
        ("baseline_input_mean", "Mean of the inputs' elements in training.",
            {key: baseline.mean for key, baseline in baselines.items()}),
    ):  # fmt: skip
        known = {key: value for key, value in values.items() if value is not None}
        yield _gauge(f"horngate_{name}", text, labels, known)
    yield _gauge(
        "horngate_input_suspect", "1 while inputs look as if they had been prepared wrongly, in that way.",
        (*labels, "as"),
        {(*key, each): each == drift.suspicion for key, drift in drifts.items() for each in SUSPICIONS},
    )  # fmt: skip
    for name, text, counts in (
        ("rows", "Rows that a shadow computed too.", {key: each.rows for key, each in shadows.items()}),
        ("agreed_rows", "Of these, those with the same answer.", {key: each.agreed for key, each in shadows.items()}),
        ("skipped_batches", "Batches that a shadow had no time for, or failed on.",
            {key: each.skipped for key, each in shadows.items()}),
        ("seconds", "Seconds that a shadow computed.", {key: each.seconds for key, each in shadows.items()}),
        ("live_seconds", "Seconds that the answering version took for the same rows.",
            {key: each.live_seconds for key, each in shadows.items()}),
    ):  # fmt: skip
        yield counter(f"horngate_shadow_{name}", text, labels, counts)
    yield _gauge(
        "horngate_shadow_confidence_difference", "Mean highest probability of a shadow less the answering version's.",
        labels, {key: each.confidence / each.rows for key, each in shadows.items() if each.rows},
    )  # fmt: skip


def _gauge(name: str, text: str, labels: Sequence[str], values: ByLabels[float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(_text(key), value)
    return family


def _histogram(name: str, text: str, labels: Sequence[str], values: ByLabels[_Distribution]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(_text(key), value.buckets(), value.sum)
    return family


def _info(name: str, text: str, values: Mapping[tuple[str, str], dict[str, str]]) -> Metric:
    labels = ("model", "version")
    family = InfoMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(_text(key), {name: _printable(text) for name, text in value.items()})
    return family


def _text(labels: Sequence[str]) -> Sequence[str]:
    """Return labels as text that can be sent, whatever a folder or a caller calls itself."""
    return [_printable(label) for label in labels]


def _printable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()
