"""Everything that can go wrong, at once, beside callers whose every answer is checked.

PYTHONPATH=tests python benchmarks/chaos.py [--seconds 600] [--transport NAME] [--workers N] [--models DIR] [--seed N]

Versions take over from each other, tokens and certificates are renewed, nobody reads the log, a disk hangs, and with
two workers one is killed or stopped now and then; all hostile callers have their turn, two at a time. Meanwhile control
callers ask what they know the answer to: plain grpcio, Horngate's client, and a probe of /livez.

Ends with 1 if an answer was wrong, if a call had no outcome in its time, if one through Horngate's client failed, if
somebody got in without a token, or if the server did not end as it should.
"""

import argparse
import random
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from control import Control, Outcomes, table, truth_of
from havoc import EVENTS, TO_WORKERS, World, prepared
from hostile import attack
from hostile_callers import ADMIN, HOSTILE

GRACE_S = 10.0
AT_ONCE = 2
TURN_S = 12.0
"""Of a hostile caller, where there is time for that."""
START_S = 4.0
"""What starting and ending one takes."""
BUG = "This is a bug"


def chaos(
    world: World, seconds: float, workers: int, dice: random.Random
) -> tuple[dict[str, Outcomes], dict[str, Counter[str]]]:
    """Let everything happen for so long; return what the control callers saw, and what the hostile ones were told."""
    truth = truth_of(world.address)
    world.new_version()
    while len(truth) < 2:
        truth |= truth_of(world.address)
    told: dict[str, Counter[str]] = {name: Counter() for name in HOSTILE if workers == 1 or name not in ADMIN}
    stop = threading.Event()
    with Control(world.address, world.ca, truth) as control, ThreadPoolExecutor(AT_ONCE + 1) as threads:
        events = [name for name in EVENTS if workers > 1 or name not in TO_WORKERS]
        running = [threads.submit(world.happen, events, stop)]
        turn_s = min(TURN_S, AT_ONCE * seconds / len(told) - START_S)
        names = dice.sample(list(told), len(told))
        running += [
            threads.submit(_take_turns, world, turn_s, told, names[lane::AT_ONCE], stop) for lane in range(AT_ONCE)
        ]
        time.sleep(seconds)
        stop.set()
        for each in running:
            each.result()
        return control.result(), told


def restarts_of(http: str) -> int:
    """Return how often the server has replaced a worker."""
    with urllib.request.urlopen(f"{http}/metrics", timeout=10) as response:
        lines = response.read().decode().splitlines()
    return sum(int(float(line.split()[-1])) for line in lines if line.startswith("horngate_worker_restarts_total{"))


def judged(outcomes: dict[str, Outcomes], told: dict[str, Counter[str]], code: int, log: list[str]) -> list[str]:
    """Say what must not be."""
    wrong = [
        f"{kind}: {each.codes[what]} calls {what}"
        for kind, each in outcomes.items()
        for what in ("WRONG", "LOST")
        if each.codes[what]
    ]
    ours = outcomes["horngate_client"]
    wrong += [
        f"horngate_client: {count} calls failed with {code}: {ours.said[code]}" for code, count in ours.failed.items()
    ]
    wrong += (
        [f"let in without a token: {told['host bypass']}"]
        if set(told["host bypass"]) - {"401", "connection closed", "no answer yet"}
        else []
    )
    wrong += (
        [f"nul path: {told['nul path']['lost']} calls lost"] if "nul path" in told and told["nul path"]["lost"] else []
    )
    wrong += [f"the server's exit code: {code}"] if code else []
    return wrong + [f"the server's log: {line}" for line in log if BUG in line or "Traceback" in line]


def run(transport: str, workers: int, asked: argparse.Namespace, versions: tuple[Path, Path], others: Path) -> bool:
    """Run one combination and print what was seen; return whether it was as it should be."""
    print(f"\n{transport}, {workers} worker{'s' if workers > 1 else ''}, {asked.seconds:g} s", flush=True)
    dice = random.Random(asked.seed)
    flags = ["--transport", transport, "--workers", str(workers), "--grace-period", f"{GRACE_S:g}s"]
    flags += ["--admin"] if workers == 1 else []
    with tempfile.TemporaryDirectory() as scratch, World(Path(scratch), versions, others, dice, *flags) as world:
        outcomes, told = chaos(world, asked.seconds, workers, dice)
        restarts = restarts_of(world.server.http)
        began = time.monotonic()
        code = world.server.stop()
        ended_s = time.monotonic() - began
        wrong = judged(outcomes, told, code, world.server.log)
        happened = ", ".join(f"{name} {count}" for name, count in sorted(world.happened.items()))
    print("\n".join(table(outcomes)))
    print(f"server: peak {world.peak_mb:.0f} MB resident, {restarts} restarts, ended after {ended_s:.1f} s with {code}")
    print(f"events: {happened}")
    for name, each in told.items():
        print(f"  {name:18} " + ", ".join(f"{what} {count}" for what, count in sorted(each.items())))
    for line in wrong:
        print(f"WRONG  {line}")
    sys.stdout.flush()
    return not wrong


def main() -> int:
    """Run the combinations that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0, help="of each combination")
    parser.add_argument("--transport", default="fast,grpcio")
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--seed", type=int, default=1, help="of the order in which things happen")
    parser.add_argument("--models", type=Path, help="keep the models here (default: in a temporary folder)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        models = asked.models or Path(scratch)
        first, second = prepared(models, 1, 2)
        good = [
            run(transport, int(workers), asked, (first, second), models / "others")
            for transport in asked.transport.split(",")
            for workers in asked.workers.split(",")
        ]
    return 0 if all(good) else 1


# --- private ------------------------------------------------------------------------------------------


def _take_turns(
    world: World, turn_s: float, told: dict[str, Counter[str]], names: list[str], stop: threading.Event
) -> None:
    """Let these hostile callers do their worst in turn."""
    while not stop.is_set():
        for name in names:
            if not stop.is_set():
                told[name] += attack(name, world.address, turn_s, stop)


if __name__ == "__main__":
    sys.exit(main())
