"""What may share a run is found out by running it: a proof against models that are functions of NumPy."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from google.protobuf.message import DecodeError

from horngate_protos.datatypes import BY_NAME
from horngate_protos.tensorflow_pb2 import Example
from horngate_server.core.errors import InputRefused, ModelError, ModelFailed, OutOfMemory
from horngate_server.core.model import Array
from horngate_server.core.settings import Limits
from horngate_server.core.signature import ROWS, WHOLE, Feature, Signature, TensorSpec
from horngate_server.lifecycle.batching_proof import Bench, Proof, prove, usual_request
from horngate_server.lifecycle.trial_runs import WARM_RUNS
from support.in_process import Clock, FakeModel

LIMITS = Limits(max_batch_rows=64, queue_rows=1000, max_queue_delay_s=0.0)
Compute = Callable[[Sequence[Array]], Sequence[Array]]


def spec(name: str, datatype: str, *shape: int) -> TensorSpec:
    """Describe a tensor."""
    return TensorSpec(name, BY_NAME[datatype], shape)


X = spec("x", "FP32", -1, 4)
Y = spec("y", "FP32", -1, 4)


def proved(
    compute: Compute,
    inputs: Sequence[TensorSpec] = (X,),
    outputs: Sequence[TensorSpec] = (Y,),
    *,
    recorded: Sequence[Sequence[Array]] = (),
    bench: Bench | None = None,
    writes: tuple[str, ...] = (),
) -> Proof:
    """Prove a model that computes this."""
    model = FakeModel(Signature("serving_default", tuple(inputs), tuple(outputs), writes=writes))
    model.compute = compute
    return prove(model, model.signature, recorded, bench or Bench(LIMITS, Clock()))


def one(function: Callable[[Array], Array]) -> Compute:
    """A model with one input and one output."""
    return lambda inputs: [function(inputs[0])]


def counting() -> Compute:
    """A model that remembers how often it ran."""
    runs = [0]

    def compute(inputs: Sequence[Array]) -> Sequence[Array]:
        runs[0] += 1
        return [floats(inputs[0]) + np.float32(runs[0])]

    return compute


def floats(array: Array) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """The numbers of an input."""
    return array.astype(np.float32)


def test_rows_that_are_the_same_alone_and_among_others_share_runs() -> None:
    """A model that looks at one row at a time is batched, up to what was set."""
    proof = proved(one(lambda x: floats(x) * 2))
    assert (proof.batching.mode, proof.batching.max_rows, proof.proved) == (ROWS, 64, True)
    assert list(proof.seconds) == [1, 2, 4, 8, 16, 32, 64]


@pytest.mark.parametrize(
    "compute",
    [
        pytest.param(lambda x: x / np.abs(x).sum(axis=0), id="shares-of-the-batch"),
        pytest.param(lambda x: x - x.mean(axis=0), id="mean-of-the-batch"),
        pytest.param(lambda x: np.cumsum(x, axis=0), id="running-sum"),
        pytest.param(lambda x: np.sort(x, axis=0), id="sorted-among-each-other"),
        pytest.param(lambda x: x + (len(x) > 30), id="only-with-many-rows"),
        pytest.param(lambda x: x * 2 if len(x) != 3 else x, id="only-with-three-rows"),
        pytest.param(lambda x: np.repeat(x, 2, axis=0), id="two-rows-for-one"),
        pytest.param(lambda x: x[x[:, 0] > 0], id="rows-left-out"),
        pytest.param(lambda x: x.sum(), id="one-number-for-all"),
        pytest.param(lambda x: x[::-1], id="in-another-order"),
        pytest.param(lambda x: np.roll(x, 1, axis=0), id="the-neighbours-answer"),
        pytest.param(lambda x: np.full_like(x, np.nan), id="nothing-to-be-seen"),
        pytest.param(np.zeros_like, id="always-the-same"),
        pytest.param(lambda x: x + np.random.default_rng().random(x.shape), id="random"),
    ],
)
def test_rows_that_look_at_each_other_have_runs_of_their_own(compute: Callable[[Array], Array]) -> None:
    """Whatever a row's answer depends on beside the row: when in doubt, one request is one run."""
    proof = proved(one(lambda x: floats(compute(x))))
    assert (proof.batching.mode, proof.proved) == (WHOLE, True)
    assert proof.batching.why


def test_why_requests_are_not_batched_is_said_in_plain_words() -> None:
    """The report names the output."""
    why = proved(one(lambda x: floats(x) - floats(x).mean(axis=0))).batching.why
    assert why == "output 'y' of a row is another among 2 than alone"


