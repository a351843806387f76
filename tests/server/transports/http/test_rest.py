"""The HTTP port's routes around a fake model, without a port: codecs, limits, and what hostile callers send."""

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from horngate_protos.datatypes import BY_NAME, BYTES
from horngate_server.core.model import Array
from horngate_server.core.signature import Signature, TensorSpec
from horngate_server.services import openapi
from horngate_server.services.open_inference_metadata import OpenInferenceMetadata
from horngate_server.services.tensorflow_serving_metadata import TensorflowServingMetadata
from horngate_server.transports.access.byte_budget import ByteBudget
from horngate_server.transports.access.gate import Gate
from horngate_server.transports.http import rest
from support.in_process import FakeModel, InProcessServer

MIB = 1 << 20
MOST = 4 * MIB
INFER = "/v2/models/m/infer"
PREDICT = "/v1/models/m:predict"
ROW = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "INT32", "data": [1, 2]}]}

TEXTS = Signature(
    "serving_default",
    (TensorSpec("text", BYTES, (-1,)), TensorSpec("weight", BY_NAME["FP32"], (-1, 2))),
    (
        TensorSpec("echo", BYTES, (-1,)),
        TensorSpec("raw_bytes", BYTES, (-1,)),
        TensorSpec("weighed", BY_NAME["FP32"], (-1, 2)),
    ),
)


class Port:
    """The app of a server with one model."""

    def __init__(self, server: InProcessServer, gate: Gate | None = None) -> None:
        self.memory = ByteBudget(64 * MIB)
        about = OpenInferenceMetadata(
            models=server.models,
            readiness=server.readiness,
            statistics=server.statistics,
            states=list,
            clock=server.clock,
            wall_clock=server.clock,
            admin=False,
        )
        self._app = rest.app(
            server.service.accept,
            about,
            TensorflowServingMetadata(server.models, list),
            gate or Gate(self.memory),
            document=lambda: openapi.document(server.models),
            max_message_bytes=MOST,
        )

    def ask(self, path: str, content: bytes | object = None, **headers: str) -> httpx.Response:
        """Ask: GET without content, POST with it; what is no bytes is sent as JSON."""
        given = content if isinstance(content, bytes | None) else json.dumps(content).encode()

        async def run() -> httpx.Response:
            transport = httpx.ASGITransport(self._app, client=("10.0.0.1", 5))
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                named = {"accept-encoding": "identity"} | {key.replace("_", "-"): each for key, each in headers.items()}
                return await client.request("GET" if given is None else "POST", path, content=given, headers=named)

        return asyncio.run(run())


@pytest.fixture
def port() -> Iterator[Port]:
    """One whose model doubles."""
    with InProcessServer() as server:
        yield Port(server)


def echo(inputs: "list[Array]") -> "list[Array]":
    """Return what came, the strings twice."""
    return [inputs[0], inputs[0], inputs[1]]


@pytest.fixture
def texts() -> Iterator[Port]:
    """One whose model takes strings and numbers."""
    model = FakeModel(TEXTS)
    model.compute = echo  # type: ignore[assignment]
    with InProcessServer(model) as server:
        yield Port(server)


def with_binary(head: dict[str, Any], *behind: bytes) -> tuple[bytes, str]:
    """Return a body with tensors behind its JSON, and the header that says where they begin."""
    text = json.dumps(head).encode()
    return b"".join([text, *behind]), str(len(text))


def test_tensors_come_and_go_behind_the_json(port: Port) -> None:
    """Those that say so, in the order in which they are named; the others are in it."""
    row = {"name": "x", "shape": [2, 2], "datatype": "INT32", "parameters": {"binary_data_size": 16}}
    outputs = [{"name": "total", "parameters": {"binary_data": True}}, {"name": "double"}]
    body, length = with_binary({"inputs": [row], "outputs": outputs}, np.arange(4, dtype="<i4").tobytes())
    answer = port.ask(INFER, body, inference_header_content_length=length)
    assert answer.headers["content-type"] == "application/octet-stream"
    at = int(answer.headers["inference-header-content-length"])
    total, double = json.loads(answer.content[:at])["outputs"]
    assert total == {"name": "total", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}}
    assert double["data"] == [0, 2, 4, 6]
    assert np.frombuffer(answer.content[at:], "<f4").tolist() == [1, 5]


def test_strings_travel_behind_the_json_as_they_do_raw(texts: Port) -> None:
    """Each behind its length; asked for together by one parameter of the request."""
    strings = b"\x02\0\0\0hi\x01\0\0\0\xff"
    inputs = [
        {"name": "text", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": len(strings)}},
        {"name": "weight", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4.5]},
    ]
    body, length = with_binary({"inputs": inputs, "parameters": {"binary_data_output": True}}, strings)
    answer = texts.ask(INFER, body, inference_header_content_length=length)
    behind = answer.content[int(answer.headers["inference-header-content-length"]) :]
    assert behind == strings + strings + np.array([1, 2, 3, 4.5], "<f4").tobytes()


