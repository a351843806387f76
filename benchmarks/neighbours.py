"""Good callers beside one whose requests are wrong: no good call may fail, and they keep their rate.

python benchmarks/neighbours.py [--rounds 3] [--seconds 10] [--transports NAME,...] [--models DIR]

First, eight callers look up ids in a table, alone and beside one whose id is out of range: TensorFlow fails the whole
batch for it. Then, one caller with small requests, alone and beside one whose shape costs nothing to send and is huge.
The fast and the grpcio transport in turn, a fresh server each time; callers in processes of their own. Ends with 1 if
a good call failed or was answered wrongly, or a bad one got another status than INVALID_ARGUMENT.
"""

import re
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import harness
import numpy as np
from callers import Callers, Calls, Seen, infer_body
from serving_process import Server, alone, foreign

GOOD = 8
PAUSE_S = 0.05
"""Between two calls of the one with huge shapes: what one of them costs is asked, not how many there can be."""
LONGER_S = 0.5
"""The bad caller goes on for so much longer than the good ones."""
HUGE = {"1 x 2^40 x 0": (1, 1 << 40, 0), "1 x 2.5e8 x 0": (1, 250_000_000, 0)}
OWN = re.compile(r"\d{4}-\d\d-\d\dT\S+ (?!.*tensorflow: )")
"""How the server's own lines begin; all others are TensorFlow's, as they come or as the server passes them on."""
Figures = dict[str, float]


def bad_ids(server: Server, good: Callers, bad: Callers, seconds: float, told: Counter[str]) -> Figures:
    """Measure the callers of `embed`, so many seconds alone and beside the bad one; count what that one is told."""
    right, wrong = (
        infer_body("embed", "ids", "INT32", (1, 3), np.array([[first, 0, 0]], np.int32).tobytes())
        for first in (1, 1000)
    )
    calls = Calls(server.grpc, right, GOOD)
    good.call(calls, min(1.0, seconds))
    before = good.call(calls, seconds)
    logged = len(server.log())
    bad.start(Calls(server.grpc, wrong, 1, checked=0), seconds + LONGER_S)
    beside = good.call(calls, seconds)
    theirs = bad.result()
    lines = server.log()[logged:].splitlines()
    own = sum(bool(OWN.match(line)) for line in lines)
    _tell(told, theirs)
    return {
        "good calls/s alone": before.per_second,
        "good calls/s beside": beside.per_second,
        "good calls beside": sum(beside.codes.values()),
        **_harm(before, beside),
        "bad calls/s": sum(theirs.codes.values()) / theirs.seconds,
        "own log lines/s": own / theirs.seconds,
        "TensorFlow's log lines/s": (len(lines) - own) / theirs.seconds,
    }


def huge_shape(
    server: Server, good: Callers, bad: Callers, seconds: float, told: Counter[str], *, shape: tuple[int, ...]
) -> Figures:
    """Measure a caller of `freeaxes`, so many seconds alone and beside the one with this shape."""
    small = Calls(server.grpc, infer_body("freeaxes", "x", "FP32", (1, 4, 4), np.ones(16, np.float32).tobytes()), 1)
    body = infer_body("freeaxes", "x", "FP32", shape, None)
    good.call(small, min(1.0, seconds))
    before = good.call(small, seconds)
    bad.start(Calls(server.grpc, body, 1, PAUSE_S, checked=0), seconds + LONGER_S)
    beside = good.call(small, seconds)
    theirs = bad.result()
    _tell(told, theirs)
    return {
        "bytes": len(body),
        "refused after, median ms": theirs.ms(0.5),
        "refused after, longest ms": theirs.ms(1.0),
        "p99 of the other alone, ms": before.ms(0.99),
        "p99 of the other beside, ms": beside.ms(0.99),
        "longest of the other alone, ms": before.ms(1.0),
        "longest of the other beside, ms": beside.ms(1.0),
        **_harm(before, beside),
    }


Part = Callable[[Server, Callers, Callers, float, Counter[str]], Figures]


def measure(part: Part, model: str, transport: str, models: Path, seconds: float, *, told: Counter[str]) -> Figures:
    """Start a server with one model, and callers; measure."""
    with (
        alone(models, model) as root,
        Server(root, "--transport", transport) as server,
        Callers() as good,
        Callers() as bad,
    ):
        return part(server, good, bad, seconds, told)


def main() -> int:
    """Measure, print, save; 1 if a good call failed or a bad one was told anything but INVALID_ARGUMENT."""
    parser = harness.options(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--models", type=Path, help="keep the models here (default: in a temporary folder)")
    parser.add_argument("--transports", default="fast,grpcio")
    asked = parser.parse_args()
    transports: list[str] = asked.transports.split(",")
    parts: dict[str, tuple[Part, str]] = {"an id out of range": (bad_ids, "embed")}
    parts |= {name: (partial(huge_shape, shape=shape), "freeaxes") for name, shape in HUGE.items()}
    content: dict[str, Any] = {"rounds": asked.rounds, "seconds": asked.seconds, "parts": {}}
    harmed = False
    with tempfile.TemporaryDirectory() as scratch:
        models = asked.models or Path(scratch)
        foreign(models, "embed", "freeaxes")
        for name, (part, model) in parts.items():
            print(name)
            told: dict[str, Counter[str]] = {transport: Counter() for transport in transports}
            figures = harness.rounds(
                asked.rounds,
                {
                    each: partial(measure, part, model, each, models, asked.seconds, told=told[each])
                    for each in transports
                },
            )
            ratios = {each: _ratio(figures, each) for each in transports}
            for each in transports:
                print(f"{each:8} {ratios[each][0]}: {ratios[each][1]:.2f}; the bad caller was told {dict(told[each])}")
                harmed |= set(told[each]) != {"INVALID_ARGUMENT"}
                harmed |= any(figures["good calls failed"][each]) or any(figures["good calls answered wrongly"][each])
            content["parts"][name] = {"ratios": ratios, "told": told, "figures": figures}
    if asked.save:
        print(harness.save("neighbours", content))
    return 1 if harmed else 0


# --- private ------------------------------------------------------------------------------------------


def _tell(told: Counter[str], theirs: Seen) -> None:
    told.update(theirs.codes)
    for code, message in theirs.messages.items():
        print(f"  told {code}: {message}")


def _harm(*parts: Seen) -> Figures:
    return {
        "good calls failed": sum(sum(each.codes.values()) - each.codes["OK"] for each in parts),
        "good calls answered wrongly": sum(each.wrong for each in parts),
    }


def _ratio(figures: dict[str, dict[str, list[float]]], transport: str) -> tuple[str, float]:
    """Return what is compared, and the median of the rounds' own ratios."""
    one, other = (
        ("good calls/s beside", "good calls/s alone")
        if "good calls/s alone" in figures
        else ("p99 of the other beside, ms", "p99 of the other alone, ms")
    )
    pairs = zip(figures[one][transport], figures[other][transport], strict=True)
    return f"{one} to {other}", statistics.median(a / b for a, b in pairs)


if __name__ == "__main__":
    sys.exit(main())