def test_a_model_that_remembers_is_whole_and_not_run_more_than_it_must() -> None:
    """Its graph says that it writes; one run shows that it works."""
    runs: list[int] = []

    def compute(inputs: Sequence[Array]) -> Sequence[Array]:
        runs.append(len(inputs[0]))
        return [inputs[0]]

    batching = proved(compute, writes=("AssignAddVariableOp",)).batching
    assert (batching.mode, batching.why) == (WHOLE, "it changes what it remembers: AssignAddVariableOp")
    assert runs == [1]


def test_a_memory_that_the_graph_does_not_show_is_seen_in_the_answers() -> None:
    """The same row twice is not the same answer."""
    batching = proved(counting()).batching
    assert (batching.mode, batching.why) == (WHOLE, "output 'y' of the same row is another the second time")


def test_constant_outputs_are_answered_with_every_request_of_a_batch() -> None:
    """An output that is the same whatever is computed, and has no rows, is shared; also if it is one long."""
    anchors = np.arange(12, dtype=np.float32).reshape(6, 2)
    single = np.ones((1, 3), np.float32)
    outputs = [Y, spec("anchors", "FP32", 6, 2), spec("one", "FP32", 1, 3)]
    batching = proved(lambda inputs: [inputs[0], anchors, single], outputs=outputs).batching
    assert (batching.mode, batching.shared) == (ROWS, frozenset([1, 2]))


def test_an_output_of_a_number_for_the_batch_makes_it_whole() -> None:
    """TensorFlow gives each request its own mean: nobody can be given a batch's."""
    compute: Compute = lambda inputs: [inputs[0], np.array(floats(inputs[0]).mean())]  # noqa: E731
    batching = proved(compute, outputs=[Y, spec("mean", "FP32")]).batching
    assert batching.mode == WHOLE
    assert batching.why == "output 'mean' has no rows, and depends on all that is computed together"


@pytest.mark.parametrize(
    "inputs",
    [
        pytest.param([X, spec("training", "BOOL")], id="scalar"),
        pytest.param([spec("image", "UINT8", 1, -1, -1, 3)], id="fixed-first-axis"),
        pytest.param([TensorSpec("x", BY_NAME["FP32"], None)], id="unknown-rank"),
        pytest.param([], id="none"),
    ],
)
def test_inputs_without_a_batch_axis_make_it_whole(inputs: Sequence[TensorSpec]) -> None:
    """There are no rows to join."""
    proof = proved(lambda _: [np.ones((1, 4), np.float32)], inputs)
    assert (proof.batching.mode, proof.proved) == (WHOLE, True)


def test_an_image_without_a_batch_axis_is_not_taken_for_rows() -> None:
    """Its first axis is free, but its lines are no requests."""

    def brightness(image: Array) -> Array:
        if len(image) < 8:
            raise InputRefused("an image has at least 8 lines")
        return np.asarray(floats(image).mean(axis=(0, 1)))

    proof = proved(one(brightness), [spec("image", "FP32", -1, -1, 3)], [spec("mean", "FP32", 3)])
    assert (proof.batching.mode, proof.proved) == (WHOLE, True)
    assert proof.batching.why == "one row alone is refused: an image has at least 8 lines"


def test_a_batch_of_one_inside_is_found_out() -> None:
    """A graph that reshapes to one row fails with two."""

    def reshape(x: Array) -> Array:
        if len(x) != 1:
            raise InputRefused("Input to reshape has 8 values, but the requested shape has 4")
        return floats(x) * 2

    batching = proved(one(reshape)).batching
    assert batching.mode == WHOLE
    assert batching.why.startswith("2 rows together fail, which do not alone: Input to reshape")