@pytest.mark.parametrize(
    ("size", "behind", "length", "said"),
    [
        pytest.param(8, bytes(7), None, "expected at most the 7 bytes that are left", id="short"),
        pytest.param(8, bytes(9), None, "1 bytes behind the JSON and its tensors", id="long"),
        pytest.param(-8, bytes(8), None, "binary_data_size -8", id="negative"),
        pytest.param(4, bytes(4), None, "expected 8", id="not-the-shapes"),
        pytest.param(8, bytes(8), "99999", "expected at least the 99999 of its JSON", id="header-too-long"),
        pytest.param(8, bytes(8), "-1", "expected how many bytes of JSON", id="header-negative"),
        pytest.param(8, bytes(8), "1_0", "expected how many bytes of JSON", id="header-no-number"),
        pytest.param(8, bytes(8), "0", "not JSON", id="no-json"),
    ],
)
def test_what_is_wrong_with_tensors_behind_the_json_is_said(
    port: Port, size: int, behind: bytes, length: str | None, said: str
) -> None:
    """In a sentence, by 400."""
    row = {"name": "x", "shape": [1, 2], "datatype": "INT32", "parameters": {"binary_data_size": size}}
    body, right = with_binary({"inputs": [row]}, behind)
    answer = port.ask(INFER, body, inference_header_content_length=length or right)
    assert answer.status_code == 400
    assert said in answer.json()["error"]


@pytest.mark.parametrize("path", [INFER, PREDICT])
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_bodies_come_compressed_and_answers_go_so(path: str, encoding: str) -> None:
    """Where the caller takes that, and the answer is long enough to be worth it."""
    rows = np.arange(2000).reshape(1000, 2)
    tensor = {"name": "x", "shape": [1000, 2], "datatype": "INT32", "data": rows.reshape(-1).tolist()}
    body = json.dumps({"inputs": [tensor]} if path == INFER else {"instances": rows.tolist()}).encode()
    packed = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
    with InProcessServer(queue_rows=2000) as server:
        port = Port(server)
        answer = port.ask(path, packed, content_encoding=encoding, accept_encoding=f"br, identity;q=0.1, {encoding}")
        assert answer.headers["content-encoding"] == encoding
        found = answer.json()
        doubled = found["outputs"][0]["data"] if path == INFER else [row["double"] for row in found["predictions"]]
        assert np.array(doubled).reshape(-1).tolist() == (rows.reshape(-1) * 2).tolist()
        refused = port.ask(path, packed, content_encoding=encoding, accept_encoding=f"{encoding};q=0.0")
        assert "content-encoding" not in refused.headers


BOMB = gzip.compress(bytes(MOST + 1))
COMPRESSED: dict[str, tuple[bytes, str, int, str]] = {
    "bomb": (BOMB, "gzip", 413, "expands to more than 4194304 bytes"),
    "bomb-of-zlib": (zlib.compress(bytes(64 * MIB)), "deflate", 413, "expands to more than 4194304 bytes"),
    "not-gzip": (b"{}", "gzip", 400, "not compressed with gzip"),
    "cut": (gzip.compress(json.dumps(ROW).encode())[:-9], "gzip", 400, "cut short"),
    "behind": (gzip.compress(json.dumps(ROW).encode()) + b"x", "gzip", 400, "bytes behind the body's end"),
    "two": (2 * gzip.compress(json.dumps(ROW).encode()), "gzip", 400, "bytes behind the body's end"),
    "empty": (b"", "gzip", 400, "cut short"),
    "unknown": (b"{}", "br", 400, "expected gzip, deflate or none"),
    "twice": (b"{}", "gzip, gzip", 400, "expected gzip, deflate or none"),
}


@pytest.mark.parametrize("path", [INFER, PREDICT, "/v1/models/m:classify"])
@pytest.mark.parametrize("kind", COMPRESSED)
def test_what_is_compressed_wrongly_or_too_well_is_refused(port: Port, path: str, kind: str) -> None:
    """A bomb is not expanded: it ends at the limit of bodies, and its memory is given back."""
    body, encoding, status, said = COMPRESSED[kind]
    answer = port.ask(path, body, content_encoding=encoding)
    assert (answer.status_code, said in answer.json()["error"]) == (status, True), answer.json()
    port.memory.take(64 * MIB)


