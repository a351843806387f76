"""What may share a run, found out by running it: are a signature's rows independent, and how many pay and fit?

The same rows are computed alone and among others, in several orders and at every batch size that will be used. Where
an answer depends on its neighbours, or where that cannot be seen, each request has a run of its own.
"""

import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np

from horngate_server import runtime
from horngate_server.admission import alike
from horngate_server.batch import ladder
from horngate_server.comparing import Tolerance, as_numbers, first_difference
from horngate_server.errors import InputRefused, ModelError, ModelFailed, OutOfMemory, RequestError
from horngate_server.model import Array, Feed, Model
from horngate_server.probes import LARGE, SIZES, Guess, Rows, guesses
from horngate_server.settings import Limits
from horngate_server.signature import ROWS, WHOLE, Batching, Signature, TensorSpec

log = logging.getLogger(__name__)

ALONE_ROWS = 8
"""Rows whose answers alone are known."""
SLOW_S = 0.02
"""Of a model that takes longer for a row, less is tried: a load is a matter of seconds."""
TOGETHER, SLOW_TOGETHER = (2, 3, 2, 3, 8), (2, 3)
"""Rows of the first batches in which they are seen again, each time with other neighbours."""
STYLES = 3
"""So many kinds of values are tried, of those that the model accepts."""
SHORT_S = 0.01
"""A run that is over this soon may grow even if it gains nothing: noise is larger, and the wait does not matter."""
GAIN = 1.05
"""A larger batch must bring so many times the rows a second, or it only makes callers wait."""
IDLE_RUNGS = 2
"""So many rungs in a row that bring nothing end the ladder: one may have been unlucky."""
WARM_RUNS = 3
"""The first run of a size compiles and allocates, and others may be unlucky: the fastest one is its cost."""
CLEAR_BYTES = 16 << 20
"""Growth of the process below this may be anything."""
TOLERANCES = {"FP16": 2e-2, "BF16": 5e-2, "FP64": 1e-8, "COMPLEX128": 1e-8}
"""Relative to the largest value of an output: how far the same row may be from itself in another batch."""
TOLERANCE, GPU_TOLERANCE = 1e-4, 1e-2
"""Of other floating-point types; GPUs may multiply with ten bits (TensorFloat-32)."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What is known of a signature once it has run.

    Attributes:
        batching: whether its requests share runs, and how large these may be.
        proved: some input was found that it accepts.
        kind: of the requests whose costs were measured (`admission.Plan.alike`).
        seconds: what a run of each size takes.
    """

    batching: Batching
    proved: bool = True
    kind: Hashable = None
    seconds: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """What a proof needs beside the model.

    Attributes:
        limits: how large and long runs may be, and what the operator says about batching.
        clock: seconds, of time or of this thread's computing.
        asked: "auto", or how the operator or the model's maker wants it batched.
        gpu: the device is one.
    """

    limits: Limits
    clock: Callable[[], float]
    asked: str = "auto"
    gpu: bool = False


def seconds_of_one(model: Model, signature: Signature, recorded: Sequence[Rows], bench: Bench) -> float:
    """Return what one request takes, warm; 0 where no input is found that the signature accepts.

    Args: those of `prove`.
    """
    return _Prover(model, signature, bench).seconds_of_one(recorded)


def prove(model: Model, signature: Signature, recorded: Sequence[Rows], bench: Bench) -> Proof:
    """Run a signature, and find out how its requests are to be computed.

    Args:
        model: runs.
        signature: of it.
        recorded: requests that it should take, as they come: per input all axes. They are tried first.
        bench: limits, clock, device.

    Raises:
        ModelError: it fails whatever it is given, or cannot be computed as asked.
    """
    return _Prover(model, signature, bench).prove(recorded)


# --- private ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """Rows that the model took alone, with their answers; per input and output one array of one row each."""

    rows: Sequence[Rows]
    answers: Sequence[Sequence[Array]]
    guess: Guess | None
    slow: bool


class _Doubt(Exception):
    """Why requests get runs of their own."""


