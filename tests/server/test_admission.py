"""A request against a signature, alone."""

from typing import Any

import pytest

from horngate_protos.datatypes import BY_NAME
from horngate_server.admission import arrange, plan
from horngate_server.errors import InvalidRequest
from horngate_server.request import Header, InferenceRequest, InputHeader, ModelInfo
from horngate_server.signature import Signature, TensorSpec

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
        pytest.param(header(InputHeader("flag", "BOOL", (0,)), IMAGE), "no rows", id="empty"),
        pytest.param(header(InputHeader("flag", "BOOL", (2,)), IMAGE), "has 3 rows and 'flag' has 2", id="rows-differ"),
        pytest.param(header(FLAG, IMAGE, outputs=("nope",)), r"out of \['score'\]; came \['nope'\]", id="output"),
        pytest.param(header(FLAG, IMAGE, outputs=("score", "score")), "expected outputs", id="output-twice"),
        pytest.param(
            header(InputHeader("flag", "BOOL", (11,)), InputHeader("image", "UINT8", (11, 2, 1))),
            r"11 rows in one request; expected at most 10",
            id="too-many-rows",
        ),
        pytest.param(
            header(FLAG, InputHeader("image", "UINT8", (3, 2, 2**62))), None, id="astronomic-shape-is-a-matter-of-bytes"
        ),
    ],
)
def test_a_request_that_does_not_fit_says_what_was_expected_and_what_came(asked: Header, said: str | None) -> None:
    """Names, datatypes, shapes and rows are checked against the signature."""
    if said is None:
        planned = plan(asked, INFO, 10)
        with pytest.raises(InvalidRequest, match="expected 27670116110564327424 for the shape"):
            arrange(InferenceRequest(asked, "", (b"\0" * 3, b"")), planned)
        return
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
