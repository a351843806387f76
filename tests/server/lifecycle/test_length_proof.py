"""Whether requests of different lengths may be padded is found out by running: against functions of NumPy."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from horngate_protos.datatypes import BY_NAME
from horngate_server.core.errors import InputRefused
from horngate_server.core.model import Array
from horngate_server.core.padding import Padding
from horngate_server.core.settings import Limits
from horngate_server.core.signature import ROWS, Batching, Signature, TensorSpec
from horngate_server.lifecycle import batching_proof, length_proof
from horngate_server.lifecycle.batching_proof import Bench, prove
from support.in_process import Clock, FakeModel

LIMITS = Limits(max_batch_rows=16, queue_rows=1000, max_queue_delay_s=0.0)
TABLE = np.random.default_rng(5).standard_normal((200, 6))
"""What token ids stand for; nothing above 199."""
Numbers = Any


def spec(name: str, datatype: str, *shape: int) -> TensorSpec:
    """Describe a tensor."""
    return TensorSpec(name, BY_NAME[datatype], shape)


IDS = spec("ids", "INT32", -1, -1)
X = spec("x", "FP32", -1, -1, 3)
POOLED = spec("y", "FP32", -1, 6)


def batched(
    compute: Callable[..., object],
    inputs: Sequence[TensorSpec] = (IDS,),
    outputs: Sequence[TensorSpec] = (POOLED,),
    *,
    lengths: str = "auto",
    recorded: Sequence[Sequence[Array]] = (),
) -> Batching:
    """Prove a model that computes this from its inputs; a tuple of several outputs."""
    model = FakeModel(Signature("serving_default", tuple(inputs), tuple(outputs)))

    def run(given: Sequence[Array]) -> Sequence[Array]:
        found = compute(*given)
        return [
            np.asarray(each).astype(spec.datatype.numpy)
            for each, spec in zip(found if isinstance(found, tuple) else (found,), outputs, strict=True)
        ]

    model.compute = run
    return prove(model, model.signature, recorded, Bench(LIMITS, Clock(), lengths=lengths)).batching


def looked_up(ids: Numbers) -> Numbers:
    """The vectors of tokens; others than there are, are refused."""
    if ids.size and (ids.min() < 0 or ids.max() >= len(TABLE)):
        raise InputRefused("ids are out of range")
    return TABLE[ids]


def masked_mean(ids: Numbers, mask: Numbers | None = None) -> Numbers:
    """The mean over the tokens that count; 0 where none does."""
    there = (ids != 0 if mask is None else mask.astype(float))[..., None]
    return (looked_up(ids) * there).sum(1) / np.maximum(there.sum(1), 1)


def attended(ids: Numbers, mask: Numbers) -> Numbers:
    """A softmax over all tokens, of which the mask leaves out some by a large negative number."""
    vectors = looked_up(ids)
    scores = np.where(mask.astype(bool), vectors[..., 0], -1e9)
    weights = np.exp(scores - scores.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    return (weights[..., None] * (vectors + np.arange(ids.shape[1])[:, None])).sum(1)


def remembered(ids: Numbers) -> Numbers:
    """A loop over the tokens that stops at those that are 0."""
    state = np.zeros((len(ids), 6))
    for step in range(ids.shape[1]):
        state = np.where((ids[:, step] != 0)[:, None], np.tanh(state * 0.7 + looked_up(ids[:, step])), state)
    return state


def causal(x: Numbers) -> Numbers:
    """Each place has the sum of what came before it."""
    return np.cumsum(x, axis=1)


def bounded(most: int) -> Callable[[Numbers], Numbers]:
    """A masked mean that has positions for so many tokens."""

    def compute(ids: Numbers) -> Numbers:
        if ids.shape[1] > most:
            raise InputRefused("no such position")
        return masked_mean(ids)

    return compute


@pytest.fixture(autouse=True)
def no_long_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time stands still here, so that lengths would be tried up to thousands."""
    monkeypatch.setattr(length_proof, "LENGTHS", (16, 32, 64, 128))
    monkeypatch.setattr(batching_proof, "LARGER", (32, 64))