@pytest.mark.parametrize(
    ("inputs", "accepts"),
    [
        pytest.param([spec("ids", "INT32", -1, 3)], lambda x: x.min() >= 0 and x.max() < 10, id="ids-below-ten"),
        pytest.param([spec("ids", "INT64", -1, 3)], lambda x: x.min() >= 0 and x.max() < 2, id="ids-below-two"),
        pytest.param([spec("n", "INT32", -1, 3)], lambda x: x.min() >= 1, id="no-division-by-zero"),
        pytest.param([X], lambda x: (x.sum(axis=1) > 0).all(), id="positive"),
        pytest.param([X], lambda x: x.min() >= 0 and x.max() <= 1, id="between-zero-and-one"),
        pytest.param([spec("x", "FP32", -1, -1)], lambda x: x.shape[1] >= 5, id="at-least-five-long"),
        pytest.param([spec("x", "FP32", -1, -1, -1, 3)], lambda x: x.shape[1] % 32 == 0, id="multiples-of-32"),
        pytest.param([spec("x", "BF16", -1, 4)], lambda x: x.dtype == np.uint16, id="bfloat16"),
        pytest.param([spec("x", "COMPLEX64", -1, 4)], lambda x: x.dtype == np.complex64, id="complex"),
    ],
)
def test_inputs_that_a_model_accepts_are_found(inputs: Sequence[TensorSpec], accepts: Callable[[Array], bool]) -> None:
    """Of the usual values and sizes, those are taken that are not refused."""

    def compute(given: Sequence[Array]) -> Sequence[Array]:
        if not accepts(given[0]):
            raise InputRefused("assertion failed")
        return [np.abs(given[0].reshape(len(given[0]), -1)).sum(axis=1).astype(np.float32)]

    proof = proved(compute, inputs, [spec("y", "FP32", -1)])
    assert (proof.batching.mode, proof.proved) == (ROWS, True)


def test_texts_files_and_examples_are_tried_as_strings() -> None:
    """Words, numerals, JPEG, PNG, and tf.Examples with what the graph reads of them."""

    def only(accepts: Callable[[bytes], bool]) -> Compute:
        def compute(inputs: Sequence[Array]) -> Sequence[Array]:
            strings: list[bytes] = inputs[0].reshape(-1).tolist()
            if not all(map(accepts, strings)):
                raise InputRefused("cannot be parsed")
            return [np.array([sum(each) for each in strings], np.float32)]

        return compute

    features = (Feature("age", 1, 1), Feature("ids", 9, 3), Feature("word", 7, 1))
    example = TensorSpec("x", BY_NAME["BYTES"], (-1,), features=features)

    def complete(serialized: bytes) -> bool:
        try:
            feature = Example.FromString(serialized).features.feature
        except DecodeError:
            return False
        return len(feature["ids"].int64_list.value) == 3 and len(feature["age"].float_list.value) == 1

    text = spec("x", "BYTES", -1)
    kinds: list[tuple[TensorSpec, Callable[[bytes], bool]]] = [
        (text, lambda each: each.replace(b" ", b"").isalpha()),
        (text, lambda each: each.isdigit()),
        (text, lambda each: each.startswith(b"\xff\xd8")),
        (text, lambda each: each.startswith(b"\x89PNG")),
        (example, complete),
    ]
    for given, accepts in kinds:
        assert proved(only(accepts), [given], [spec("y", "FP32", -1)]).batching.mode == ROWS


def test_recorded_requests_are_tried_before_anything_is_guessed() -> None:
    """A model that takes only what nobody can guess is proved by what was recorded."""

    def picky(inputs: Sequence[Array]) -> Sequence[Array]:
        if not (inputs[0][:, 0] == 4711).all():
            raise InputRefused("no such customer")
        return [inputs[0]]

    requests = [[np.array([[4711, 1, 2, row]], np.float32)] for row in range(5)]
    assert proved(picky, recorded=requests).batching.mode == ROWS
    unproved = proved(picky)
    assert (unproved.proved, unproved.batching.mode) == (False, WHOLE)
    assert unproved.batching.why == "unproved: no input was found that it accepts; it says: no such customer"


def test_a_model_that_fails_whatever_it_is_given_is_refused() -> None:
    """That is no wrong guess: it would fail for every caller."""

    def fail(_: Sequence[Array]) -> Sequence[Array]:
        raise ModelFailed("Could not find variable dense/kernel")

    with pytest.raises(ModelError, match="signature serving_default fails: Could not find variable dense/kernel"):
        proved(fail)


def test_what_the_operator_says_stands_above_what_is_seen() -> None:
    """Rows that cannot be told apart share runs if asked to, and independent ones do not."""
    clock = Clock()
    dull = proved(one(np.zeros_like), bench=Bench(LIMITS, clock, ROWS))
    assert (dull.batching.mode, dull.batching.why) == (ROWS, "asked for")
    alone = proved(one(lambda x: floats(x) * 2), bench=Bench(LIMITS, clock, WHOLE))
    assert (alone.batching.mode, alone.batching.why) == (WHOLE, "asked for")
    with pytest.raises(ModelError, match="cannot be computed with batching = 'rows': input 'on' has no batch axis"):
        proved(one(floats), [spec("on", "BOOL")], bench=Bench(LIMITS, clock, ROWS))


