"""Removes from corpus/found what reaches nothing that smaller entries do not reach.

    PYTHONPATH=tests python tests/fuzz/minimise.py [folder of new entries]

An entry reaches the steps from line to line that the server's code makes of it, each of them about as often as it does
(once, twice, up to 4, 8, ... times): what libFuzzer counts, too. New entries are those that
`decoders.py --keep FOLDER` finds; they are named by their SHA-1, as libFuzzer names them.
"""

import sys
from collections import Counter
from hashlib import sha1
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from fuzz.oracle import one
from fuzz.seeds import CORPUS

FOUND = CORPUS / "found"
WATCHED = "/horngate_server/"

Step = tuple[CodeType, int, int, int]


def reached(data: bytes) -> set[Step]:
    """Return the steps that an entry reaches when it comes for the first time and once more, with how often."""
    steps: Counter[tuple[CodeType, int, int]] = Counter()

    def enter(frame: FrameType, event: str, argument: Any) -> Any:
        del event, argument
        if WATCHED not in frame.f_code.co_filename:
            return None
        last = 0

        def step(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal last
            del argument
            if event == "line":
                steps[frame.f_code, last, frame.f_lineno] += 1
                last = frame.f_lineno
            return step

        return step

    sys.settrace(enter)
    try:
        one(data)
        one(data)
    finally:
        sys.settrace(None)
    return {(*step, count.bit_length()) for step, count in steps.items()}


def main() -> None:
    """Keep the smallest entries that reach everything; remove the others."""
    seeds = [path.read_bytes() for path in sorted(CORPUS.iterdir()) if path.is_file()]
    folders = [FOUND, *map(Path, sys.argv[1:])]
    entries = {path.read_bytes() for folder in folders for path in folder.iterdir()}
    seen = {step for data in seeds for step in reached(data)}
    kept = []
    for data in sorted(entries, key=lambda data: (len(data), data)):
        if not (steps := reached(data)) <= seen:
            seen |= steps
            kept.append(data)
    for path in FOUND.iterdir():
        path.unlink()
    for data in kept:
        (FOUND / sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)
    print(f"{len(kept)} of {len(entries)} entries reach what all reach")


if __name__ == "__main__":
    main()
