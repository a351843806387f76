"""The Open Inference Protocol in JSON."""

import json
import tracemalloc

import numpy as np
import pytest

from horngate_protos.datatypes import BY_NAME, DATATYPES
from horngate_server.core.errors import InvalidRequest
from horngate_server.protocols import json_reader
from horngate_server.protocols.json_reader import EveryName, read_json
from horngate_server.protocols.open_inference.json import decode_json, decode_load_json

MANY = 1 << 14


@pytest.mark.parametrize("whole", [0, 1 << 16], ids=["large", "small"])
@pytest.mark.parametrize("name", [each.name for each in DATATYPES if each.name != "BF16"])
def test_json_carries_every_datatype(name: str, whole: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers become the bytes that they would have been raw; what the datatype cannot hold is refused."""
    monkeypatch.setattr(json_reader, "WHOLE_BYTES", whole)
    datatype = BY_NAME[name].numpy
    good = {"b": "[true, false]", "f": "[1.5, -2]"}.get(datatype.kind, "[0, 127]")
    bad = {"b": "[0, 1]", "f": "[true]"}.get(datatype.kind, "[0.5]")

    def body(data: str) -> bytes:
        return f'{{"inputs": [{{"name": "x", "shape": [2], "datatype": "{name}", "data": {data}}}]}}'.encode()

    values = {"b": [True, False], "f": [1.5, -2]}.get(datatype.kind, [0, 127])
    assert decode_json(body(good), "m", "").data[0] == np.array(values, datatype).tobytes()
    with pytest.raises(InvalidRequest, match=f"not {name}'s"):
        decode_json(body(bad), "m", "")


@pytest.mark.parametrize("whole", [0, 1 << 16], ids=["large", "small"])
@pytest.mark.parametrize("data", ["[1e400, 2]", "[1, 1E+400, 18446744073709551616, 3]", "[0.5, -1e999, 1]", "[1e309]"])
def test_json_numbers_beyond_64_bits_are_no_infinities(data: str, whole: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stands beside them, in a body of any size."""
    monkeypatch.setattr(json_reader, "WHOLE_BYTES", whole)
    with pytest.raises(InvalidRequest, match="expected none beyond what 64 bits hold"):
        decode_json(
            f'{{"inputs": [{{"name": "x", "shape": [4], "datatype": "FP64", "data": {data}}}]}}'.encode(), "m", ""
        )


@pytest.mark.parametrize("whole", [0, 1 << 16], ids=["large", "small"])
@pytest.mark.parametrize("number", ["1e999", "-1E+0400", "9" * 250 + "e99", "1" + "0" * 309 + ".5"])
def test_such_numbers_are_refused_wherever_they_stand(number: str, whole: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nobody reads them: a body means the same, however large it is."""
    monkeypatch.setattr(json_reader, "WHOLE_BYTES", whole)
    tensor = '{"name": "x", "shape": [1], "datatype": "INT32", "data": [1]}'
    with pytest.raises(InvalidRequest, match="expected none beyond what 64 bits hold"):
        decode_json(f'{{"inputs": [{tensor}], "unknown": {number}}}'.encode(), "m", "")


def test_strings_among_jsons_numbers_are_refused_before_they_take_memory() -> None:
    """NumPy would make all of them as long as the longest."""
    body = json.dumps(
        {"inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [""] * 20_000 + ["a" * 20_000]}]}
    ).encode()
    tracemalloc.start()
    with pytest.raises(InvalidRequest, match="not FP32's"):
        decode_json(body, "m", "")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


JUNK = {
    "objects": b'{"inputs": [' + b'{"a":1},' * MANY,
    "objects-as-data": b'{"inputs": [{"name": "x", "data": [' + b'{"a":1},' * MANY,
    "empty-objects": b'{"inputs": [' + b"{}," * MANY,
    "lists": b'{"inputs": [{"data": [' + b"[]," * 2 * MANY,
    "lists-of-one": b'{"inputs": [{"data": [' + b"[0]," * 2 * MANY,
    "strings": b'{"inputs": [{"data": [' + b'"ab",' * 2 * MANY,
    "numbers-where-none-belong": b'{"inputs": [' + b"1.5," * 2 * MANY,
}


@pytest.mark.parametrize("body", JUNK.values(), ids=JUNK)
def test_json_of_many_values_is_refused_before_they_take_memory(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight bytes of JSON can be 250 in memory: there is a bound, whatever they are."""
    monkeypatch.setattr(json_reader, "MOST_VALUES", MANY)
    monkeypatch.setattr(json_reader, "WHOLE_BYTES", 0)
    tracemalloc.start()
    with pytest.raises(InvalidRequest, match=f"the body has more than {MANY} values"):
        decode_json(body, "m", "")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * len(body) + MANY * 90


@pytest.mark.parametrize("data", ["[0]", "[[1, 2], [3, 4]]", "[1.5, 2, -3e5]", "[18446744073709551615, -1]", "[]"])
@pytest.mark.parametrize("spread", ["", " ", "\n\t"], ids=["tight", "spaced", "lines"])
def test_numbers_in_json_are_what_jsons_own_parser_reads(
    data: str, spread: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However they are written; runs of numbers are arrays of the smallest type that changes none."""
    monkeypatch.setattr(json_reader, "WHOLE_BYTES", 0)
    written = data.replace(",", f"{spread},{spread}").replace("]", f"{spread}]")

    def plain(value: object) -> object:
        if isinstance(value, list):
            return [
                inner for each in value for inner in ([plain(each)] if type(each) is not np.ndarray else each.tolist())
            ]
        return value

    assert plain(read_json(f'{{"data":{written}}}'.encode(), EveryName())["data"]) == json.loads(data)


@pytest.mark.parametrize(
    "body",
    ['{"data": [1,,2]}', '{"data": [,1]}', '{"data": [ ,1]}', '{"data": [1,]}', '{"data": [1, 2', '{"data": [1 2, 3]}',
     '{"data": [01, 2]}', '{"data": [+1, 2]}', '{"data": [1, 2,}', '{"a" 1}', '{"a": 1,}', "{1: 2}", '{"a": 1} x', "{"],
)  # fmt: skip
def test_what_is_no_json_is_refused_as_jsons_own_parser_refuses_it(body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within runs of numbers too."""
    monkeypatch.setattr(json_reader, "WHOLE_BYTES", 0)
    with pytest.raises(json.JSONDecodeError):
        json.loads(body)
    with pytest.raises(InvalidRequest, match="the body is not JSON"):
        read_json(body.encode(), EveryName())


@pytest.mark.parametrize(
    "body",
    [
        b'{"id": "\\udc00", "inputs": []}',
        b'{"parameters": {"\xed\xb6\xb5": 1}, "inputs": []}',
        b'{"inputs": [{"name": "\\ud800", "shape": [1], "datatype": "INT32", "data": [1]}]}',
    ],
)
def test_half_characters_in_json_are_refused(body: bytes) -> None:
    """JSON can write what is no Unicode text, and protobuf's strings cannot hold it."""
    with pytest.raises(InvalidRequest, match="a string that is no text"):
        decode_json(body, "m", "")


def test_a_model_is_loaded_with_the_parameters_that_grpc_has() -> None:
    """No body is no parameters; numbers become int64, and text a string."""
    assert not decode_load_json(b"", "m").parameters
    request = decode_load_json(b'{"parameters": {"version": 3, "label": "canary"}}', "m")
    assert request.model_name == "m"
    assert request.parameters["version"].int64_param == 3
    assert request.parameters["label"].string_param == "canary"


@pytest.mark.parametrize(
    "body",
    [b"[]", b"{", b"\xff", b"[" * 100_000, b'{"parameters": []}', b'{"parameters": {"version": true}}',
     b'{"parameters": {"version": 1.5}}', b'{"parameters": {"version": 9223372036854775808}}',
     b'{"parameters": {"version": -1}}', b'{"parameters": {"label": "\\ud800"}}'],
)  # fmt: skip
def test_what_is_no_request_to_load_is_refused(body: bytes) -> None:
    """Whatever it is, by one error with words."""
    with pytest.raises(InvalidRequest, match="the body"):
        decode_load_json(body, "m")
