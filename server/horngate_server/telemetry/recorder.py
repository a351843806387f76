"""Records a share of the requests with their answers, as TensorFlow Serving does: `PredictionLog` in TFRecord files.

Only tensors are recorded, with the model, its version and signature, when a request arrived and how long its answer
took: no token, no metadata, no name of a caller. Whoever computes leaves a copy of the answer, and a thread writes.
"""

import logging
import random
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from math import inf, log1p
from typing import NamedTuple

from horngate_protos.tensor_protos import fill
from horngate_protos.tensorflow_serving_pb2 import PredictionLog
from horngate_protos.tfrecords import framed
from horngate_server.core.clock import Clock
from horngate_server.core.inference import Data, InferenceResult, ModelInfo
from horngate_server.core.observer_guard import ObserverGuard
from horngate_server.core.rate_limited_log import RateLimitedLog
from horngate_server.core.rpc import Status
from horngate_server.core.settings import Settings
from horngate_server.engine.batch_queue import Work
from horngate_server.telemetry.record_files import AGES, RecordFiles, TooLarge
from horngate_server.telemetry.request_telemetry import CompletedRequests

log = logging.getLogger(__name__)

WAITING_BYTES = 32 << 20
"""What may wait to be written; what does not fit is not recorded."""
WAITING = 4096
"""And so many requests at most, which small ones are counted by."""
PAUSE_S = 5.0
"""After the disk failed: nothing is recorded, and the disk is left in peace."""
SWEEP_S = 60.0
"""How often it is looked at least for what is too old."""
WARN_EVERY_S = 60.0


class _Sample(NamedTuple):
    """One request and its answer.

    Attributes:
        info: the version, with the signature that answered.
        shapes: per input, all axes.
        inputs: per input, its elements.
        answer_shapes: per output, all axes.
        answer: per output, its elements, copied.
        arrived: on the wall clock, in seconds since 1970.
        took_s: until its answer was known.
        size: of inputs and answer, in bytes.
    """

    info: ModelInfo
    shapes: Sequence[tuple[int, ...]]
    inputs: Sequence[Data]
    answer_shapes: Sequence[tuple[int, ...]]
    answer: Sequence[bytes | list[bytes]]
    arrived: float
    took_s: float
    size: int


class Recorder:
    """Takes a share of the requests that were answered, and writes them, on a thread of its own.

    Args:
        share: of the requests, 0 to 1.
        files: where to; only the thread uses it.
        clock: monotonic seconds, which requests' arrivals are on.
        wall_clock: seconds since 1970.
        sweep_s: how often to look for what is too old.
        guard: takes what goes wrong that should not.
        chance: returns a number from 0 to below 1.
    """

    def __init__(
        self,
        share: float,
        files: RecordFiles,
        clock: Clock,
        wall_clock: Callable[[], float],
        *,
        sweep_s: float = SWEEP_S,
        guard: ObserverGuard | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._share = share
        self._files = files
        self._clock = clock
        self._wall_clock = wall_clock
        self._sweep_s = sweep_s
        self._guard = guard or ObserverGuard(clock)
        self._chance = chance
        self._limited_log = RateLimitedLog(log, clock, WARN_EVERY_S)
        self._lock = threading.Lock()
        self._skip = self._gap()
        self._changed = threading.Condition()
        self._waiting: list[_Sample] = []
        self._waiting_bytes = 0
        self._closed = False
        self._paused_until = -inf
        self._recorded: Counter[tuple[str, str]] = Counter()
        self._dropped: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._run, name="record", daemon=True)

    @classmethod
    def of(
        cls, settings: Settings, clock: Clock, wall_clock: Callable[[], float], guard: ObserverGuard
    ) -> "Recorder | None":
        """Return what settings ask for; None where they do not."""
        if settings.record is None or not settings.record_share:
            return None
        files = RecordFiles(
            settings.record, settings.record_bytes, settings.record_age_s, wall_clock, writers=settings.workers
        )
        sweep_s = min(SWEEP_S, settings.record_age_s / AGES)
        return cls(settings.record_share, files, clock, wall_clock, sweep_s=sweep_s, guard=guard)

    @property
    def recorded(self) -> Mapping[tuple[str, str], int]:
        """How many requests were written, by model and version."""
        with self._changed:
            return dict(self._recorded)

    @property
    def dropped(self) -> Mapping[str, int]:
        """How many were chosen and not written, by reason: queue_full, disk, too_large, failed."""
        with self._changed:
            return dict(self._dropped)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, and end."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def take(self, completed: CompletedRequests) -> None:
        """Choose among requests that ended; called by whoever computed them, and most often only counts."""
        count = len(completed.works)
        with self._lock:
            place, self._skip = self._skip, self._skip - count
            if place >= count:
                return
            chosen = []
            while place < count:
                chosen.append(int(place))
                place += 1 + self._gap()
            self._skip = place - count
        outcomes = completed.outcomes
        whole = [work.plan.rows for work in completed.works[len(outcomes) :]]
        starts = list(accumulate(whole, initial=0))
        later = self._wall_clock() - self._clock()
        for place in chosen:
            if isinstance(completed.answers[place][1], Status):
                continue
            result = outcomes[place].result if place < len(outcomes) else None
            start = starts[place - len(outcomes)] if result is None else 0
            self._put(_sample(completed, completed.works[place], result, start, later))

    # --- private --------------------------------------------------------------------------------------

    def _gap(self) -> float:
        """Return how many requests to pass over, so that each has the same chance, whatever came before it."""
        if self._share >= 1:
            return 0
        return log1p(-self._chance()) // log1p(-self._share)

    def _put(self, sample: _Sample) -> None:
        with self._changed:
            full = self._waiting_bytes + sample.size > WAITING_BYTES or len(self._waiting) >= WAITING
            if full or self._closed:
                self._dropped["queue_full"] += 1
                return
            self._waiting.append(sample)
            self._waiting_bytes += sample.size
            if len(self._waiting) == 1:
                self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._waiting and not self._closed:
                    self._changed.wait(self._sweep_s)
                samples, self._waiting = self._waiting, []
                ending = self._closed
            for sample in samples:
                self._record(sample)
            if ending and not samples:
                self._files.close()
                return
            if not samples:
                self._guarded(self._files.sweep)

    def _record(self, sample: _Sample) -> None:
        """Write one, or count that it was not written."""
        name, version = sample.info.name, sample.info.version

        def write() -> None:
            self._files.append(name, version, framed(_log(sample, self._share).SerializeToString()))

        why = "disk"
        if self._clock() >= self._paused_until:
            why = self._guarded(write)
        with self._changed:
            self._waiting_bytes -= sample.size
            if why:
                self._dropped[why] += 1
            else:
                self._recorded[name, version] += 1

    def _guarded(self, step: Callable[[], None]) -> str:
        """Take a step that the disk, or a fault of ours, may fail; return why it did, or nothing."""
        try:
            step()
        except TooLarge:
            return "too_large"
        except OSError as error:
            self._paused_until = self._clock() + PAUSE_S
            self._limited_log.note("disk", logging.WARNING, "--record: %s. Requests are served, not recorded.", error)
            return "disk"
        except Exception as error:  # noqa: BLE001 - whatever it is, the next one has its turn
            self._guard.failed("record", error)
            return "failed"
        return ""


