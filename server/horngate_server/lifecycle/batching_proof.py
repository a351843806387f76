"""How a signature's requests are to be computed, found out by running it: together or one by one, and how much at once.

Where an answer depends on its neighbours, or where that cannot be seen, each request has a run of its own.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from horngate_server.core.errors import ModelError
from horngate_server.core.model import Model
from horngate_server.core.settings import Limits
from horngate_server.core.signature import FREE, ROWS, WHOLE, Batching, Signature
from horngate_server.engine.validation import alike
from horngate_server.lifecycle.batch_ladder import climb, scale
from horngate_server.lifecycle.length_proof import prove_padding
from horngate_server.lifecycle.probe_inputs import SIZES, Guess, Rows, guesses
from horngate_server.lifecycle.row_independence import ALONE_ROWS, Doubt, Seen, rows_alone, without_rows
from horngate_server.lifecycle.trial_runs import TrialRuns, size_of

LARGER = (32, 64, 128, 224, 256, 512, 1024, 2048, 4096, 8192)
"""Lengths of free axes at which memory and time are measured, as far as these are bearable."""
USUAL = (64, 32, 16)
"""Of these, free axes have the first that is accepted where one request is to stand for all."""
MOST_ELEMENTS = 1 << 22
"""Larger inputs than these are not made up."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What is known of a signature once it has run.

    Attributes:
        batching: whether its requests share runs, and how large these may be.
        proved: some input was found that it accepts.
        kind: of the requests whose costs were measured (`validation.Plan.alike`).
        seconds: what a run of each size takes.
    """

    batching: Batching
    proved: bool = True
    kind: Hashable = None
    seconds: Mapping[int, float] = field(default_factory=dict)

    @property
    def row_seconds(self) -> float:
        """What a row takes at least; 0 where nothing was measured."""
        return min((seconds / rows for rows, seconds in self.seconds.items()), default=0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """What a proof needs beside the model.

    Attributes:
        limits: how large and long runs may be, and what the operator says about batching.
        clock: seconds, of time or of this thread's computing.
        asked: "auto", or how the operator or the model's maker wants it batched.
        lengths: "auto", or how they want requests of different lengths.
        gpu: the device is one.
    """

    limits: Limits
    clock: Callable[[], float]
    asked: str = "auto"
    lengths: str = "auto"
    gpu: bool = False


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
    apart = _apart(signature)
    if bench.asked == ROWS and apart:
        raise ModelError(f"signature {signature.name} cannot be computed with batching = {ROWS!r}: {apart}")
    runs = TrialRuns(model, signature, bench.clock)
    if bench.asked == WHOLE:
        return _whole(runs, recorded, bench, "asked for")
    if signature.writes and bench.asked != ROWS:
        apart = f"it changes what it remembers: {', '.join(signature.writes[:3])}"
    if apart:
        return _whole(runs, recorded, bench, apart)
    seen = rows_alone(runs, recorded)
    if seen is None:
        return _whole(runs, recorded, bench, f"one row alone is refused: {runs.refused}")
    try:
        return _in_rows(runs, seen, bench)
    except Doubt as doubt:
        return _whole(runs, recorded, bench, str(doubt))


def usual_request(model: Model, signature: Signature, recorded: Sequence[Rows], bench: Bench) -> Rows | None:
    """Return a request of the usual size, one row of it; None where no input is found that the signature accepts.

    Args: those of `prove`.
    """
    runs = TrialRuns(model, signature, bench.clock)
    for request, guess in _requests(signature, recorded):
        if runs.tried(request) is None:
            continue
        larger = [] if guess is None else [replace(guess, size=size).draw(1) for size in USUAL if size > guess.size]
        return next((each for each in larger if runs.tried(each) is not None), request)
    return None


# --- private ------------------------------------------------------------------------------------------


def _apart(signature: Signature) -> str:
    """Say why requests for a signature cannot share a run, whatever it computes; empty if they may."""
    if not signature.inputs:
        return "it has no inputs"
    for spec in signature.inputs:
        if not spec.in_rows:
            return f"input {spec.name!r} has no batch axis"
    return ""


def _in_rows(runs: TrialRuns, seen: Seen, bench: Bench) -> Proof:
    """Prove that rows are independent, unless that was asked for, and find out how many pay and fit.

    Raises:
        Doubt: they are not.
    """
    limits = bench.limits
    if bench.asked == ROWS:
        answers = seen.answers[0]
        shared = frozenset(place for place, answer in enumerate(answers) if not answer.ndim or len(answer) != 1)
        why, compared = "asked for", None
    else:
        shared = without_rows(runs, seen, gpu=bench.gpu)
        why, compared = "its rows were the same alone and among others", shared
    rungs = climb(runs, seen, limits, compared, gpu=bench.gpu)
    row_bytes = size_of([array for place, array in enumerate(seen.answers[0]) if place not in shared])
    batching = Batching(ROWS, why, shared, max_rows=rungs.top, row_bytes=row_bytes)
    if any(spec.is_open for spec in runs.signature.inputs):
        grown = scale(runs, _larger(seen.rows[0], seen.guess, rows=False), limits)
        tried = size_of(seen.rows[0]) * rungs.top
        pays = limits.target_batch_s / grown.byte_seconds if grown.byte_seconds else 0.0
        batching = replace(
            batching,
            batch_bytes=max(tried, pays),
            memory=grown.memory,
            answer=grown.answer,
            memory_bytes=limits.model_memory_bytes,
        )
    recorded = seen.rows if seen.guess is None else ()
    found = prove_padding(runs, recorded, shared, asked=bench.lengths, gpu=bench.gpu)
    batching = replace(batching, padding=found.padding, lengths=found.why)
    shapes = [array.shape[1:] for array in seen.rows[0]]
    kind = alike(runs.signature, found.padding.shared(shapes) if found.padding else shapes, whole=False)
    return Proof(batching, True, kind, rungs.seconds)


def _whole(runs: TrialRuns, recorded: Sequence[Rows], bench: Bench, why: str) -> Proof:
    """Run a request, and say that each has a run of its own."""
    signature, limits = runs.signature, bench.limits
    for request, guess in _requests(signature, recorded):
        began = runs.clock()
        answers = runs.tried(request)
        if answers is None:
            continue
        seconds = runs.clock() - began
        rowed = zip(request, signature.inputs, strict=True)
        rows = max((len(array) for array, spec in rowed if spec.in_rows), default=1) or 1
        batching = Batching(WHOLE, why, row_bytes=size_of(answers) / rows, memory_bytes=limits.model_memory_bytes)
        if not signature.writes:
            began = runs.clock()
            runs.tried(request)
            seconds = min(seconds, runs.clock() - began)
            if any(spec.shape is None or FREE in spec.shape for spec in signature.inputs):
                found = scale(runs, _larger(request, guess, rows=True), limits)
                batching = replace(batching, memory=found.memory, answer=found.answer)
        kind = alike(signature, [array.shape for array in request], whole=True)
        return Proof(batching, True, kind, {rows: seconds})
    if runs.failed:
        raise ModelError(f"signature {signature.name} fails: {runs.failed}")
    why = f"unproved: no input was found that it accepts; it says: {runs.refused}"
    return Proof(Batching(WHOLE, why, memory_bytes=limits.model_memory_bytes), proved=False)


def _requests(signature: Signature, recorded: Sequence[Rows]) -> Iterator[tuple[Rows, Guess | None]]:
    """Yield requests that may be accepted: of a row, and of as many as other free axes are long."""
    for each in recorded[:ALONE_ROWS]:
        yield each, None
    for guess in guesses(signature):
        yield guess.draw(1), guess
    if any(spec.in_rows for spec in signature.inputs):
        for style in dict.fromkeys(guess.style for guess in guesses(signature)):
            for size in SIZES:
                guess = Guess(signature, size, style)
                yield guess.draw(size), guess


def _larger(request: Rows, guess: Guess | None, *, rows: bool) -> Iterator[Rows]:
    """Yield a request, and larger ones of its kind: with longer free axes, and with as many rows where these count."""
    yield request
    if guess is not None:
        for size in LARGER:
            larger, count = replace(guess, size=size), size if rows else 1
            if size > guess.size and larger.elements(count) <= MOST_ELEMENTS:
                yield larger.draw(count)
