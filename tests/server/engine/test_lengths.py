"""Requests of different lengths in one run: padded to the longest, and everyone gets what is theirs."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from horngate_protos.datatypes import BY_NAME
from horngate_server.core.errors import InputRefused
from horngate_server.core.inference import Outputs
from horngate_server.core.model import Array
from horngate_server.core.padding import Padding
from horngate_server.core.signature import Batching, Signature, TensorSpec
from support.in_process import FakeModel, FakeReply, InProcessServer

SIGNATURE = Signature(
    "serving_default",
    (TensorSpec("x", BY_NAME["INT32"], (-1, -1)),),
    (TensorSpec("double", BY_NAME["INT64"], (-1, -1)), TensorSpec("total", BY_NAME["FP32"], (-1,))),
)
PADDING = Padding(axes=(1,), values=(0,), cut=((1,), ()), guarded=frozenset(), masks=frozenset(), longest=16, steps=1)


def serving(padding: Padding = PADDING, rows: int = 8) -> InProcessServer:
    """A server whose model's requests may be padded."""
    return InProcessServer(FakeModel(SIGNATURE), batching=Batching(padding=padding), max_batch_rows=rows, pad=False)


def together(server: InProcessServer, requests: Sequence[object]) -> list[FakeReply]:
    """Let requests meet in the line."""
    server.hold()
    replies = [server.ask(x) for x in requests]
    server.model.gate.set()
    return replies


def shapes(server: InProcessServer) -> list[tuple[int, ...]]:
    """What ran after the first one, which held the model."""
    return [array.shape for array in server.model.ran[1:]]


def test_requests_of_different_lengths_share_a_run_and_get_their_own() -> None:
    """The run is as long as its longest; an output with that axis is cut back, others are as they are."""
    with serving() as server:
        replies = together(server, [[[1, 2, 3]], [[4, 5], [6, 7]], [[8]]])
        assert [reply.output("double").tolist() for reply in replies] == [[[2, 4, 6]], [[8, 10], [12, 14]], [[16]]]
        assert [reply.output("total").tolist() for reply in replies] == [[6.0], [9.0, 13.0], [8.0]]
        assert server.model.ran[1].tolist() == [[1, 2, 3], [4, 5, 0], [6, 7, 0], [8, 0, 0]]


def test_lengths_that_are_far_apart_do_not_share_a_run() -> None:
    """From one step of the ladder to the next, and beyond what was seen, requests wait for those like them."""
    with serving() as server:
        replies = together(server, [np.ones((1, length)) for length in (8, 9, 16, 17, 18)])
        assert [reply.output("total").tolist() for reply in replies] == [[8.0], [9.0], [16.0], [17.0], [18.0]]
        assert shapes(server) == [(1, 8), (2, 16), (1, 17), (1, 18)]


def test_an_empty_row_is_run_at_its_own_length_where_padding_would_change_it() -> None:
    """It is computed beside the others' run; one as long as the longest needs no padding, and stays."""
    with serving(replace(PADDING, guarded=frozenset([0]))) as server:
        replies = together(server, [[[1, 2, 3]], [[0, 0]], [[0, 0, 0]], [[5, 0]]])
        assert [reply.output("double").tolist() for reply in replies] == [[[2, 4, 6]], [[0, 0]], [[0] * 3], [[10, 0]]]
        assert shapes(server) == [(3, 3), (1, 2)]


def test_a_mask_with_other_numbers_than_were_seen_is_not_padded() -> None:
    """A proof with 0 and 1 says nothing about 2."""
    with serving(replace(PADDING, masks=frozenset([0]))) as server:
        replies = together(server, [[[1, 0, 1]], [[1, 2]], [[1, 1]]])
        assert [reply.status() for reply in replies] == ["OK"] * 3
        assert shapes(server) == [(2, 3), (1, 2)]


def test_a_large_request_shares_its_batches_with_those_of_other_lengths() -> None:
    """Its parts are padded and cut like anybody's, and put together again."""
    with serving(rows=4) as server:
        x = np.arange(1, 21).reshape(10, 2)
        large, small = together(server, [x, [[7, 7, 7, 7]]])
        assert large.output("double").tolist() == (2 * x).tolist()
        assert large.output("total").tolist() == x.sum(1).tolist()
        assert small.output("double").tolist() == [[14] * 4]


def test_an_output_that_is_not_as_long_as_it_was_while_loading_harms_nobody() -> None:
    """Then nobody knows what to cut: the requests are computed apart."""

    def shortened(inputs: Sequence[Array]) -> Sequence[Array]:
        x = inputs[0].astype(np.int64)
        return [x[:, :2] * 2, x.sum(1).astype(np.float32)]

    with serving() as server:
        server.model.compute = shortened
        replies = together(server, [[[1, 2, 3]], [[4, 5]]])
        assert [reply.output("double").tolist() for reply in replies] == [[[2, 4]], [[8, 10]]]


def test_a_request_that_is_refused_for_its_length_is_refused_alone() -> None:
    """Its neighbours, which were padded to that, get answers."""

    def bounded(inputs: Sequence[Array]) -> Sequence[Array]:
        if inputs[0].shape[1] > 4:
            raise InputRefused("no such position")
        return [inputs[0].astype(np.int64) * 2, inputs[0].sum(1).astype(np.float32)]

    with serving() as server:
        server.model.compute = bounded
        replies = together(server, [[[1, 2, 3]], [[1] * 5], [[4]]])
        assert [reply.status() for reply in replies] == ["OK", "INVALID_ARGUMENT", "OK"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 20)), min_size=1, max_size=12), st.sampled_from([1, 2, 4]))
def test_whatever_lengths_meet_everyone_gets_their_own(sizes: list[tuple[int, int]], steps: int) -> None:
    """Rows and lengths of all kinds, in any order."""
    with serving(replace(PADDING, steps=steps), rows=4) as server:
        asked = [np.arange(1, rows * length + 1).reshape(rows, length) for rows, length in sizes]
        for x, reply in zip(asked, together(server, asked), strict=True):
            assert reply.output("double").tolist() == (2 * x).tolist()
            assert reply.output("total").tolist() == x.sum(1).tolist()


@pytest.mark.parametrize(("steps", "rungs"), [(1, [8, 8, 16, 32]), (4, [8, 8, 10, 20])])
def test_the_ladder_of_lengths(steps: int, rungs: list[int]) -> None:
    """Powers of two, or finer where padding costs more."""
    padding = replace(PADDING, longest=1000, steps=steps)
    assert [padding.rung(length) for length in (1, 8, 9, 18)] == rungs
    assert padding.rung(999) == 1000


def test_strings_are_cut_like_numbers() -> None:
    """An output of strings with the axis of the inputs."""
    data = [b"a", b"b", b"", b"c", b"", b""]
    outputs = Outputs([(3,)], [data], [3], uniform=False, lengths=[2, 1], cut=[(1,)])
    assert [outputs.rows(row, row + 1) for row in (0, 1)] == [[[b"a", b"b"]], [[b"c"]]]
    assert outputs.shapes_of(1, 1) == [(1, 1)]
