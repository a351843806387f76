"""A request against a signature, alone."""

from dataclasses import replace
from typing import Any

import pytest

from horngate_protos.datatypes import BY_NAME
from horngate_server.core.errors import InvalidRequest, MessageTooLarge
from horngate_server.core.inference import Header, InferenceRequest, InputHeader, ModelInfo
from horngate_server.core.signature import WHOLE, Batching, Growth, Signature, TensorSpec
from horngate_server.engine.validation import arrange, plan

SIGNATURE = Signature(
    "serving_default",
    (TensorSpec("flag", BY_NAME["BOOL"], (-1,)), TensorSpec("image", BY_NAME["UINT8"], (-1, 2, -1))),
    (TensorSpec("score", BY_NAME["FP32"], (-1,)),),
)
INFO = ModelInfo("m", "1", SIGNATURE)
FLAG = InputHeader("flag", "BOOL", (3,))
IMAGE = InputHeader("image", "UINT8", (3, 2, 5))


def header(*inputs: InputHeader, outputs: tuple[str, ...] = ()) -> Header:
    """Make a header for the model m."""
    return Header("m", "", inputs, outputs)


def test_a_fitting_request_is_planned_in_the_signatures_order() -> None:
    """Inputs may come in any order; rows, sizes and shapes follow the signature."""
    planned = plan(header(IMAGE, FLAG), INFO, 10)
    assert (planned.rows, planned.order, planned.sizes, planned.shapes) == (3, (1, 0), (3, 30), ((), (2, 5)))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        pytest.param(header(FLAG), r"expected the inputs \['flag', 'image'\]; came \['flag'\]", id="missing"),
        pytest.param(header(FLAG, IMAGE, InputHeader("x", "BOOL", (3,))), r"came .*'x'\]", id="extra"),
        pytest.param(header(FLAG, IMAGE, IMAGE), "expected the inputs", id="twice"),
        pytest.param(header(), r"came \[\]", id="none"),
        pytest.param(header(FLAG, InputHeader("image", "FP32", (3, 2, 5))), "'FP32'; expected UINT8", id="datatype"),
        pytest.param(
            header(FLAG, InputHeader("image", "", (3, 2, 5))), "datatype ''; expected UINT8", id="no-datatype"
        ),
        pytest.param(
            header(FLAG, InputHeader("image", "UINT8", (3, 2))), r"\[3, 2\]; expected \[-1, 2, -1\]", id="rank"
        ),
        pytest.param(header(FLAG, InputHeader("image", "UINT8", (3, 4, 5))), r"\[3, 4, 5\]; expected", id="axis"),
        pytest.param(header(FLAG, InputHeader("image", "UINT8", (3, 2, -1))), r"\[3, 2, -1\]", id="negative"),
        pytest.param(header(FLAG, InputHeader("image", "UINT8", (-3, 2, 1))), r"\[-3, 2, 1\]", id="negative-rows"),
        pytest.param(
            header(InputHeader("flag", "BOOL", (0,)), InputHeader("image", "UINT8", (0, 2, 5))), "no rows", id="empty"
        ),
        pytest.param(header(FLAG, IMAGE, outputs=("nope",)), r"out of \['score'\]; came \['nope'\]", id="output"),
        pytest.param(header(FLAG, IMAGE, outputs=("score", "score")), "expected outputs", id="output-twice"),
        pytest.param(
            header(InputHeader("flag", "BOOL", (11,)), InputHeader("image", "UINT8", (11, 2, 1))),
            r"11 rows in one request; expected at most 10",
            id="too-many-rows",
        ),
        pytest.param(
            header(FLAG, InputHeader("image", "UINT8", (3, 2, 2**62))),
            "no axis longer than 2147483647",
            id="astronomic",
        ),
        pytest.param(
            header(InputHeader("flag", "BOOL", (0,)), InputHeader("image", "UINT8", (0, 2, 2**30))),
            "no elements; expected a product of its other axes of at most 1048576",
            id="astronomic-and-empty",
        ),
    ],
)
def test_a_request_that_does_not_fit_says_what_was_expected_and_what_came(asked: Header, said: str) -> None:
    """Names, datatypes, shapes and rows are checked against the signature."""
    with pytest.raises(InvalidRequest, match=said):
        plan(asked, INFO, 10)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        pytest.param(
            (b"\0" * 3, b"\0" * 29), r"'image' has 29 bytes; expected 30 for the shape \[3, 2, 5\]", id="short"
        ),
        pytest.param((b"\0" * 4, b"\0" * 30), "'flag' has 4 bytes; expected 3", id="long"),
        pytest.param((b"\0\1\2", b"\0" * 30), "'flag' is BOOL; expected bytes 0 or 1", id="bool"),
    ],
)
def test_bytes_must_fill_the_shape(data: Any, said: str) -> None:
    """Too few, too many or impossible bytes are refused before they meet a batch."""
    asked = header(FLAG, IMAGE)
    with pytest.raises(InvalidRequest, match=said):
        arrange(InferenceRequest(asked, "", data), plan(asked, INFO, 10))


