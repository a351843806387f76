"""Every benchmark once, with the smallest settings, and nothing saved: do they still work?

python benchmarks/smoke.py [--only NAME,...]

The figures that are printed mean nothing. Ends with 1 at the end if one failed.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from serving_process import trained
from swaps import train

HERE = Path(__file__).parent
SMALLEST = {
    "trainer": ["--rounds", "1", "--epochs", "1", "--no-save"],
    "start": ["--rounds", "1", "--no-save"],
    "serving": ["--rounds", "1", "--seconds", "0.2", "--only", "C API,echo,horngate,horngate-grpcio", "--no-save"],
    "swaps": ["--swaps", "2", "--per-second", "200", "--alone-seconds", "0.5", "--no-save"],
    "soak": ["--minutes", "0.02", "--no-save"],
    "neighbours": ["--rounds", "1", "--seconds", "0.2", "--transports", "fast", "--no-save"],
    "large_models": [
        "--rounds", "1", "--seconds", "0.2", "--only", "image256", "--transports", "grpcio", "--no-save",
    ],
    "scaling": ["--requests", "2000"],
}  # fmt: skip
ON_MNIST = {"start", "serving", "soak"}
"""Those that take --models."""
NEEDS = {"serving": ("h2load", "apt-get install nghttp2-client")}
"""Programs that are no Python packages."""


def main() -> int:
    """Run them one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SMALLEST))
    asked = parser.parse_args()
    failed = []
    with tempfile.TemporaryDirectory() as scratch, trained(None) as models:
        for name in asked.only.split(","):
            program, how = NEEDS.get(name, ("", ""))
            if program and shutil.which(program) is None:
                print(f"{name:16} left out: {program} is not installed; {how}", flush=True)
                continue
            began = time.perf_counter()
            flags = [*SMALLEST[name], *(["--models", str(models)] if name in ON_MNIST else [])]
            if name == "swaps":  # two models that answer differently
                flags += [str(models / "mnist/1"), str(train(Path(scratch), seed=2))]
            with tempfile.TemporaryFile("w+") as output:
                command = [sys.executable, str(HERE / f"{name}.py"), *flags]
                code = subprocess.run(command, stdout=output, stderr=output, check=False).returncode
                output.seek(0)
                print(
                    f"{name:16} {'works' if code == 0 else 'FAILED'}, {time.perf_counter() - began:.1f} s", flush=True
                )
                if code:
                    failed.append(name)
                    print(output.read()[-5000:], flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