def padding_of(batching: Batching) -> Padding:
    """How it may be padded; that it may."""
    assert batching.padding is not None, batching.lengths
    return batching.padding


@pytest.mark.parametrize("compute", [masked_mean, remembered], ids=["masked-mean", "masked-loop"])
def test_a_mask_value_lets_requests_be_padded(compute: Callable[..., object]) -> None:
    """What leaves out the token 0 by itself is padded with it, and its report says so."""
    batching = batched(compute)
    assert (padding_of(batching).axes, padding_of(batching).values) == ((1,), (0,))
    assert padding_of(batching).longest == 128
    assert str(batching).endswith("lengths padded up to 128 (padding with 0 changed nothing)")


@pytest.mark.parametrize("datatype", ["INT32", "FP32", "BOOL"])
def test_a_mask_that_is_an_input_is_padded_with_what_does_not_count(datatype: str) -> None:
    """Ids and a mask of the same length: both get zeros."""
    batching = batched(masked_mean, [IDS, spec("attention_mask", datatype, -1, -1)])
    assert padding_of(batching).values == (0, 0)
    assert padding_of(batching).masks == (frozenset() if datatype == "BOOL" else frozenset([1]))


def test_a_mask_that_says_what_does_not_count_is_not_trusted() -> None:
    """Where 1 means to ignore, zeros would be seen."""
    inverted = spec("mask", "INT32", -1, -1)
    assert batched(lambda ids, mask: attended(ids, 1 - mask), [IDS, inverted]).padding is None


def test_a_row_of_nothing_but_padding_is_kept_apart_where_it_matters() -> None:
    """A softmax over nothing is one over everything: the padding is seen then. A masked mean of nothing is 0."""
    mask = spec("mask", "BOOL", -1, -1)
    assert padding_of(batched(attended, [IDS, mask])).guarded == frozenset([1])
    assert padding_of(batched(masked_mean, [IDS, mask])).guarded == frozenset()


def test_another_mask_value_than_0_is_found() -> None:
    """-1 leaves out numbers where 0 does not."""

    def masked(x: Numbers) -> Numbers:
        return np.where((x != -1).any(-1, keepdims=True), x, 0).sum(1)

    def counted(x: Numbers) -> Numbers:
        return masked(x) + (x != -1).any(-1).sum(1, keepdims=True)

    assert padding_of(batched(masked, [X], [spec("y", "FP32", -1, 3)])).values == (0,)  # a sum does not see zeros
    assert padding_of(batched(counted, [X], [spec("y", "FP32", -1, 3)])).values == (-1,)


@pytest.mark.parametrize(
    "compute",
    [
        pytest.param(lambda ids: looked_up(ids).mean(1), id="mean-over-all"),
        pytest.param(lambda ids: looked_up(ids).max(1), id="largest-of-all"),
        pytest.param(lambda ids: looked_up(ids)[:, -1], id="the-last-token"),
        pytest.param(lambda ids: looked_up(ids).sum(1) / 10, id="sum-over-all"),
        pytest.param(lambda ids: masked_mean(ids) + ids.shape[1] / 10, id="the-length"),
        pytest.param(lambda ids: masked_mean(ids) * (1 if ids.shape[1] < 100 else 2), id="another-when-it-is-long"),
        pytest.param(lambda ids: masked_mean(ids) * (1 if ids.max() < 150 else ids.shape[1]), id="rare-tokens"),
        pytest.param(lambda ids: masked_mean(ids[:, ::-1]) + looked_up(ids[:, -1]) / 5, id="reversed"),
        pytest.param(lambda ids: masked_mean(ids) + (ids == 0).sum(1)[:, None], id="counts-the-zeros"),
        pytest.param(lambda ids: np.sign(masked_mean(ids)), id="decisions-as-numbers"),
    ],
)
def test_a_model_that_sees_the_padding_is_grouped_by_length(compute: Callable[[Numbers], object]) -> None:
    """Requests of other lengths stay apart, whatever it is that looks at them; rows of one length are batched."""
    batching = batched(compute)
    assert (batching.mode, batching.padding) == (ROWS, None)
    assert batching.lengths


