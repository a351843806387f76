"""Strings (BYTES) in the client, and models that take each request as a whole."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from client.fake_server import FakeServer, serve
from horngate_client import Client
from horngate_client.cli import main
from horngate_client.codec import RequestEncoder, decode
from horngate_client.errors import ConversionError
from horngate_client.signature import TensorSpec
from horngate_client.tensors import convert
from horngate_protos import open_inference_pb2 as oip

WORDS = TensorSpec("words", "BYTES", (-1, 2))
ROWS = st.lists(st.lists(st.text(max_size=9) | st.binary(max_size=9), min_size=2, max_size=2), min_size=1, max_size=9)


def encoded(rows: list[list[Any]]) -> list[list[bytes]]:
    """Return what is expected to travel for strings as callers write them."""
    return [[item.encode() if isinstance(item, str) else item for item in row] for row in rows]


@given(ROWS)
def test_strings_travel_as_tritons_client_sends_and_reads_them(rows: list[list[str | bytes]]) -> None:
    """Text as UTF-8 and bytes as they are, zeros at the end too; read back by tritonclient, and from it."""
    array = convert(rows, WORDS)
    message = oip.ModelInferRequest.FromString(RequestEncoder("m", "", [WORDS]).encode({"words": array}))
    assert [(each.datatype, list(each.shape)) for each in message.inputs] == [("BYTES", [len(rows), 2])]
    [raw] = message.raw_input_contents
    assert raw == serialize_byte_tensor(np.array(encoded(rows), object)).item()
    assert deserialize_bytes_tensor(raw).reshape(-1, 2).tolist() == encoded(rows)
    answer = oip.ModelInferResponse(raw_output_contents=[raw])
    answer.outputs.add(name="y", datatype="BYTES", shape=array.shape)
    assert decode(answer.SerializeToString()).outputs["y"].tolist() == encoded(rows)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([["good", "ö"]], id="lists"),
        pytest.param(np.array([["good", "ö"]]), id="U"),
        pytest.param(np.array([[b"good", "ö".encode()]]), id="S"),
        pytest.param(np.array([["good", "ö".encode()]], object), id="object"),
        pytest.param([np.array(["good", "ö"])], id="list-of-arrays"),
    ],
)
def test_every_kind_of_array_of_strings_is_taken(values: Any) -> None:
    """They all become one array of bytes."""
    assert convert(values, WORDS).tolist() == [[b"good", "ö".encode()]]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        pytest.param([["a", 1]], "takes strings or bytes .BYTES., not int", id="number"),
        pytest.param([["a", None]], "not NoneType", id="none"),
        pytest.param([["a", "\ud800"]], "a string that is no text", id="half-a-character"),
        pytest.param(["a", "b"], r"shape \[2\]; the model takes words: BYTES \[-1, 2\]", id="shape"),
    ],
)
def test_what_is_no_string_is_refused(values: Any, said: str) -> None:
    """With what came."""
    with pytest.raises(ConversionError, match=said):
        convert(values, WORDS)


def test_a_model_that_takes_requests_whole_gets_them_whole() -> None:
    """Its rows look at each other: they are never sent in parts, and the server judges how many there may be."""
    specs = (("a", "FP32", (-1, 2)), ("b", "FP32", (-1, 2)))
    fake = FakeServer(specs, (("y", "FP32", (-1, 2)),), lambda arrays: {"y": arrays["a"]}, batching="whole")
    with serve(fake) as server:
        inputs = {"a": np.ones((9, 2), np.float32), "b": np.ones((3, 2), np.float32)}
        with Client(server.address, rows_per_request=2) as client:
            assert client.infer(inputs)["y"].shape == (9, 2)
        assert server.count() == 1
        server.inputs, server.batching = specs[:1], "rows"
        with Client(server.address, rows_per_request=2) as client:
            assert client.infer({"a": inputs["a"]})["y"].shape == (9, 2)
        assert server.count() == 6


def test_an_input_of_any_number_of_axes_takes_every_array() -> None:
    """The protocol has one word for a vector and for any shape: where requests go whole, the server knows."""
    fake = FakeServer(
        (("x", "FP32", (-1,)),), (("y", "FP32", (-1,)),), lambda arrays: {"y": arrays["x"]}, batching="whole"
    )
    with serve(fake) as server, Client(server.address) as client:
        for shape in ((), (3,), (2, 3)):
            assert client.infer({"x": np.zeros(shape, np.float32)})["y"].shape == shape
        server.batching = ""
        client.model(refresh=True)
        with pytest.raises(ConversionError, match=r"x has the shape \[2, 3\]"):
            client.infer({"x": np.zeros((2, 3), np.float32)})


@pytest.fixture
def words(tmp_path: Path) -> str:
    """An .npz with two strings for a model."""
    np.savez(tmp_path / "words.npz", x=np.array(["good", "ö"]))
    return str(tmp_path / "words.npz")


def echo(**changes: Any) -> FakeServer:
    """Return a server whose model gives its strings back, and a byte that is no text, and no numbers."""

    def model(arrays: Any) -> Any:
        label = np.append(arrays["x"], [b"\xff"])
        return {"label": label, "score": np.array([0.5, np.nan, -np.inf], np.float32)}

    return FakeServer((("x", "BYTES", (-1,)),), (("label", "BYTES", (-1,)), ("score", "FP32", (-1,))), model, **changes)


def test_infer_prints_strings_that_people_can_read(words: str, capsys: Any) -> None:
    """Text in quotes, base64 for what is no UTF-8; types and shapes before the values."""
    with serve(echo(batching="whole")) as server:
        assert main(["--server", server.address, "infer", words]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "label: BYTES [3]", '["good" "ö" {"b64": "/w=="}]', "score: float32 [3]", "[ 0.5  nan -inf]",
    ]  # fmt: skip


def test_infer_prints_json_and_reads_standard_input(words: str, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Valid JSON, whatever the values."""
    stdin = io.TextIOWrapper(io.BytesIO(Path(words).read_bytes()))
    monkeypatch.setattr(sys, "stdin", stdin)
    with serve(echo(batching="whole")) as server:
        assert main(["--server", server.address, "infer", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "model": "mnist",
        "outputs": {"label": ["good", "ö", {"b64": "/w=="}], "score": [0.5, "NaN", "-Infinity"]},
    }


@pytest.mark.parametrize("kind", ["objects", "text", "missing"])
def test_infer_says_what_is_wrong_with_a_file(kind: str, tmp_path: Path, capsys: Any) -> None:
    """Nothing is unpickled."""
    path = tmp_path / "x.npz"
    match kind:
        case "objects":
            np.savez(path, x=np.array(["a"], object))
        case "text":
            path.write_text("x")
    assert main(["infer", str(path)]) == 2
    said = {"objects": "an array of the type S or U", "missing": "No such file"}
    assert said.get(kind, "cannot be read as .npz") in capsys.readouterr().err