class _Prover:
    """The proof of one signature, step by step."""

    def __init__(self, model: Model, signature: Signature, bench: Bench) -> None:
        self._model = model
        self._signature = signature
        self._bench = bench
        self._refused = ""
        self._failed = ""
        self._base = 0

    def prove(self, recorded: Sequence[Rows]) -> Proof:
        signature, asked = self._signature, self._bench.asked
        apart = _apart(signature)
        if asked == ROWS and apart:
            raise ModelError(f"signature {signature.name} cannot be computed with batching = {ROWS!r}: {apart}")
        self._begin_measuring()
        if signature.writes and asked != ROWS:
            apart = f"it changes what it remembers: {', '.join(signature.writes[:3])}"
        if asked == WHOLE:
            apart = "asked for"
        if apart:
            return self._whole(recorded, apart)
        seen = self._rows_alone(recorded)
        if seen is None:
            return self._whole(recorded, f"one row alone is refused: {self._refused}")
        try:
            if asked == ROWS:
                shared = frozenset(
                    place for place, answer in enumerate(seen.answers[0]) if not answer.ndim or len(answer) != 1
                )
                return self._climb(seen, shared, "asked for", sure=False)
            return self._climb(seen, self._independent(seen), "its rows were the same alone and among others")
        except _Doubt as doubt:
            return self._whole(recorded, str(doubt))

    def seconds_of_one(self, recorded: Sequence[Rows]) -> float:
        for request in self._requests(recorded):
            if self._tried(request) is not None:
                began = self._bench.clock()
                self._tried(request)
                return self._bench.clock() - began
        return 0.0

    # --- whole ----------------------------------------------------------------------------------------

    def _whole(self, recorded: Sequence[Rows], why: str) -> Proof:
        """Run a request, and say that each has a run of its own."""
        for request in self._requests(recorded):
            began = self._bench.clock()
            answers = self._tried(request)
            if answers is None:
                continue
            seconds = self._bench.clock() - began
            if not self._signature.writes:
                began = self._bench.clock()
                answers = self._tried(request) or answers
                seconds = min(seconds, self._bench.clock() - began)
            shapes = tuple(array.shape for array in request)
            rowed = zip(request, self._signature.inputs, strict=True)
            rows = max((len(array) for array, spec in rowed if spec.in_rows), default=1) or 1
            growth, answer_growth = self._growth(request, answers)
            batching = Batching(
                WHOLE,
                why,
                growth=growth,
                answer_growth=answer_growth,
                row_bytes=_bytes(answers) / rows,
                memory_bytes=self._bench.limits.model_memory_bytes,
            )
            return Proof(batching, True, alike(self._signature, shapes, whole=True), {rows: seconds})
        if self._failed:
            raise ModelError(f"signature {self._signature.name} fails: {self._failed}")
        batching = Batching(WHOLE, f"unproved: no input was found that it accepts; it says: {self._refused}")
        return Proof(batching, proved=False)

    def _requests(self, recorded: Sequence[Rows]) -> Iterator[Rows]:
        """Yield requests that may be accepted: of a row, and of as many as other free axes are long."""
        yield from recorded[:ALONE_ROWS]
        for guess in guesses(self._signature):
            yield guess.draw(1)
        if any(spec.in_rows for spec in self._signature.inputs):
            seen = set()
            for guess in guesses(self._signature):
                if guess.style not in seen:
                    seen.add(guess.style)
                    for rows in SIZES:
                        yield replace(guess, size=rows).draw(rows)

    # --- rows -----------------------------------------------------------------------------------------

    def _rows_alone(self, recorded: Sequence[Rows]) -> _Seen | None:
        """Find rows that the model takes one by one, whose answers differ if that can be had; None if it takes none."""
        dull: _Seen | None = None
        for rows, guess in self._sources(recorded):
            seen = self._alone(rows[:2], guess)
            if seen is None:
                continue
            if len(seen.rows) > 1 and _varied(seen):
                return self._alone(rows, guess)
            dull = dull or seen
            if guess is not None and dull.guess is not None and guess.size != dull.guess.size:
                break  # other sizes will not make its answers differ
        return dull and (
            self._alone([dull.guess.draw(1, seed) for seed in range(4)], dull.guess) if dull.guess else dull
        )

    def _sources(self, recorded: Sequence[Rows]) -> Iterator[tuple[Sequence[Rows], Guess | None]]:
        if rows := _cut(recorded):
            yield rows, None
        for guess in guesses(self._signature):
            yield [guess.draw(1, seed) for seed in range(ALONE_ROWS)], guess

    def _alone(self, rows: Sequence[Rows], guess: Guess | None) -> _Seen | None:
        """Compute rows one by one; None if the first is refused."""
        kept: list[Rows] = []
        answers: list[Sequence[Array]] = []
        slow = False
        for row in rows:
            began = self._bench.clock()
            answer = self._tried(row)
            if answer is None:
                if not kept:
                    return None
                continue
            slow = self._bench.clock() - began > SLOW_S
            kept.append(row)
            answers.append(answer)
            if slow and len(kept) > 3:
                break
        return _Seen(kept, answers, guess, slow)

    def _independent(self, seen: _Seen) -> frozenset[int]:
        """See rows again among others; return the outputs that have no rows.

        Raises:
            _Doubt: they are not the same, or that cannot be seen.
        """
        if len(seen.rows) < 3:
            raise _Doubt(f"too few rows are accepted to compare them: {self._refused}")
        self._same_twice(seen)
        shared = self._together(seen, None, SLOW_TOGETHER if seen.slow else TOGETHER)
        if not _varied(seen):
            raise _Doubt("its answers are the same whatever it is given, so that nothing can be seen")
        styles = 1
        for guess in guesses(self._signature):
            if styles == STYLES or seen.slow or (seen.guess is not None and guess.size != seen.guess.size):
                break
            if seen.guess is not None and guess.style == seen.guess.style:
                continue
            other = self._alone([guess.draw(1, seed) for seed in range(3)], guess)
            if other is not None:
                styles += 1
                if seen.guess is not None:
                    self._same_shapes(seen, other)
                self._together(other, shared, (2, 3))
        return shared

    def _same_twice(self, seen: _Seen) -> None:
        """See that one row gets one answer.

        Raises:
            _Doubt: it is random, or it remembers.
        """
        again = self._run(seen.rows[0])
        for place, (spec, got) in enumerate(zip(self._signature.outputs, again, strict=True)):
            wanted = seen.answers[0][place]
            tolerance = self._tolerance(spec, [each[place] for each in seen.answers])
            if got.shape != wanted.shape or first_difference(got, wanted, spec.datatype, tolerance) is not None:
                raise _Doubt(f"output {spec.name!r} of the same row is another the second time")

    def _same_shapes(self, seen: _Seen, other: _Seen) -> None:
        """See that other values have answers of the same shapes.

        Raises:
            _Doubt: what comes out depends on what goes in.
        """
        for spec, one, another in zip(self._signature.outputs, seen.answers[0], other.answers[0], strict=True):
            if one.shape != another.shape:
                raise _Doubt(f"output {spec.name!r} has shape {list(one.shape)} or {list(another.shape)} for one row")

    def _together(self, seen: _Seen, shared: frozenset[int] | None, sizes: Iterable[int]) -> frozenset[int]:
        """Compute batches of these rows in any order; return the outputs without rows, which the first one tells."""
        rng = np.random.default_rng(len(seen.rows))
        for size in sizes:
            order = [int(place) for place in rng.integers(len(seen.rows), size=size)]
            order[0], order[-1] = (0, len(seen.rows) - 1) if size % 2 else (len(seen.rows) - 1, 0)
            try:
                answers = self._run(_joined(seen.rows, order))
            except RequestError as error:
                raise _Doubt(f"{size} rows together fail, which do not alone: {error}") from error
            if shared is None:
                alone = seen.answers[0]
                shared = frozenset(place for place, got in enumerate(answers) if got.shape == alone[place].shape)
            self._compare(seen, order, answers, shared)
        return shared or frozenset()

    def _compare(self, seen: _Seen, order: Sequence[int], answers: Sequence[Array], shared: frozenset[int]) -> None:
        """Compare a batch's answers with those of its rows alone.

        Raises:
            _Doubt: they are not the same.
        """
        for place, (spec, got) in enumerate(zip(self._signature.outputs, answers, strict=True)):
            alone = [each[place] for each in seen.answers]
            tolerance = self._tolerance(spec, alone)
            if place in shared:
                if any(
                    got.shape != each.shape or first_difference(got, each, spec.datatype, tolerance) is not None
                    for each in alone
                ):
                    raise _Doubt(f"output {spec.name!r} has no rows, and depends on all that is computed together")
                continue
            row_shape = alone[0].shape[1:]
            if any(not each.ndim or each.shape != (1, *row_shape) for each in alone):
                raise _Doubt(f"output {spec.name!r} has shape {list(alone[0].shape)} for one row")
            if got.shape != (len(order), *row_shape):
                raise _Doubt(f"output {spec.name!r} has shape {list(got.shape)} for {len(order)} rows")
            wanted = np.concatenate([alone[row] for row in order])
            if first_difference(got, wanted, spec.datatype, tolerance) is not None:
                raise _Doubt(f"output {spec.name!r} of a row is another among {len(order)} than alone")

    def _tolerance(self, spec: TensorSpec, answers: Sequence[Array]) -> Tolerance:
        """Return how far an output may be from itself, by the largest of these answers."""
        relative = TOLERANCES.get(spec.datatype.name, GPU_TOLERANCE if self._bench.gpu else TOLERANCE)
        largest = 0.0
        if spec.datatype.numpy.kind in "fc" or spec.datatype.name == "BF16":
            numbers = np.abs(np.concatenate([as_numbers(each, spec.datatype).reshape(-1) for each in answers]))
            finite = numbers[np.isfinite(numbers)]
            largest = float(finite.max()) if finite.size else 0.0
        return Tolerance(atol=largest * relative / 10, rtol=relative)

    # --- the ladder -----------------------------------------------------------------------------------

    def _climb(self, seen: _Seen, shared: frozenset[int], why: str, *, sure: bool = True) -> Proof:
        """Run larger and larger batches, as long as they pay and fit, and see that their rows are the same.

        Raises:
            _Doubt: they are not.
        """
        self._begin_measuring()
        limits = self._bench.limits
        row_bytes = _bytes([array for place, array in enumerate(seen.answers[0]) if place not in shared])
        rng = np.random.default_rng(0)
        seconds: dict[int, float] = {}
        needs = {0: 0}
        best = 0.0
        top, idle = 1, 0
        end = ""
        for rows in ladder(limits.max_batch_rows):
            last = max(seconds, default=0)
            slope = (needs[last] - needs.get(last // 2, 0)) / max(1, last - last // 2)
            if last and needs[last] + slope * (rows - last) > limits.model_memory_bytes:
                end = "more would not fit the memory"
                break
            order = [int(place) for place in rng.integers(len(seen.rows), size=rows)]
            batch = _joined(seen.rows, order)
            try:
                took, answers = self._timed(batch)
            except RequestError as error:
                if not last:
                    raise _Doubt(f"one row alone fails the second time: {error}") from error
                end = f"{rows} rows found no memory" if isinstance(error, OutOfMemory) else f"{rows} rows fail: {error}"
                break
            if sure:
                self._compare(seen, order, answers, shared)
            needs[rows] = max(needs[last], self._need())
            del answers
            if last and took > limits.target_batch_s:
                end = "more rows take too long"
                break
            seconds[rows] = took
            rate = rows / max(took, 1e-9)
            if not last or took <= SHORT_S or rate >= best * GAIN:
                top, idle = rows, 0
            else:
                idle += 1
            best = max(best, rate)
            if idle == IDLE_RUNGS or took > limits.target_batch_s:
                end = "more rows bring no more a second" if idle else "a row takes longer than a batch should"
                break
        batching = Batching(ROWS, why, shared, max_rows=top, row_bytes=row_bytes)
        shapes = tuple(array.shape[1:] for array in seen.rows[0])
        if any(spec.is_open for spec in self._signature.inputs):
            batching = self._by_bytes(batching, seen, top)
        log.debug("signature %s: batches of up to %d rows; %s", self._signature.name, top, end or "as many as set")
        paid = {rows: took for rows, took in seconds.items() if rows <= top}
        return Proof(batching, True, alike(self._signature, shapes, whole=False), paid)

    def _timed(self, batch: Rows) -> tuple[float, Sequence[Array]]:
        """Run a batch a few times, fewer if it takes long; return the least seconds, and the answers."""
        took = float("inf")
        for _ in range(WARM_RUNS):
            feed = self._feed(batch)
            began = self._bench.clock()
            answers = self._model.run(feed)
            took = min(took, self._bench.clock() - began)
            if took > self._bench.limits.target_batch_s:
                break
        return took, answers

    def _by_bytes(self, batching: Batching, seen: _Seen, top: int) -> Batching:
        """Bound the batches of inputs with free axes by bytes: by what a large request takes."""
        limits = self._bench.limits
        request, answers, took = seen.rows[0], seen.answers[0], 0.0
        if seen.guess is not None:
            for size in LARGE:
                large = replace(seen.guess, size=size).draw(1)
                if size <= seen.guess.size or _bytes(large) <= _bytes(request):
                    continue
                began = self._bench.clock()
                got = self._tried(large)
                if got is not None:
                    took = self._bench.clock() - began
                    request, answers = large, got
                    break
        growth, answer_growth = self._growth(request, answers)
        size = max(1, _bytes(request))
        fits = limits.model_memory_bytes / growth
        pays = max(_bytes(seen.rows[0]) * top, size * max(1.0, limits.target_batch_s / took) if took else 0.0)
        return replace(
            batching,
            batch_bytes=min(fits, pays),
            growth=growth,
            answer_growth=answer_growth,
            memory_bytes=limits.model_memory_bytes,
        )

    def _growth(self, request: Rows, answers: Sequence[Array]) -> tuple[float, float]:
        """Return what a byte of input becomes in memory, and in the answer."""
        size = max(1, _bytes(request))
        written = _bytes(answers)
        need = self._need()
        answer_growth = written / size if size >= 1024 else 0.0
        return max(2 * (1 + answer_growth), need / size if need > CLEAR_BYTES else 0.0), answer_growth

    def _begin_measuring(self) -> None:
        """Let `_need` begin at what the process has now, all that it can spare given back."""
        runtime.trim_memory()
        runtime.forget_peak()
        self._base = runtime.resident_bytes()

    def _need(self) -> int:
        """Return the bytes that the largest run took since."""
        return max(0, runtime.peak_bytes() - self._base)

    # --- running --------------------------------------------------------------------------------------

    def _tried(self, request: Rows) -> Sequence[Array] | None:
        """Run a request; None where the model does not take it, and remember its words."""
        try:
            return self._run(request)
        except InputRefused as error:
            self._refused = str(error)
        except ModelFailed as error:
            if isinstance(error, OutOfMemory):
                self._refused = str(error)
            else:
                self._failed = str(error)
        return None

    def _run(self, request: Rows) -> Sequence[Array]:
        return self._model.run(self._feed(request))

    def _feed(self, request: Rows) -> Feed:
        feed = self._model.feed(self._signature, [array.shape for array in request])
        for memory, array in zip(feed.arrays, request, strict=True):
            memory[...] = array
        return feed


def _apart(signature: Signature) -> str:
    """Say why requests for a signature cannot share a run, whatever it computes; empty if they may."""
    if not signature.inputs:
        return "it has no inputs"
    for spec in signature.inputs:
        if not spec.in_rows:
            return f"input {spec.name!r} has no batch axis"
    return ""


def _cut(recorded: Sequence[Rows]) -> list[Rows]:
    """Return single rows of recorded requests, all of one kind; none where their inputs have no common rows."""
    rows: list[Rows] = []
    for request in recorded:
        counts = {len(array) if array.ndim else 0 for array in request}
        if len(counts) != 1:
            continue
        for row in range(min(counts.pop(), ALONE_ROWS - len(rows))):
            each = [array[row : row + 1] for array in request]
            if not rows or [array.shape for array in rows[0]] == [array.shape for array in each]:
                rows.append(each)
    return rows


def _joined(rows: Sequence[Rows], order: Sequence[int]) -> Rows:
    return [np.concatenate([rows[row][place] for row in order]) for place in range(len(rows[0]))]


def _varied(seen: _Seen) -> bool:
    """Whether any answer is another than the first row's, and is a number."""
    first, *others = seen.answers
    for place, one in enumerate(first):
        for each in others:
            other = each[place]
            if one.shape != other.shape:
                return True
            different = one != other
            if one.dtype.kind in "fc":
                different = different & ~(np.isnan(one) & np.isnan(other))
            if np.any(different):
                return True
    return False


def _bytes(arrays: Sequence[Array]) -> int:
    """Return the bytes of tensors; of strings, their own."""
    size = 0
    for array in arrays:
        if array.dtype.hasobject:
            strings: list[bytes] = array.reshape(-1).tolist()
            size += sum(map(len, strings))
        else:
            size += prod(array.shape) * array.dtype.itemsize
    return size