# --- private ------------------------------------------------------------------------------------------


def _sample(completed: CompletedRequests, work: Work, result: object, start: int, later: float) -> _Sample:
    """Copy what is to be written of one request: the model's memory holds the next batch soon.

    Args:
        completed: it and its neighbours.
        work: the request.
        result: its own outcome; None where it was whole in the batch.
        start: its first row in the batch.
        later: by how much the wall clock is ahead of the monotonic one.
    """
    plan = work.plan
    if isinstance(result, InferenceResult):
        shapes, data = result.shapes, result.outputs
    else:
        assert completed.report is not None
        outputs = completed.report.outputs
        shapes, data = outputs.shapes_of(plan.rows), outputs.rows(start, start + plan.rows)
    answer = [each if isinstance(each, list) else bytes(each) for each in data]
    return _Sample(
        plan.info,
        plan.shapes if plan.whole else [(plan.rows, *shape) for shape in plan.shapes],
        work.data,
        shapes,
        answer,
        work.arrived + later,
        completed.now - work.arrived,
        sum(map(_size, (*work.data, *answer))),
    )


def _size(data: Data) -> int:
    return sum(map(len, data)) + 64 * len(data) if isinstance(data, list) else len(data)


def _log(sample: _Sample, share: float) -> PredictionLog:
    info, signature = sample.info, sample.info.signature
    message = PredictionLog()
    about, logged = message.log_metadata, message.predict_log
    for who in (about.model_spec, logged.request.model_spec, logged.response.model_spec):
        who.name = info.name
        who.version.value = int(info.version)
        who.signature_name = signature.name
    about.sampling_config.sampling_rate = share
    about.timestamp_secs = int(sample.arrived)
    about.horngate_arrived_us = round(sample.arrived * 1e6)
    about.horngate_took_us = round(sample.took_s * 1e6)
    for tensors, specs, shapes, data in (
        (logged.request.inputs, signature.inputs, sample.shapes, sample.inputs),
        (logged.response.outputs, signature.outputs, sample.answer_shapes, sample.answer),
    ):
        for spec, shape, elements in zip(specs, shapes, data, strict=True):
            fill(tensors[spec.name], spec.datatype, shape, elements if isinstance(elements, list) else bytes(elements))
    return message