def test_an_expanding_bodys_memory_is_taken_as_it_grows() -> None:
    """Where none is left it ends, long before the limit of one body; a client's own limits hold as well."""
    with InProcessServer() as server:
        short = ByteBudget(2 * MIB)
        answer = Port(server, Gate(short)).ask(INFER, gzip.compress(b" " * MIB), content_encoding="gzip")
        assert (answer.status_code, "--max-request-bytes" in answer.json()["error"]) == (429, True)
        assert answer.headers["retry-after"] == "1"
        short.take(2 * MIB)
        gate = Gate(ByteBudget(64 * MIB), max_client_bytes=2 * MIB, max_client_requests=1)
        limited = Port(server, gate)
        answer = limited.ask(INFER, gzip.compress(b" " * MIB), content_encoding="gzip")
        assert (answer.status_code, "--max-client-bytes" in answer.json()["error"]) == (429, True)
        whole = gzip.compress(json.dumps(ROW).encode() + b" " * (100 << 10))
        assert limited.ask(INFER, whole, content_encoding="gzip").status_code == 200  # one request, however it grows


def test_predict_of_several_inputs_in_rows_and_in_columns(texts: Port) -> None:
    """Strings as text or base64; outputs whose names end with _bytes are base64 always."""
    rows: list[dict[str, Any]] = [{"text": "hi", "weight": [1, 2.5]}, {"text": {"b64": "/w=="}, "weight": [3, 4]}]
    answer = texts.ask(PREDICT, {"instances": rows})
    assert answer.json()["predictions"] == [
        {"echo": "hi", "raw_bytes": {"b64": "aGk="}, "weighed": [1, 2.5]},
        {"echo": {"b64": "/w=="}, "raw_bytes": {"b64": "/w=="}, "weighed": [3, 4]},
    ]
    columns = {name: [row[name] for row in rows] for name in ("text", "weight")}
    assert texts.ask(PREDICT, {"inputs": columns}).json()["outputs"] == {
        "echo": ["hi", {"b64": "/w=="}],
        "raw_bytes": [{"b64": "aGk="}, {"b64": "/w=="}],
        "weighed": [[1, 2.5], [3, 4]],
    }


def test_predict_writes_what_is_no_number_as_tensorflow_serving_does(texts: Port) -> None:
    """Bare, which Python's parser reads; all other digits are those of a float32."""
    body = b'{"instances": [{"text": "a", "weight": [NaN, 0.1]}, {"text": "b", "weight": [-Infinity, 1e30]}]}'
    answer = texts.ask(PREDICT, body)
    assert b'"weighed": [NaN, 0.1]' in answer.content
    assert b'"weighed": [-Infinity, 1e+30]' in answer.content


ONE_KIND: dict[str, tuple[object, str]] = {
    "mixed": ({"instances": [{"text": "a", "weight": [1, 2]}, "b"]}, "instances[1] has a string"),
    "missing": ({"instances": [{"text": "a"}]}, "instances[0] has the keys text; expected an object with text, weight"),
    "plain": ({"instances": ["a"]}, "expected objects with text, weight"),
    "plain-columns": ({"inputs": ["a"]}, "expected objects with text, weight"),
    "columns-missing": ({"inputs": {"text": ["a"]}}, "expected text, weight"),
    "both": ({"inputs": {}, "instances": []}, "has both of 'inputs' and 'instances'"),
    "ragged": ({"inputs": {"text": ["a"], "weight": [[1], [2, 3]]}}, "inputs.weight: data in lists of unequal lengths"),
    "range": ({"inputs": {"text": ["a"], "weight": [[1, 1e39]]}}, "inputs.weight has 1e+39 among its data"),
    "kind": ({"inputs": {"text": [1], "weight": [[1, 2]]}}, "inputs.text has 1 among its data; expected strings"),
    "base64": ({"inputs": {"text": [{"b64": "?"}], "weight": [[1, 2]]}}, "expected base64"),
    "signature": ({"signature_name": None, "inputs": 1}, "'signature_name' is null; expected a string"),
}


@pytest.mark.parametrize("kind", ONE_KIND)
def test_errors_of_predict_say_where_and_what(texts: Port, kind: str) -> None:
    """The path in the body, what came, what was expected: one object with one member."""
    body, said = ONE_KIND[kind]
    answer = texts.ask(PREDICT, body)
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    assert said in answer.json()["error"]