def test_decisions_show_nothing() -> None:
    """A class that stays the same says little about what padding does to the numbers behind it."""
    batching = batched(lambda ids: looked_up(ids).sum(1).argmax(1), outputs=[spec("class", "INT64", -1)])
    assert (batching.padding, batching.mode) == (None, ROWS)
    assert "no floating-point numbers" in batching.lengths


def test_a_length_that_is_an_input_is_not_trusted() -> None:
    """It may be greater than what came: padding would count then."""

    def until(ids: Numbers, count: Numbers) -> Numbers:
        there = np.arange(ids.shape[1]) < count[:, None]
        return (looked_up(ids) * there[..., None]).sum(1)

    assert batched(until, [IDS, spec("count", "INT32", -1)]).padding is None


def test_outputs_as_long_as_the_inputs_are_cut_back() -> None:
    """An axis that follows the inputs' is known by its lengths; so are both of a table of pairs."""
    pairs = lambda x: (causal(x), np.tril(x @ x.transpose(0, 2, 1)), x[:, 0])  # noqa: E731
    outputs = [spec("each", "FP32", -1, -1, 3), spec("pairs", "FP32", -1, -1, -1), spec("first", "FP32", -1, 3)]
    assert padding_of(batched(pairs, [X], outputs)).cut == ((1,), (1, 2), ())


def test_outputs_that_follow_the_length_in_another_way_keep_requests_apart() -> None:
    """Every other place: nobody can say where the padding's answers begin."""
    batching = batched(lambda x: causal(x)[:, ::2], [X], [spec("y", "FP32", -1, -1, 3)])
    assert batching.lengths == "output 'y' is neither as long as the inputs nor always of one length"


def test_what_looks_ahead_keeps_requests_apart() -> None:
    """A place that sees the one behind it sees the padding."""
    ahead = lambda x: np.cos(x) + np.concatenate([x[:, 1:], x[:, -1:]], 1)  # noqa: E731
    assert batched(ahead, [X], [spec("y", "FP32", -1, -1, 3)]).padding is None


def test_a_model_of_bounded_length_is_padded_up_to_that() -> None:
    """It has positions for 100 tokens: the greatest length is found, and nobody is padded beyond."""
    padding = padding_of(batched(bounded(100)))
    assert (padding.longest, padding.rung(65), padding.length([(101,)])) == (100, 100, None)


def test_several_free_axes_are_left_alone() -> None:
    """Of images with free height and width, only equal ones share runs."""
    batching = batched(lambda x: x.sum((1, 2)), [spec("x", "FP32", -1, -1, -1, 3)], [spec("y", "FP32", -1, 3)])
    assert (batching.padding, batching.lengths) == (None, "input 'x' has 2 axes of any length")


def test_without_a_free_axis_nothing_is_said() -> None:
    """The question does not arise."""
    batching = batched(lambda x: x * 2, [spec("x", "FP32", -1, 4)], [spec("y", "FP32", -1, 4)])
    assert (batching.padding, batching.of_lengths) == (None, "")


def test_the_operator_may_overrule() -> None:
    """What was not proved is padded, and what was is not; the shapes of outputs must still be known."""
    mean = lambda ids: looked_up(ids).mean(1)  # noqa: E731
    assert padding_of(batched(mean, lengths="padded")).values == (0,)
    assert str(batched(masked_mean, lengths="apart")).endswith("lengths apart (asked for)")
    assert batched(lambda x: x[:, ::2], [X], [spec("y", "FP32", -1, -1, 3)], lengths="padded").padding is None


def test_recorded_rows_are_tried_too() -> None:
    """A token that nobody would guess shows that padding is seen."""
    odd = lambda ids: masked_mean(ids) * np.where((ids == 123).any(1), ids.shape[1], 1)[:, None]  # noqa: E731
    row = np.array([[123, 4, 9, 8, 123, 7, 9, 10]], np.int32)
    assert batched(odd, recorded=[[row], [row + 1], [row + 2], [row + 3]]).padding is None