def timed(clock: Clock, seconds: Callable[[int], float]) -> Compute:
    """A model that takes so long for so many rows."""

    def compute(inputs: Sequence[Array]) -> Sequence[Array]:
        clock.now += seconds(len(inputs[0]))
        return [inputs[0]]

    return compute


@pytest.mark.parametrize(
    ("seconds", "top"),
    [
        pytest.param(lambda rows: 0.0001 * rows, 64, id="quick-ones-may-grow-though-nothing-is-gained"),
        pytest.param(lambda rows: 0.02 + 0.0001 * rows, 64, id="as-long-as-it-pays"),
        pytest.param(lambda rows: 0.004 * rows, 2, id="no-more-rows-a-second"),
        pytest.param(lambda rows: 0.03 + 0.004 * rows, 4, id="too-long"),
        pytest.param(lambda rows: 0.2 * rows, 1, id="even-one-takes-too-long"),
    ],
)
def test_the_ladder_is_climbed_as_long_as_it_pays(seconds: Callable[[int], float], top: int) -> None:
    """It ends where a run takes longer than 50 ms, or brings no more rows a second."""
    clock = Clock()
    proof = proved(timed(clock, seconds), bench=Bench(LIMITS, clock))
    assert proof.batching.max_rows == top
    assert max(proof.seconds) == top


def test_a_rung_that_will_take_too_long_is_not_tried() -> None:
    """What the next one will take is told by those before it: large models are ready sooner."""
    clock = Clock()
    rows_run: list[int] = []

    def seconds(rows: int) -> float:
        rows_run.append(rows)
        return 0.02 + 0.003 * rows

    assert proved(timed(clock, seconds), bench=Bench(LIMITS, clock)).batching.max_rows == 8
    assert max(rows_run) == 8


def test_a_rung_that_was_slow_once_is_measured_again() -> None:
    """A machine that is busy for a moment, on the last rungs too, does not make batches smaller for ever."""
    clock = Clock()
    runs: Counter[int] = Counter()

    def seconds(rows: int) -> float:
        runs[rows] += 1
        return 0.001 + 0.0001 * rows + (0.04 if rows >= 16 and runs[rows] <= WARM_RUNS else 0.0)

    assert proved(timed(clock, seconds), bench=Bench(LIMITS, clock)).batching.max_rows == 64


def test_the_ladder_ends_where_a_run_finds_no_memory() -> None:
    """What fitted is the most that is computed together."""

    def large(inputs: Sequence[Array]) -> Sequence[Array]:
        if len(inputs[0]) > 16:
            raise OutOfMemory("no room")
        return [inputs[0]]

    assert proved(large).batching.max_rows == 16


def test_the_ladder_ends_before_a_run_would_take_more_memory_than_it_may() -> None:
    """What the next rung will need is told by those before it; it is not tried."""
    rows_run: list[int] = []

    def hungry(inputs: Sequence[Array]) -> Sequence[Array]:
        rows_run.append(len(inputs[0]))
        scratch = np.ones((len(inputs[0]), 1 << 20), np.float64)  # 8 MiB a row
        return [floats(inputs[0]) + floats(scratch[:, :1])]

    limits = replace(LIMITS, model_memory_bytes=100 << 20)
    proof = proved(hungry, bench=Bench(limits, Clock()))
    assert 2 <= proof.batching.max_rows <= 8
    assert max(rows_run) <= 16


def test_batches_of_free_axes_are_bounded_by_what_a_large_request_takes() -> None:
    """Time and memory were measured for one size; requests of others are counted in bytes."""
    clock = Clock()

    def compute(inputs: Sequence[Array]) -> Sequence[Array]:
        clock.now += inputs[0].nbytes * 1e-7
        return [floats(inputs[0]).sum(axis=1)]

    proof = proved(compute, [spec("x", "FP32", -1, -1)], [spec("y", "FP32", -1)], bench=Bench(LIMITS, clock))
    assert proof.batching.batch_bytes == pytest.approx(0.05 / 1e-7, rel=0.1)
    assert proof.batching.memory_bytes == LIMITS.model_memory_bytes


def test_the_usual_request_has_a_length_that_texts_have() -> None:
    """Of an axis of any length, four elements say little about what a request costs: more are tried."""
    model = FakeModel(Signature("serving_default", (spec("x", "FP32", -1, -1),), (Y,)))
    request = usual_request(model, model.signature, [], Bench(LIMITS, Clock()))
    assert request is not None
    assert [array.shape for array in request] == [(1, 64)]
