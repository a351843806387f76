"""Hostile callers alone: what each makes of the server's memory, and of a good caller's longest wait."""

import multiprocessing
from collections import Counter
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event

from address import Address
from hostile_callers import HOSTILE, Stop

LAST_WORDS_S = 3.0
"""How long a caller that was told to stop gets to say what it was told."""


def attack(name: str, address: Address, seconds: float, stop: Stop) -> Counter[str]:
    """Let a hostile caller do its worst, again and again, in a process of its own; return what it was told.

    It ends after so many seconds, or when this is to stop, in the midst of a call if need be.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    its_stop = context.Event()
    process = context.Process(target=_attack, args=(name, address, its_stop, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        ours.recv()
        stop.wait(seconds)
        its_stop.set()
        if ours.poll(LAST_WORDS_S):
            told: Counter[str] = ours.recv()
            return told
        return Counter({"no answer yet": 1})
    except EOFError:
        return Counter({"the caller failed": 1})
    finally:
        process.kill()
        process.join()


# --- private ------------------------------------------------------------------------------------------


def _attack(name: str, address: Address, stop: Event, line: Connection) -> None:
    line.send("started")
    told: Counter[str] = Counter()
    while not stop.is_set():
        told += HOSTILE[name](address, stop)
    line.send(told)