def test_large_bodies_in_rows_are_read_in_steps(texts: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the Open Inference Protocol: the same comes out, whatever the body's size."""
    body = {"inputs": {"text": ["a", "b"], "weight": [[1, 2], [3, 4.5]]}}
    small = texts.ask(PREDICT, body).content
    monkeypatch.setattr("horngate_server.protocols.json_reader.WHOLE_BYTES", 0)
    monkeypatch.setattr("horngate_server.transports.http.calls.WHOLE_BYTES", 0)
    assert texts.ask(PREDICT, body).content == small


@pytest.mark.parametrize("path", [INFER, PREDICT, "/v1/models/m:classify", "/v1/models/m:regress"])
@pytest.mark.parametrize(
    "junk",
    [b'{"inputs":[' + b'{"a":1},' * 140_000 + b"{}]}", b"[" * 100_000, b'{"examples":[' + b"{}," * 70_000 + b"{}]}"],
    ids=["objects", "deep", "empty-objects"],
)
def test_junk_is_refused_and_its_memory_given_back(port: Port, path: str, junk: bytes) -> None:
    """Whatever comes by these routes too: 400, with a sentence."""
    answer = port.ask(path, junk)
    assert answer.status_code == 400
    assert answer.json()["error"]
    port.memory.take(64 * MIB)


def test_classify_and_regress_read_features_of_every_kind() -> None:
    """Whole numbers, floats, a single value or a list; the context stands for what examples lack."""
    signature = Signature(
        "serving_default",
        (TensorSpec("a", BY_NAME["FP32"], (-1, 2)), TensorSpec("b", BY_NAME["INT64"], (-1,))),
        (TensorSpec("scores", BY_NAME["FP32"], (-1, 2)), TensorSpec("outputs", BY_NAME["FP32"], (-1, 1))),
    )
    model = FakeModel(signature)
    model.compute = lambda inputs: [inputs[0], inputs[1].astype(np.float32).reshape(-1, 1)]
    with InProcessServer(model) as server:
        port = Port(server)
        body = {"context": {"b": 7}, "examples": [{"a": [0.25, 1]}, {"a": [1, 2], "b": [True]}]}
        assert port.ask("/v1/models/m:classify", body).json() == {
            "results": [[["0", 0.25], ["1", 1.0]], [["0", 1.0], ["1", 2.0]]]
        }
        assert port.ask("/v1/models/m:regress", body).json() == {"results": [7.0, 1.0]}
        for wrong, said in (
            ({"examples": 1}, "'examples' is 1; expected an array"),
            ({}, "'examples' is missing"),
            ({"examples": []}, "an empty array"),
            ({"examples": [1]}, "example 0 is 1; expected an object of features"),
            ({"examples": [{"a": [1, "x"]}]}, "feature 'a' has"),
            ({"examples": [{"a": [None]}]}, "feature 'a' has null"),
            ({"examples": [{"b": 1 << 64}]}, "feature 'b' has a number that does not fit"),
        ):
            answer = port.ask("/v1/models/m:classify", wrong)
            assert (answer.status_code, said in answer.json()["error"]) == (400, True), answer.json()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/models/m/versions/x", 400), ("/v1/models/m/versions/99999999999999999999", 400), ("/v1/", 400),
        ("/v1/models/m/labels/3", 400), ("/v1/models/%00", 404), ("/v1/models/m:predict", 404),
        ("/v2/models/m/config", 200), ("/v2/models/nope/config", 404), ("/v2/models/m/stats", 200), ("/v2/nope", 404),
        ("/v2/logging", 501), ("/v2/models/m/trace/setting", 501), ("/openapi.json", 200), ("/openapi", 200),
    ],
)  # fmt: skip
def test_paths_have_their_codes(port: Port, path: str, status: int) -> None:
    """What is not there says so in JSON."""
    answer = port.ask(path)
    assert answer.status_code == status
    assert status == 200 or answer.json()["error"]


@pytest.mark.parametrize("made", [InProcessServer, lambda: InProcessServer(FakeModel(TEXTS))])
def test_the_openapi_document_describes_what_is_served(made: Callable[[], InProcessServer]) -> None:
    """Requests that are as it says are answered; its page has no script, and names are no markup."""
    with made() as server:
        port = Port(server)
        document = port.ask("/openapi.json").json()
        assert document["openapi"] == "3.1.0"
        asked = document["paths"]["/v2/models/m/infer"]["post"]["requestBody"]["content"]["application/json"]["schema"]
        described = asked["properties"]["inputs"]["items"]
        tensors = described.get("anyOf", [described])
        names = {each["properties"]["name"]["const"]: each["properties"]["datatype"]["const"] for each in tensors}
        assert names == {spec.name: spec.datatype.name for spec in server.info.signature.inputs}
        assert {"/v1/models/m:predict", "/v1/models/m:classify", "/v1/models/m"} <= document["paths"].keys()
        page = port.ask("/openapi")
        assert "/v1/models/m:predict" in page.text
        assert "<script" not in page.text
        assert page.headers["content-security-policy"].startswith("default-src 'none'")
