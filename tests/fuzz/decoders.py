"""Fuzzes everything that reads a caller's bytes, in one process: `oracle.one` says what must hold.

    python tests/fuzz/decoders.py [--seconds 60] [--runs 5000000]

atheris guides it by coverage, with mutations that know protobuf's structure.
"""

import argparse
import resource
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import atheris

with atheris.instrument_imports(include=["horngate_server.core.codec", "horngate_server.engine.validation"]):
    from fuzz.oracle import one

from fuzz.mutations import mutate, mutate_json
from fuzz.seeds import CORPUS, METHODS, corpus
from horngate_server.core.inference import Header
from horngate_server.protocols import tensorflow_serving

SEEDS = corpus()
GROWTH_BYTES = 256 << 20
"""More memory than this is a finding: messages have 16 KiB."""


def mutated(data: bytes, max_size: int, seed: int) -> bytes:
    """Return a neighbour of an input (atheris's custom mutator)."""
    random = Random(seed)
    if not data or random.random() < 0.02:
        return bytes(atheris.Mutate(data, max_size))
    number = data[0] % len(METHODS)
    method = METHODS[number]
    if method == "json":
        return bytes([number]) + mutate_json(data[1:], random)[: max_size - 1]
    return bytes([number]) + mutate(data[1:], random, SEEDS[method])[: max_size - 1]


def main() -> None:
    """Fuzz until the time or the runs are over; the corpus grows in a folder that is thrown away."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=0, help="0: until the runs are over")
    parser.add_argument("--runs", type=int, default=-1, help="-1: until the time is over")
    parser.add_argument("--keep", type=Path, help="a folder for what was found to be interesting")
    parser.add_argument("--prove", action="store_true", help="break a decoder first: this run must find it")
    parser.add_argument("--seed", type=int, default=0, help="0: another one every time")
    asked = parser.parse_args()
    if asked.prove:
        tensorflow_serving._whole_header = _broken
    # Not libFuzzer's own limit: that is the peak since before exec, our parent's memory included.
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + GROWTH_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with tempfile.TemporaryDirectory() as scratch:
        found = asked.keep or Path(scratch)
        found.mkdir(exist_ok=True)
        atheris.Setup(
            [
                sys.argv[0], str(found), str(CORPUS), f"-max_total_time={asked.seconds}", f"-runs={asked.runs}",
                f"-seed={asked.seed}", "-max_len=16384", "-timeout=10", "-rss_limit_mb=0", "-print_final_stats=1",
                f"-artifact_prefix={found}/",
            ],
            one,
            custom_mutator=mutated,
        )  # fmt: skip
        atheris.Fuzz()


# --- private ------------------------------------------------------------------------------------------


def _broken(message: bytes, view: memoryview, spans: list[Any]) -> Header:
    """Do what `tensorflow_serving._whole_header` does, but believe that no input comes twice."""
    names = [str(view[span.name], "utf-8", "replace") for span in spans]
    return tensorflow_serving._header(tensorflow_serving._from_bytes(message), names)


if __name__ == "__main__":
    main()
