"""Every benchmark once, with the smallest settings, and nothing saved: do they still work?

PYTHONPATH=tests python benchmarks/smoke.py [--only NAME,...]

Two at a time, so the figures that they print mean nothing; they are shown where one fails, and the exit code is 1 then.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from serving_process import foreign
from swaps import train

HERE = Path(__file__).parent
AT_ONCE = 2
FOREIGN = ("embed", "freeaxes", "image256")
ONCE = ["--rounds", "1", "--no-save"]
SMALLEST = {
    "chaos": ["--seconds", "45", "--transport", "auto", "--workers", "2"],
    "serving": [*ONCE, "--seconds", "0.5", "--only", "C API,echo,horngate,horngate-litert,horngate-grpcio"],
    "growth": ["--no-save", "--quick"],
    "scaling": ["--no-save", "--quick"],
    "engines": [*ONCE, "--seconds", "0.2", "--only", "mlp"],
    "large_models": [*ONCE, "--seconds", "0.2", "--only", "image256", "--transports", "grpcio"],
    "neighbours": [*ONCE, "--seconds", "0.2", "--transports", "fast"],
    "shutdowns": ["--count", "3"],
    "trainer": [*ONCE, "--epochs", "1"],
    "hostile": ["--only", "zero axis", "--transport", "grpcio"],
    "swaps": ["--no-save", "--swaps", "2", "--per-second", "200", "--alone-seconds", "0.5"],
    "replayed_day": ["--seconds", "2", "--requests", "200"],
    "start": ONCE,
    "soak": ["--no-save", "--minutes", "0.02"],
}
"""The longest ones first. What `chaos` finds counts, however short."""
NEEDS = dict.fromkeys(("serving", "growth", "engines", "scaling"), ("h2load", "apt-get install nghttp2-client"))
"""Programs that are no Python packages."""


def main() -> int:
    """Run them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SMALLEST))
    names = parser.parse_args().only.split(",")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            pool.submit(foreign, scratch / "others", *FOREIGN)
            first, second = pool.map(partial(train, scratch), (1, 2))
        mnist, others = str(scratch / "1"), str(scratch / "others")
        models = {name: ["--models", mnist] for name in ("serving", "growth", "start", "soak", "shutdowns")}
        models |= {name: ["--models", others] for name in ("large_models", "neighbours")}
        models |= {"chaos": ["--models", folder], "hostile": ["--models", folder], "swaps": [str(first), str(second)]}
        models["replayed_day"] = models["swaps"]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            works = list(pool.map(lambda name: run(name, [*SMALLEST[name], *models.get(name, [])]), names))
    return 0 if all(works) else 1


def run(name: str, flags: list[str]) -> bool:
    """Run one and say how it went; return whether it works, or was left out for want of a program."""
    program, how = NEEDS.get(name, ("", ""))
    if program and shutil.which(program) is None:
        print(f"{name:16} left out: {program} is not installed; {how}", flush=True)
        return True
    began = time.perf_counter()
    command = [sys.executable, str(HERE / f"{name}.py"), *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(f"{name:16} {'FAILED' if done.returncode else 'works'}, {time.perf_counter() - began:.1f} s", flush=True)
    if done.returncode:
        print(f"{done.stdout}\n{done.stderr}"[-5000:], flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
