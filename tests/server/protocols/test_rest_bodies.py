"""Bodies of REST callers, mutated: each becomes an answer or an error with words, whatever it is."""

import json
from collections.abc import Callable
from contextlib import suppress
from random import Random
from unittest.mock import patch

import pytest

from fuzz.mutations import mutate, mutate_json
from fuzz.oracle import INFOS, _result
from horngate_server.core.codec import Codec
from horngate_server.core.errors import RequestError
from horngate_server.core.inference import InferenceRequest
from horngate_server.engine.validation import arrange, plan
from horngate_server.protocols import json_reader, tensorflow_serving_json
from horngate_server.protocols.model_spec import Asked
from horngate_server.protocols.open_inference.json import JSON, decode_json
from horngate_server.protocols.tensorflow_serving_json import decode_examples, decode_predict

PREDICT, CLASSIFY = tensorflow_serving_json.PREDICT, tensorflow_serving_json.CLASSIFY
OUTPUTS = [{"name": "double", "parameters": {"binary_data": False}}, {"name": "probabilities"}]
SEEDS: list[tuple[str, Codec, object, bytes]] = [
    ("m", PREDICT, {"instances": [[1, 2], [3, 4]], "signature_name": ""}, b""),
    ("m", PREDICT, {"inputs": {"x": [[1, 2], [3, 4]]}}, b""),
    ("s", PREDICT, {"instances": [["a", {"b64": "/w=="}]]}, b""),
    ("o", PREDICT, {"inputs": {"flag": True, "half": [1.5, 2]}}, b""),
    ("e", CLASSIFY, {"examples": [{"x": [1, 2.5], "w": "a"}], "context": {"c": 7}}, b""),
    ("m", tensorflow_serving_json.REGRESS, {"examples": [{"x": [1, 2]}]}, b""),
    (
        "m",
        JSON,
        {
            "inputs": [{"name": "x", "shape": [1, 2], "datatype": "INT32", "parameters": {"binary_data_size": 8}}],
            "parameters": {"binary_data_output": True},
            "outputs": OUTPUTS,
        },
        bytes(8),
    ),
    (
        "s",
        JSON,
        {"inputs": [{"name": "words", "shape": [1, 2], "datatype": "BYTES", "parameters": {"binary_data_size": 11}}]},
        b"\x03\0\0\0abc\0\0\0\0",
    ),
]
MUTANTS = 100


def reader(name: str, codec: Codec, body: bytes, behind: bytes) -> Callable[[], InferenceRequest]:
    """Return what reads a body as the HTTP port does."""
    if codec is PREDICT:
        return lambda: decode_predict(body, Asked(name, "", ""), lambda _: INFOS[name].signature)
    if codec is JSON:
        return lambda: decode_json(body + behind, name, "", len(body))
    return lambda: decode_examples(body, Asked(name, "", ""))


def answer(name: str, codec: Codec, read: Callable[[], InferenceRequest]) -> bytes | None:
    """Do what the server does with a body; None for an error with words."""
    info = INFOS[name]
    with suppress(RequestError):
        request = read()
        if codec.fit is not None:
            request = codec.fit(request, info.signature)
        request.header.check(info.signature)
        planned = plan(request.header, info, 4096)
        arrange(request, planned)
        return codec.encode(request, info, _result(info, planned.rows))
    return None


@pytest.mark.parametrize(("name", "codec", "body", "behind"), SEEDS)
def test_mutated_bodies_are_answered_or_refused(name: str, codec: Codec, body: object, behind: bytes) -> None:
    """Nothing else is raised, and a body means the same whether it is read at once or in steps."""
    random = Random(1)
    seed = json.dumps(body).encode()
    assert answer(name, codec, reader(name, codec, seed, behind)) is not None
    for _ in range(MUTANTS):
        changed = mutate_json(seed, random) if random.random() < 0.7 else mutate(seed, random)
        read = reader(name, codec, changed, mutate(behind, random) if random.random() < 0.2 else behind)
        at_once = answer(name, codec, read)
        with patch.object(json_reader, "WHOLE_BYTES", 0):
            assert answer(name, codec, read) == at_once