def test_inputs_with_different_numbers_of_rows_are_for_the_model_to_judge() -> None:
    """Such a request has a run of its own, with its shapes as they came."""
    planned = plan(header(InputHeader("flag", "BOOL", (2,)), IMAGE), INFO, 10)
    assert planned.whole
    assert planned.shapes == ((2,), (3, 2, 5))


def test_a_request_of_a_whole_signature_keeps_its_shapes_and_may_have_no_rows() -> None:
    """One request, one run: scalars, fixed first axes and empty ones go to the model as they are."""
    signature = Signature(
        "serving_default",
        (TensorSpec("x", BY_NAME["FP32"], (-1, 2)), TensorSpec("training", BY_NAME["BOOL"], ())),
        (TensorSpec("loss", BY_NAME["FP32"], ()),),
    )
    info = ModelInfo("m", "1", signature, batching=Batching(WHOLE, "asked for"))
    planned = plan(header(InputHeader("x", "FP32", (0, 2)), InputHeader("training", "BOOL", ())), info, 10)
    assert (planned.whole, planned.rows, planned.shapes) == (True, 1, ((0, 2), ()))


def test_a_tensor_of_unknown_rank_takes_any_axes() -> None:
    """Where a signature says nothing about the shape, nothing is refused for it."""
    signature = Signature("s", (TensorSpec("x", BY_NAME["FP32"], None),), (TensorSpec("y", BY_NAME["FP32"], None),))
    info = ModelInfo("m", "1", signature, batching=Batching(WHOLE, "x has no batch axis"))
    assert plan(header(InputHeader("x", "FP32", (2, 1, 3))), info, 10).shapes == ((2, 1, 3),)


def test_only_requests_of_one_shape_share_a_batch() -> None:
    """Rows of different widths are never padded to each other, nor joined."""
    plans = [plan(header(FLAG, InputHeader("image", "UINT8", (3, 2, width))), INFO, 10) for width in (5, 6, 5)]
    assert plans[0].alike == plans[2].alike != plans[1].alike


def test_a_request_that_would_take_too_much_memory_is_refused_before_it_runs() -> None:
    """What runs of the model were seen to need bounds what a request may bring."""
    info = replace(INFO, batching=Batching(memory=Growth(100.0), memory_bytes=1000))
    with pytest.raises(MessageTooLarge, match=r"11 bytes of inputs is likely to need 1100 .* at most 1000 \(--model-m"):
        plan(header(FLAG, InputHeader("image", "UINT8", (3, 2, 5))), info, 10)


def test_what_grows_faster_than_its_input_is_bounded_by_how_it_grows() -> None:
    """Where everything is compared with everything, ten times the length is a hundred times the memory."""
    growth = Growth(100.0, power=2.0, beyond=1000)
    assert (growth.of(500), growth.of(1000), growth.of(10_000)) == (50_000.0, 100_000.0, 10_000_000.0)


def test_an_answer_that_no_message_can_carry_is_refused_before_it_is_computed() -> None:
    """Its size is known from the rows that were tried while loading."""
    info = replace(INFO, batching=Batching(row_bytes=2.0**30))
    with pytest.raises(MessageTooLarge, match="the answer would have about 3221225472 bytes"):
        plan(header(FLAG, IMAGE), info, 10)


def test_the_batches_of_inputs_with_free_axes_are_bounded_in_bytes() -> None:
    """Larger rows share a run with fewer others; and one row always has its run."""
    info = replace(INFO, batching=Batching(max_rows=64, batch_bytes=1100.0))
    rows = [
        plan(header(FLAG, InputHeader("image", "UINT8", (3, 2, width))), info, 10).max_rows for width in (5, 50, 5000)
    ]
    assert rows == [64, 10, 1]
