"""The corpus, and a minute of fuzzing: `make fuzz` runs the whole of it."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from random import Random

import pytest

from fuzz.mutations import mutate, mutate_json, parse, write
from fuzz.oracle import one
from fuzz.seeds import CORPUS, METHODS, corpus
from horngate_server.transports.pyvoy import envoy

HERE = Path(__file__).parent
TESTS = HERE.parent
ENTRIES = sorted(path for path in CORPUS.rglob("*") if path.is_file())


def _run(script: str, *arguments: object) -> str:
    """Run one of the harnesses; return what it said."""
    done = subprocess.run(
        [sys.executable, HERE / script, *map(str, arguments)],
        capture_output=True, text=True, timeout=115, check=False, env={**os.environ, "PYTHONPATH": str(TESTS)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-15000:] + done.stdout[-5000:]  # tracebacks are in stdout
    return done.stdout + done.stderr


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_entry_of_the_corpus_is_read_as_protobuf_reads_it(entry: Path) -> None:
    """Or refused; when it comes again, too, and what was remembered of it is believed."""
    one(entry.read_bytes())
    one(entry.read_bytes())


@pytest.mark.slow
@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris has no wheel for this machine")
def test_half_a_minute_of_fuzzing_finds_nothing_in_the_decoders() -> None:
    """Whatever comes in is read as protobuf reads it, or refused; nothing else is ever raised."""
    said = _run("decoders.py", "--seconds", 30)
    assert "DONE" in said


@pytest.mark.slow
@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris has no wheel for this machine")
def test_the_fuzzer_finds_a_decoder_that_is_broken_on_purpose() -> None:
    """One that believes that no input comes twice is caught within seconds."""
    with pytest.raises(AssertionError, match="in _compare"):
        _run("decoders.py", "--seconds", 60, "--prove")


@pytest.mark.parametrize(
    "transport",
    ["grpcio", pytest.param("fast", marks=pytest.mark.skipif(envoy.why_not() is not None, reason="no Envoy here"))],
)
def test_a_fuzzed_server_answers_rightly_afterwards(transport: str, trained: Path) -> None:
    """No message over the wire brings about INTERNAL, an end, a hang or growth."""
    said = _run("over_the_wire.py", "--models", trained.parents[1], "--transport", transport, "--messages", 10_000)
    assert "10120 messages" in said


def test_the_corpus_begins_with_valid_messages_of_every_method() -> None:
    """What `seeds.py` would write is what is there; and a mutation is a change, most of the time."""
    written = {path.name: path.read_bytes() for path in CORPUS.iterdir() if path.is_file()}
    random = Random(1)
    for number, method in enumerate(METHODS):
        for place, message in enumerate(corpus()[method]):
            assert written[f"{method}-{place}"] == bytes([number]) + message
            if method == "json":
                assert sum(mutate_json(message, random) != message for _ in range(100)) > 70
            else:
                fields = parse(message)
                assert fields is not None
                assert write(fields) == message
                assert sum(mutate(message, random) != message for _ in range(100)) > 70
