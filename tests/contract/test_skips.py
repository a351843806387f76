"""A skipped test fails the run, unless its reason is listed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.skips import OUTSIDE_CI

TESTS = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["mark", "call"])
def test_a_skipped_test_fails_unless_its_reason_is_listed(how: str, tmp_path: Path) -> None:
    """By a marker or in the test; a reason for developers' machines is none in CI; what is expected to fail may."""
    reasons = ("this machine has a GPU", f"{OUTSIDE_CI[0]}: more", "I do not like it")
    lines = ["import pytest"]
    for number, reason in enumerate(reasons):
        lines += [f"@pytest.mark.skip(reason={reason!r})"] if how == "mark" else []
        lines += [f"def test_{number}():", f"    pytest.skip({reason!r})"]
    lines += ["@pytest.mark.xfail(reason='known')", "def test_known():", "    assert False"]
    (tmp_path / "test_it.py").write_text("\n".join(lines))
    told = {where: run(tmp_path, where) for where in ("here", "CI")}
    assert "2 skipped, 1 xfailed" in told["here"]
    assert "1 skipped, 1 xfailed" in told["CI"]
    assert "skipped: I do not like it; expected one of the reasons in tests/support/skips.py" in told["here"]
    assert f"skipped: {reasons[1]}; expected" in told["CI"]


def run(folder: Path, where: str) -> str:
    """Run the tests in a folder, as in CI or not; return what pytest says."""
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    environment |= {"PYTHONPATH": str(TESTS), **({"CI": "true"} if where == "CI" else {})}
    command = [sys.executable, "-m", "pytest", "-p", "support.skips", "-p", "no:cacheprovider", "--rootdir", ".", "."]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    return done.stdout
